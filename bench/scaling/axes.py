"""Cost against image size, batch, sentence length and slices; every axis in interleaved rounds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lsms_rt.bench.samples import Samples
from lsms_rt.data import demo_checkpoint
from lsms_rt.engine import Backend, open_backend, open_directory
from lsms_rt.engine.onnxruntime import IMAGE_GRAPH, cpu_count
from lsms_rt.export.build import BuildOptions, build_engine
from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.model.config import LsmsConfig
from lsms_rt.model.lsms import TOKENIZER

from .ceilings import measure_ceilings
from .operators import profile

Say = Callable[[str], None]
SEED = 0
SMALL_TEXT = TextConfig(hidden_size=128, layers=1, heads=2, intermediate_size=512)  # where a sentence is not the matter
TEXT = TextConfig()  # BERT-base


@dataclass(frozen=True)
class Plan:
    """Which points: ``sizes`` of images in pixels, slices in a call (``batches``), ``tokens`` that engines are made for
    and that sentences have, ``slices`` of a series.  All but ``sizes`` are measured at ``image_size``."""

    preset: str = "tiny"
    image_size: int = 512
    sizes: tuple[int, ...] = (128, 256, 384, 512, 640)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    tokens: tuple[int, ...] = (8, 16, 32, 64)
    slices: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    rounds: int = 9
    text: TextConfig = TEXT


def measure_scaling(plan: Plan, say: Say) -> dict[str, Any]:
    """A record in plain types: "axes" of points, "operators" of one slice, "ceilings" of one thread."""
    config = preset(plan.preset, image_size=plan.image_size, text=SMALL_TEXT)
    axes: dict[str, Any] = {}
    with ExitStack() as stack:
        engines = {}
        for size in sorted({*plan.sizes, plan.image_size}):
            say(f"an engine for {size}x{size}")
            engines[size] = stack.enter_context(_engine(replace(config, image_size=size)))
        say("image size")
        runs = {size: _segment(backend, size, 1) for size, (backend, _) in engines.items() if size in plan.sizes}
        axes["image size"] = _points(runs, plan.rounds)
        backend, folder = engines[plan.image_size]
        say("batch")
        axes["batch"] = _points({n: _segment(backend, plan.image_size, n) for n in plan.batches}, plan.rounds)
        say("slices")
        axes["slices"] = _points({n: _series(backend, plan.image_size, n) for n in plan.slices}, plan.rounds)
        say("operators")
        operators = [row.to_dict() for row in profile(folder / IMAGE_GRAPH)]
        totals = {size: _flops(place) for size, (_, place) in engines.items() if size in plan.sizes}
        say("ceilings")
        ceilings = measure_ceilings().to_dict()
    axes["sentence, tokens of it"], axes["sentence, tokens of the engine"] = _sentences(plan, config, say)
    return {
        "weights": f"random ({plan.preset})",
        "image_size": plan.image_size,
        "text": {"sentences": _text_name(plan.text), "else": _text_name(SMALL_TEXT)},
        "rounds": plan.rounds,
        "cores": cpu_count(),
        "axes": axes,
        "flops": [{"x": size, "flops": value} for size, value in totals.items()],
        "operators": operators,
        "ceilings": ceilings,
        "method": {
            "image size": "one slice through the image graph, its sentence encoded before, all cores; ms",
            "batch": "that many slices in one call of the engine; ms a slice",
            "slices": "a new sentence, then a series of that many; ms a slice",
            "sentence, tokens of it": "encoding a sentence of that many tokens, in an engine for the most of them; ms",
            "sentence, tokens of the engine": "encoding a sentence, in an engine made for that many tokens; ms",
            "operators": "ONNX Runtime's profile of one slice on one thread",
            "ceilings": "one thread: a product of 1024x1024 matrices in ONNX Runtime, a copy of 256 MiB in NumPy",
        },
    }


def _sentences(plan: Plan, config: LsmsConfig, say: Say) -> tuple[list[Any], list[Any]]:
    """The same sentences padded to one length, and engines that pad less: an engine computes all its tokens."""
    with ExitStack() as stack:
        backends = {}
        for tokens in plan.tokens:
            say(f"an engine for {tokens} tokens")
            text = replace(plan.text, max_tokens=tokens)
            backends[tokens], _ = stack.enter_context(_engine(replace(config, text=text)))
        say("sentence length")
        most = max(plan.tokens)
        runs = {("of it", n): _encode(backends[most], most, n) for n in plan.tokens}
        runs |= {("of the engine", n): _encode(backend, n, n) for n, backend in backends.items()}
        points = _points(runs, plan.rounds)
    split = len(plan.tokens)
    return ([p | {"x": p["x"][1]} for p in points[:split]], [p | {"x": p["x"][1]} for p in points[split:]])


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


def _flops(engine: Path) -> float:
    return sum(row.flops for row in profile(engine / IMAGE_GRAPH, runs=1))


def _text_name(text: TextConfig) -> str:
    return f"{text.layers} layers of width {text.hidden_size}"
