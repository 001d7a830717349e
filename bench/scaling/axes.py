"""Measure cost against image size, batch, length of the sentence and of the series, in interleaved rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsms_rt.bench.options import ScalingOptions
from lsms_rt.bench.samples import Samples
from lsms_rt.bench.timing import cost, rounds
from lsms_rt.bench.unjudged import unjudged
from lsms_rt.data import demo_checkpoint
from lsms_rt.engine import Backend, open_backend, open_directory
from lsms_rt.engine.graph_backend import IMAGE_GRAPH
from lsms_rt.engine.registry import BACKENDS
from lsms_rt.export.build import build_engine
from lsms_rt.export.options import BuildOptions, check_precision
from lsms_rt.machine.cpu import cpu_count
from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.model.config import OWN_TOKENS, LsmsConfig
from lsms_rt.model.lsms import TOKENIZER

from .ceilings import measure_ceilings
from .operators import profile

Status = Callable[[str], None]
Point = tuple[Callable[[], object], int]
"""What is measured, and the items that one call computes"""
SEED = 0
# For axes that do not involve the text encoder.
SMALL_TEXT = TextConfig(hidden_size=128, layers=1, heads=2, intermediate_size=512, max_tokens=OWN_TOKENS)


def measure_scaling(options: ScalingOptions, status: Status) -> dict[str, Any]:
    """Measure all axes.

    Args:
        options: The points.
        status: Called with the name of each step.

    Returns:
        The fields of a record in plain types, among them "axes" of points, "operators" of one slice and "ceilings" of
        one thread.

    Raises:
        InputError: the backend has no engines in the precision.
        MachineError: the backend's library, or the instructions for the precision, are missing.
    """
    # Before the expensive steps.
    spec = BACKENDS[options.backend]
    check_precision(spec, options.precision, None)
    spec.load().check_machine(options.precision, None)
    config = preset(options.preset, image_size=options.image_size, text=SMALL_TEXT)
    axes: dict[str, Any] = {"image size": []}
    flops = []
    # One engine at a time, because the threads of another one would disturb it.
    for size in options.sizes:
        status(f"image size {size}")
        sized = replace(config, image_size=size)
        with _engine(sized, options) as (backend, fp32, _):
            axes["image size"] += _points({size: _segment(backend, sized, 1)}, options.rounds)
            flops.append({"x": size, "flops": sum(row.flops for row in profile(fp32 / IMAGE_GRAPH, runs=1))})
    with _engine(config, options) as (backend, fp32, engine):
        status("batch")
        axes["batch"] = _points({n: _segment(backend, config, n) for n in options.batches}, options.rounds)
        status("slices")
        axes["slices"] = _points({n: _series(backend, config, n) for n in options.slices}, options.rounds)
        status("operators")
        operators = {"operators": [row.to_dict() for row in profile(fp32 / IMAGE_GRAPH)]}
        if options.backend in PROFILES:
            operators[f"operators_{options.backend}"] = PROFILES[options.backend](engine)
    status("ceilings")
    ceilings = measure_ceilings().to_dict()
    axes |= _sentences(options, config, status)
    return {
        "backend": options.backend,
        "precision": options.precision,
        "weights": f"random ({options.preset})",
        "image_size": options.image_size,
        "text": {"sentences": _text_name(options.text), "else": _text_name(SMALL_TEXT)},
        "rounds": options.rounds,
        "cores": cpu_count(),
        "axes": axes,
        "flops": flops,
        **operators,
        "ceilings": ceilings,
        "method": {
            "image size": "one slice through the image graph, its sentence already encoded, all cores; ms",
            "batch": "slices in one call; a CPU computes 1 on all cores, more on one core each; ms per slice",
            "slices": "a new sentence, then a series of that many; ms per slice",
            "sentence, tokens of it": "encoding a sentence of that many tokens, in an engine for the longest; ms",
            "sentence, tokens of the engine": "encoding a sentence, in an engine built for that many tokens; ms",
            "slice, tokens of the engine": "one slice, its sentence encoded, in an engine for that many tokens; ms",
            "CPU": "ms of all threads on all cores together, waiting threads that spin included",
            "operators": "ONNX Runtime's profile of one slice in fp32 on one thread; that of OpenVINO by precision",
            "ceilings": "one thread: a product of 1024x1024 matrices in ONNX Runtime, a copy of 256 MiB in NumPy",
        },
    }


def _in_openvino(engine: Path) -> list[dict[str, Any]]:
    from lsms_rt.engine.openvino import HINTS

    from .operators_openvino import profile_openvino

    manifest = open_directory(engine).manifest
    hint = HINTS[manifest.rest or manifest.precision]
    return [row.to_dict() for row in profile_openvino(engine / IMAGE_GRAPH, hint)]


# Backends whose own profile is recorded beside ONNX Runtime's.
PROFILES = {"openvino": _in_openvino}


def _sentences(options: ScalingOptions, config: LsmsConfig, status: Status) -> dict[str, list[Any]]:
    """Measure sentences padded to one length, and engines that pad less: an engine computes all its tokens."""
    padded, by_engine, slices = [], [], []
    for tokens in options.tokens:
        status(f"sentence, an engine for {tokens} tokens")
        reading = replace(config, text=replace(options.text, max_tokens=tokens))
        with _engine(reading, options) as (backend, _, _):
            if tokens == max(options.tokens):
                padded = _points({n: _encode(backend, tokens, n) for n in options.tokens}, options.rounds)
            by_engine += _points({tokens: _encode(backend, tokens, tokens)}, options.rounds)
            slices += _points({tokens: _segment(backend, reading, 1)}, options.rounds)
    return {
        "sentence, tokens of it": padded,
        "sentence, tokens of the engine": by_engine,
        "slice, tokens of the engine": slices,
    }


@contextmanager
def _engine(config: LsmsConfig, options: ScalingOptions) -> Iterator[tuple[Backend, Path, Path]]:
    """Build an engine with random weights; yield it opened, the folder of ONNX Runtime's in fp32, and its own."""
    with tempfile.TemporaryDirectory(prefix="lsms-scaling-") as name:
        folder = Path(name)
        torch.manual_seed(SEED)
        model = LSMS(config).eval()
        checkpoint, fp32 = folder / "checkpoint", folder / "fp32.engine"
        model.save_pretrained(checkpoint, tokenizer=demo_checkpoint() / TOKENIZER)
        del model
        build_engine(BuildOptions(checkpoint=checkpoint, verify_slices=0), fp32)
        engine = fp32
        if (options.backend, options.precision) != (ScalingOptions.backend, ScalingOptions.precision):
            engine = folder / "measured.engine"
            build_engine(unjudged(options.backend, options.precision, checkpoint, fp32), engine)
        backend = open_backend(open_directory(engine), device="cpu")
        try:
            yield backend, fp32, engine
        finally:
            backend.close()


def _segment(backend: Backend, config: LsmsConfig, batch: int) -> Point:
    images, text = _images(config.image_size, batch), backend.encode_text(*_tokens(config.text.max_tokens, 12))
    return lambda: backend.segment(images, text), batch


def _series(backend: Backend, config: LsmsConfig, slices: int) -> Point:
    images, sentence = _images(config.image_size, slices), _tokens(config.text.max_tokens, 12)

    def run() -> None:
        text = backend.encode_text(*sentence)
        for _ in backend.segment_many((images[start : start + 8] for start in range(0, slices, 8)), text):
            pass

    return run, slices


def _encode(backend: Backend, tokens: int, used: int) -> Point:
    sentence = _tokens(tokens, used)
    return lambda: backend.encode_text(*sentence), 1


def _points(points: Mapping[Any, Point], count: int) -> list[dict[str, Any]]:
    """Measure every point in interleaved rounds; ms per item, and the CPU's."""
    costs = rounds({x: partial(cost, run) for x, (run, _) in points.items()}, count)
    measured = []
    for x, (_, items) in points.items():
        wall = Samples(tuple(1000 * one.seconds / items for one in costs[x]))
        cpu = Samples(tuple(1000 * one.cpu_seconds / items for one in costs[x]), "CPU ms")
        measured.append({"x": x} | wall.to_dict() | {"cpu": cpu.to_dict()})
    return measured


def _images(size: int, count: int) -> np.ndarray:
    return np.random.default_rng(SEED).uniform(-1, 1, (count, 1, size, size)).astype(np.float32)


def _tokens(tokens: int, used: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a sentence of up to ``used`` tokens, padded; every vocabulary has its ids."""
    mask = (np.arange(tokens) < used)[None].astype(np.float32)
    ids = np.random.default_rng(SEED).integers(5, 100, (1, tokens))
    return np.where(mask > 0, ids, 0), mask


def _text_name(text: TextConfig) -> str:
    return f"{text.layers} layers of width {text.hidden_size}"
