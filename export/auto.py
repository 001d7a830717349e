"""``--backend auto``: what this machine runs fastest among what is installed, found by running it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from lsms_rt.calibration.recipe import read_recipe
from lsms_rt.data import demo_checkpoint
from lsms_rt.engine import Backend, EngineDirectory, open_backend
from lsms_rt.engine.advice import advise
from lsms_rt.engine.manifest import Manifest
from lsms_rt.engine.registry import BACKENDS
from lsms_rt.errors import EngineError, InputError, MachineError, MissingDependencyError
from lsms_rt.machine import jetson
from lsms_rt.machine.cpu import cpu_count, find
from lsms_rt.machine.gpu import query_driver

from .directory import relabeled
from .options import BuildOptions, check_precision
from .references import any_tokens

Name = TypeVar("Name")
# Slices of the series that is timed, at least, and how often; the median counts.
SLICES, ROUNDS = 8, 5
# A lower precision must need at most this part of float32's time, and plugins that of stock operations.
WORTH = 0.9


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


def choose(
    checkpoint: Path | None, image_size: int | None, precision: str | None, calibration: Path | None, rest: str | None
) -> Choice:
    """Choose what to build from a checkpoint.

    Args:
        checkpoint: its folder; None for the bundled demo weights.
        image_size: side of the square input in pixels; None for the checkpoint's own.
        precision: the one that was asked for; None for the fastest of those that need no calibration.
        calibration: folder of the recipe, for INT8.
        rest: precision of an INT8 engine's other layers that was asked for; None for the fastest.

    Raises:
        MachineError: nothing that is installed runs engines in that precision.
        InputError, EngineError: as ``build_engine``.
    """
    on_gpu = _on_gpu(precision, rest)
    if on_gpu is not None:
        return on_gpu
    candidates = _candidates(precision, rest)
    # PyTorch is for checkpoints only.
    from .checkpoint import load_model, weights_digest
    from .graphs import make_graphs

    options, checkpoint = BuildOptions(image_size=image_size), checkpoint or demo_checkpoint()
    if precision == "int8":
        options = replace(options, precision="int8", calibration=calibration, rest="fp32")
    recipe = read_recipe(calibration) if calibration else None
    model = load_model(checkpoint, image_size, "stock")
    if recipe is not None:
        recipe.check(weights_digest(checkpoint), model.config.image_size)
    with tempfile.TemporaryDirectory() as folder:
        return fastest(make_graphs(model, checkpoint, options, recipe, Path(folder) / "graphs").open(), candidates)


def choose_for(engine: EngineDirectory, precision: str | None, rest: str | None) -> Choice:
    """Choose what to make of an engine of float32 graphs; see :func:`choose`."""
    own = "int8" if engine.manifest.precision == "int8" else None
    return fastest(engine, _candidates(precision or own, rest))


def fastest(graphs: EngineDirectory, candidates: Iterable[Choice]) -> Choice:
    """Run a short series with every candidate in turn; return the fastest, with what was measured.

    float32 is taken unless another precision needs less than ``WORTH`` of its time.

    Args:
        graphs: an engine of float32 graphs, INT8 layers or not.
        candidates: those to run; one that does not run here is left out.

    Raises:
        MachineError: none of them runs here.
    """
    with ExitStack() as stack:
        opened, missing = dict[Choice, Backend](), list[str]()
        for choice in candidates:
            engine = relabeled(graphs, choice.backend, choice.precision, choice.rest)
            try:
                opened[choice] = open_backend(engine, device="cpu")
                stack.callback(opened[choice].close)
            except MissingDependencyError:
                missing.append(f"not installed: {BACKENDS[choice.backend].install}")
            except (MachineError, EngineError) as error:
                missing.append(f"{choice}: {error}")
        left_out = "".join(f"; {text}" for text in dict.fromkeys(missing))
        if not opened:
            raise MachineError(f"--backend auto: nothing that is installed runs here{left_out}")
        # Two for every core.
        ms = timed(opened, graphs.manifest, max(SLICES, 2 * cpu_count()))
    exact = min((choice for choice in ms if choice.precision == "fp32"), key=ms.__getitem__, default=None)
    best = min(ms, key=ms.__getitem__)
    if exact is not None and ms[best] > WORTH * ms[exact]:
        best = exact
    others = ", ".join(f"{choice} {ms[choice]:.1f}" for choice in sorted(ms, key=ms.__getitem__) if choice != best)
    beside = f" ({others})" if others else ", the only one here"
    return replace(best, why=f"{best}: {ms[best]:.1f} ms a slice of a series on this CPU{beside}{left_out}")


def timed(opened: Mapping[Name, Backend], manifest: Manifest, slices: int, rounds: int = ROUNDS) -> dict[Name, float]:
    """Return the median ms per slice of every engine, run in turns.

    Args:
        opened: the engines, by any names.
        manifest: of one of them; they have the same sizes.
        slices: number of slices that are run at a time.
        rounds: how often each is timed.
    """
    size, tokens = manifest.image_size, any_tokens(manifest.max_tokens)
    shape = (slices, manifest.channels, size, size)
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    texts = {name: backend.encode_text(tokens.ids, tokens.mask) for name, backend in opened.items()}
    seconds: dict[Name, list[float]] = {name: [] for name in opened}
    # The first round is a warm-up.
    for _ in range(rounds + 1):
        for name, backend in opened.items():
            begin = time.perf_counter()
            backend.segment(images, texts[name])
            seconds[name].append(time.perf_counter() - begin)
    return {name: 1000 * statistics.median(times[1:]) / slices for name, times in seconds.items()}


def _candidates(precision: str | None, rest: str | None) -> list[Choice]:
    """Return what may be fastest on a CPU; float16 is not, CPUs compute it in float32.

    Raises:
        InputError: no backend for CPUs has the precisions that were asked for.
    """
    found = []
    for spec in BACKENDS.values():
        names = [name for name in ((precision,) if precision else ("fp32", "bf16")) if name in spec.precisions]
        rests = [each for each in spec.rests if each != "fp16" and rest in (None, each)]
        for name in () if spec.needs_gpu or precision == "fp16" else names:
            pairs = rests if name == "int8" else [None]
            found += [Choice(backend=spec.name, precision=name, rest=each) for each in pairs]
    if not found:
        asked = f"--precision {precision}" + (f" --rest {rest}" if rest else "")
        raise InputError(f"--backend auto: no CPU gains from {asked}; name a --backend")
    return found


def _on_gpu(precision: str | None, rest: str | None) -> Choice | None:
    """Return the best backend of this machine's GPU, which is not timed: plans take minutes to build."""
    driver = query_driver()
    if driver.problem:
        return None
    board = jetson.find()
    reports = {spec.name: spec.load().diagnose(spec.name, driver, board) for spec in BACKENDS.values()}
    best = advise(find(), driver, reports).now
    if best is None or not (BACKENDS[best.backend].needs_gpu or "cuda" in reports[best.backend].get("devices", ())):
        return None
    spec, wanted = BACKENDS[best.backend], precision or best.precision
    check_precision(spec, wanted, rest)
    chosen = (rest or spec.rests[0]) if wanted == "int8" else None
    why = f"{spec.name} in {wanted}: {best.reason}; no other backend was timed"
    return Choice(backend=spec.name, precision=wanted, rest=chosen, why=why)
