"""Cost against image size, batch, sentence length and slices; points of one engine in interleaved rounds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsms_rt.bench.options import ScalingOptions
from lsms_rt.bench.samples import Samples
from lsms_rt.data import demo_checkpoint
from lsms_rt.engine import Backend, open_backend, open_directory
from lsms_rt.engine.onnxruntime import IMAGE_GRAPH, cpu_count
from lsms_rt.export.build import build_engine
from lsms_rt.export.options import BuildOptions
from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.model.config import LsmsConfig
from lsms_rt.model.lsms import TOKENIZER

from .ceilings import measure_ceilings
from .operators import profile

Say = Callable[[str], None]
SEED = 0
SMALL_TEXT = TextConfig(hidden_size=128, layers=1, heads=2, intermediate_size=512)  # where a sentence is not the matter


def measure_scaling(options: ScalingOptions, say: Say) -> dict[str, Any]:
    """A record in plain types: "axes" of points, "operators" of one slice, "ceilings" of one thread."""
    config = preset(options.preset, image_size=options.image_size, text=SMALL_TEXT)
    axes: dict[str, Any] = {"image size": []}
    flops = []
    for size in options.sizes:  # one engine at a time: threads of another one would disturb it
        say(f"image size {size}")
        with _engine(replace(config, image_size=size)) as (backend, folder):
            axes["image size"] += _points({size: _segment(backend, size, 1)}, options.rounds)
            flops.append({"x": size, "flops": sum(row.flops for row in profile(folder / IMAGE_GRAPH, runs=1))})
    with _engine(config) as (backend, folder):
        say("batch")
        axes["batch"] = _points({n: _segment(backend, options.image_size, n) for n in options.batches}, options.rounds)
        say("slices")
        axes["slices"] = _points({n: _series(backend, options.image_size, n) for n in options.slices}, options.rounds)
        graph = (folder / IMAGE_GRAPH).read_bytes()
    say("operators")
    operators = [row.to_dict() for row in profile(graph)]
    say("ceilings")
    ceilings = measure_ceilings().to_dict()
    axes["sentence, tokens of it"], axes["sentence, tokens of the engine"] = _sentences(options, config, say)
    return {
        "weights": f"random ({options.preset})",
        "image_size": options.image_size,
        "text": {"sentences": _text_name(options.text), "else": _text_name(SMALL_TEXT)},
        "rounds": options.rounds,
        "cores": cpu_count(),
        "axes": axes,
        "flops": flops,
        "operators": operators,
        "ceilings": ceilings,
        "method": {
            "image size": "one slice through the image graph, its sentence encoded before, all cores; ms",
            "batch": "slices in one call; a CPU computes 1 on all cores, more on one core each; ms a slice",
            "slices": "a new sentence, then a series of that many; ms a slice",
            "sentence, tokens of it": "encoding a sentence of that many tokens, in an engine for the most of them; ms",
            "sentence, tokens of the engine": "encoding a sentence, in an engine made for that many tokens; ms",
            "operators": "ONNX Runtime's profile of one slice on one thread",
            "ceilings": "one thread: a product of 1024x1024 matrices in ONNX Runtime, a copy of 256 MiB in NumPy",
        },
    }


def _sentences(options: ScalingOptions, config: LsmsConfig, say: Say) -> tuple[list[Any], list[Any]]:
    """The same sentences padded to one length, and engines that pad less: an engine computes all its tokens."""
    padded, made = [], []
    for tokens in options.tokens:
        say(f"sentence, an engine for {tokens} tokens")
        with _engine(replace(config, text=replace(options.text, max_tokens=tokens))) as (backend, _):
            if tokens == max(options.tokens):
                padded = _points({n: _encode(backend, tokens, n) for n in options.tokens}, options.rounds)
            made += _points({tokens: _encode(backend, tokens, tokens)}, options.rounds)
    return padded, made


@contextmanager
def _engine(config: LsmsConfig) -> Iterator[tuple[Backend, Path]]:
    """An engine of random weights, opened, and its folder."""
    with tempfile.TemporaryDirectory(prefix="lsms-scaling-") as place:
        folder = Path(place)
        torch.manual_seed(SEED)
        model = LSMS(config).eval()
        model.save_pretrained(folder / "checkpoint", tokenizer=demo_checkpoint() / TOKENIZER)
        del model
        options = BuildOptions(checkpoint=folder / "checkpoint", verify_slices=0)
        build_engine(options, folder / "a.engine")
        backend = open_backend(open_directory(folder / "a.engine"), device="cpu")
        try:
            yield backend, folder / "a.engine"
        finally:
            backend.close()


def _segment(backend: Backend, size: int, batch: int) -> Callable[[], float]:
    """Milliseconds a slice."""
    images, text = _images(size, batch), backend.encode_text(*_tokens(SMALL_TEXT.max_tokens, 12))
    return _timed(lambda: backend.segment(images, text), batch)


def _series(backend: Backend, size: int, slices: int) -> Callable[[], float]:
    images, sentence = _images(size, slices), _tokens(SMALL_TEXT.max_tokens, 12)

    def run() -> None:
        text = backend.encode_text(*sentence)
        for _ in backend.segment_many((images[start : start + 8] for start in range(0, slices, 8)), text):
            pass

    return _timed(run, slices)


def _encode(backend: Backend, tokens: int, used: int) -> Callable[[], float]:
    sentence = _tokens(tokens, used)
    return _timed(lambda: backend.encode_text(*sentence), 1)


def _timed(run: Callable[[], object], items: int) -> Callable[[], float]:
    def once() -> float:
        begin = time.perf_counter()
        run()
        return 1000 * (time.perf_counter() - begin) / items

    return once


def _points(runs: Mapping[Any, Callable[[], float]], rounds: int) -> list[dict[str, Any]]:
    """Every run once a round, in turn; the first round warms up."""
    values: dict[Any, list[float]] = {x: [] for x in runs}
    for number in range(rounds + 1):
        for x, run in runs.items():
            value = run()
            if number:
                values[x].append(value)
    return [{"x": x} | Samples(tuple(found)).to_dict() for x, found in values.items()]


def _images(size: int, count: int) -> np.ndarray:
    return np.random.default_rng(SEED).uniform(-1, 1, (count, 1, size, size)).astype(np.float32)


def _tokens(tokens: int, used: int) -> tuple[np.ndarray, np.ndarray]:
    """A sentence of ``used`` tokens, padded; ids that every vocabulary has."""
    mask = (np.arange(tokens) < used)[None].astype(np.float32)
    ids = np.random.default_rng(SEED).integers(5, 100, (1, tokens))
    return np.where(mask > 0, ids, 0), mask


def _text_name(text: TextConfig) -> str:
    return f"{text.layers} layers of width {text.hidden_size}"
