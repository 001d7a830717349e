"""``--backend auto``: what this machine runs fastest among what is installed, found by running it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lsms_rt.calibration.recipe import read_recipe
from lsms_rt.data import demo_checkpoint
from lsms_rt.engine import EngineDirectory, open_backend
from lsms_rt.engine.registry import BACKENDS, ONNXRUNTIME
from lsms_rt.errors import MachineError, MissingDependencyError
from lsms_rt.machine import jetson
from lsms_rt.machine.gpu import query_driver

from .checkpoint import load_model
from .graphs import make_graphs
from .options import BuildOptions
from .references import any_tokens

# Slices of the series that is timed, and how often; the median counts.
SLICES, ROUNDS = 8, 5


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What an engine is built for.

    Attributes:
        backend: the fastest one.
        precision: of the engine.
        rest: precision of an INT8 engine's other layers; None for other engines.
        why: what was measured, in one line.
    """

    backend: str
    precision: str
    rest: str | None = None
    why: str = ""

    def __str__(self) -> str:
        return f"{self.backend} in {self.precision}{f' and {self.rest}' if self.rest else ''}"


def choose(options: BuildOptions, precision: str | None) -> Choice:
    """Choose what to build from a checkpoint.

    Args:
        options: of the build; the backend is what is sought.
        precision: the one that was asked for; None for the fastest of those that need no calibration.

    Raises:
        MachineError: nothing that is installed runs engines in that precision.
        InputError, EngineError: as ``build_engine``.
    """
    on_gpu = _on_gpu(precision)
    if on_gpu is not None:
        return on_gpu
    checkpoint = options.checkpoint or demo_checkpoint()
    recipe = None if options.calibration is None else read_recipe(options.calibration)
    rest = None if recipe is None else "fp32"
    plain = replace(options, backend=ONNXRUNTIME.name, precision="int8" if recipe else "fp32", rest=rest)
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(checkpoint, options.image_size, "stock")
        graphs = make_graphs(model, checkpoint, plain, recipe, Path(folder) / "graphs").open()
        return fastest(graphs, _candidates(precision or ("int8" if recipe else None), options.rest))


def choose_for(engine: EngineDirectory, precision: str | None, rest: str | None) -> Choice:
    """Choose what to make of an engine of float32 graphs; see :func:`choose`."""
    own = "int8" if engine.manifest.precision == "int8" else None
    return fastest(engine, _candidates(precision or own, rest))


def fastest(graphs: EngineDirectory, candidates: Iterable[Choice]) -> Choice:
    """Run a short series with every candidate in turn; return the fastest, with what was measured.

    Args:
        graphs: an engine of float32 graphs, INT8 layers or not.
        candidates: those to run; one that this machine lacks something for is left out.

    Raises:
        MachineError: none of them runs here.
    """
    opened, absent, reasons = {}, [], []
    for choice in candidates:
        try:
            opened[choice] = open_backend(_as_engine(graphs, choice), device="cpu")
        except MissingDependencyError:
            absent.append(choice.backend)
        except MachineError as error:
            reasons.append(str(error))
    install = "".join(f"; not installed: {BACKENDS[name].install}" for name in dict.fromkeys(absent))
    if not opened:
        raise MachineError(f"--backend auto: {'; '.join(reasons) or 'nothing'} runs here{install}")
    size, tokens = graphs.manifest.image_size, any_tokens(graphs.manifest.max_tokens)
    images = np.random.default_rng(0).uniform(-1, 1, (SLICES, 1, size, size)).astype(np.float32)
    seconds: dict[Choice, list[float]] = {choice: [] for choice in opened}
    try:
        texts = {choice: backend.encode_text(tokens.ids, tokens.mask) for choice, backend in opened.items()}
        # The first round is a warm-up.
        for _ in range(ROUNDS + 1):
            for choice, backend in opened.items():
                begin = time.perf_counter()
                backend.segment(images, texts[choice])
                seconds[choice].append(time.perf_counter() - begin)
    finally:
        for backend in opened.values():
            backend.close()
    ms = {choice: 1000 * statistics.median(times[1:]) / SLICES for choice, times in seconds.items()}
    best, *others = sorted(ms, key=lambda choice: ms[choice])
    rest = f" ({', '.join(f'{choice} {ms[choice]:.1f}' for choice in others)})" if others else ", the only one here"
    return replace(best, why=f"{best}: {ms[best]:.1f} ms a slice of a series on this CPU{rest}{install}")


def _candidates(precision: str | None, rest: str | None) -> list[Choice]:
    """Return what may be faster than the rest on a CPU; float16 is not, CPUs compute it in float32."""
    wanted, found = (precision,) if precision else ("fp32", "bf16"), []
    for spec in BACKENDS.values():
        for name in wanted if not spec.needs_gpu else ():
            if name in spec.precisions and name != "int8":
                found.append(Choice(backend=spec.name, precision=name))
            elif name in spec.precisions:
                rests = [each for each in spec.rests if each != "fp16" and rest in (None, each)]
                found += [Choice(backend=spec.name, precision=name, rest=each) for each in rests]
    return found


def _on_gpu(precision: str | None) -> Choice | None:
    """Return the first backend that builds and runs on this machine's GPU; plans are not timed, they take minutes."""
    driver = query_driver()
    if driver.problem:
        return None
    for spec in BACKENDS.values():
        state = spec.load().diagnose(spec.name, driver, jetson.find()) if spec.needs_gpu else {}
        wanted = precision or "fp16"
        if state.get("builds") and state.get("runs") and wanted in spec.precisions:
            rest = spec.rests[0] if wanted == "int8" else None
            why = f"{spec.name} in {wanted}: this machine has {driver.gpus[0].name}; no other backend was timed"
            return Choice(backend=spec.name, precision=wanted, rest=rest, why=why)
    return None


def _as_engine(graphs: EngineDirectory, choice: Choice) -> EngineDirectory:
    """Return the engine that a choice would be: the same graphs under another manifest."""
    calibration = graphs.manifest.calibration
    manifest = replace(
        graphs.manifest,
        backend=choice.backend,
        precision=choice.precision,
        calibration=calibration and calibration | {"rest": choice.rest},
    )
    return replace(graphs, manifest=manifest)
