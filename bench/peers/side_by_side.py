"""Measure several runtimes on the same weights in interleaved rounds: ``lsms-rt bench peers``."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.bench.options import PeersOptions
from lsms_rt.bench.samples import Samples, nested_ratio
from lsms_rt.bench.timing import Cost, rounds
from lsms_rt.errors import MachineError

from .contenders import CONTENDERS, OURS, Contender
from .ways import SERIES, SINGLE
from .worker import INPUTS, LOGITS

# The contender that logits are compared with.
REFERENCE = "eager, text once"
# Row -> goal for its time per slice, as a multiple of our best engine's in the same form; for preset tiny at 512x512 on
# a CPU that multiplies bf16.
GOALS = {"eager": 5.0, "naive graph": 2.5, "OpenVINO, as a user would try it": 1.5, f"{OURS}, {SINGLE}": 1.5}
ALL = tuple(contender.name for contender in CONTENDERS)
Status = Callable[[str], None]
log = logging.getLogger("lsms_rt")


def random_inputs(options: PeersOptions, folder: Path, image_size: int, max_tokens: int, vocabulary: int) -> None:
    """Write noise for slices, and a sentence of 12 tokens with padding."""
    rng = np.random.default_rng(options.seed)
    images = rng.uniform(-1, 1, (options.slices, 1, image_size, image_size)).astype(np.float32)
    mask = np.zeros((1, max_tokens), np.float32)
    mask[0, :12] = 1
    tokens = np.where(mask > 0, rng.integers(5, vocabulary, mask.shape), 0).astype(np.int64)
    np.savez(folder / INPUTS, images=images, tokens=tokens, mask=mask)


def run(folder: Path, options: PeersOptions, status: Status) -> dict[str, Any]:
    """Measure all contenders.

    Args:
        folder: The folder that ``prepare`` and :func:`random_inputs` filled.
        options: How to measure.
        status: Called with the name of each step.

    Returns:
        The fields of a record in plain types.

    Raises:
        MachineError: A contender that is installed fails; omitted silently, it would look absent.
    """
    chosen = [contender for contender in CONTENDERS if contender.name in {*(options.names or ALL), OURS}]
    absent = {contender.name: reason for contender in chosen if (reason := contender.absent)}
    present = [contender for contender in chosen if contender.name not in absent]
    launches: list[Launch] = []
    order = random.Random(options.seed)
    for number in range(options.launches):
        status(f"launch {number + 1} of {options.launches}")
        launches.append(_launch(folder, options, present, order, status))
    measured = [Row(contender, form) for contender in present for form in contender.forms]
    series = {row.name: [launch.costs[row.name] for launch in launches] for row in measured}
    best = {form: _best(measured, form, series) for form in (SERIES, SINGLE)}
    against = REFERENCE if any(contender.name == REFERENCE for contender in present) else OURS
    reference = _logits(folder, against)
    rows = []
    for row in measured:
        name, ready = row.name, [launch.ready[row.contender.name] for launch in launches]
        seconds = _seconds(series[name])
        figures: dict[str, Any] = {"name": name, "what": row.what, "ours": row.contender.ours}
        figures["ms_a_slice"] = _per_slice(seconds, options.slices).to_dict()
        cpu = [[cost.cpu_seconds for cost in launch] for launch in series[name]]
        figures["cpu_ms_a_slice"] = _per_slice(cpu, options.slices, "CPU ms").to_dict()
        figures["times_ours"] = nested_ratio(seconds, _seconds(series[OURS]), options.seed).to_dict()
        figures["times_best"] = nested_ratio(seconds, _seconds(series[best[row.form]]), options.seed).to_dict()
        if name in GOALS:
            figures["goal_best"] = GOALS[name]
        figures |= _accuracy(_logits(folder, name), reference)
        figures |= {key: float(np.median([one[key] for one in ready])) for key in ("open_s", "first_slice_s")}
        peaks = [one["peak_rss_mb"] for one in ready if one["peak_rss_mb"] is not None]
        rows.append(figures | {"peak_rss_mb": max(peaks, default=None)})
    return {
        "slices": options.slices,
        "launches": options.launches,
        "rounds": options.rounds,
        "threads": options.threads or "the library's choice",
        "answers_compared_with": against,
        "best": best,
        "rows": rows,
        "absent": absent,
    }


@dataclass(frozen=True)
class Row:
    """One row of the table: a contender in one of its forms."""

    contender: Contender
    form: str

    @property
    def name(self) -> str:
        return self.contender.row(self.form)

    @property
    def what(self) -> str:
        return self.contender.what if self.form == SERIES else "the same engine in the same process"


Costs = list[list[Cost]]
"""Of each launch, of each round, one series"""


def _best(rows: list[Row], form: str, series: dict[str, Costs]) -> str:
    """Return the row of our fastest engine on the CPU in a form."""
    ours = [row.name for row in rows if row.contender.ours and not row.contender.gpu and row.form == form]
    return min(ours, key=lambda name: float(np.median([np.median(launch) for launch in _seconds(series[name])])))


def _seconds(costs: Costs) -> list[list[float]]:
    return [[cost.seconds for cost in launch] for launch in costs]


def _per_slice(seconds: list[list[float]], slices: int, unit: str = "ms") -> Samples:
    return Samples(tuple(1000 * value / slices for launch in seconds for value in launch), unit)


@dataclass(frozen=True)
class Launch:
    """One start of all processes: each contender's first answer, and each row's costs of a series, round by round."""

    ready: dict[str, dict[str, Any]]
    costs: dict[str, list[Cost]]


def _launch(
    folder: Path, options: PeersOptions, present: list[Contender], order: random.Random, status: Status
) -> Launch:
    """Start all processes, run the rounds, each in a new random order, and stop them."""
    workers: dict[str, Worker] = {}
    try:
        for contender in present:
            status(f"starting {contender.name}")
            workers[contender.name] = Worker(folder, contender, options.threads or 0)
        runs = {
            contender.row(form): partial(workers[contender.name].series, form)
            for contender in present
            for form in contender.forms
        }
        costs: dict[str, list[Cost]] = {name: [] for name in runs}
        for number in range(options.rounds):
            status(f"round {number + 1} of {options.rounds}")
            for name, values in rounds(runs, 1, warm_up=0, order=order).items():
                costs[name] += values
    finally:
        for worker in workers.values():
            worker.stop()
    return Launch({name: worker.ready for name, worker in workers.items()}, costs)


class Worker:
    """The process of a contender, which sleeps until it has to run a series."""

    def __init__(self, folder: Path, contender: Contender, threads: int) -> None:
        self._name = contender.name
        self._log = (folder / f"{contender.name}.log").open("w+")
        command = [sys.executable, "-m", "lsms_rt.bench.peers.worker", str(folder), contender.name, str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self.ready = self._answer()

    def series(self, form: str) -> Cost:
        """Run one series in a form; return what it takes."""
        assert self._process.stdin is not None
        try:
            print(form, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            # The process has died; reading its answer raises the reason.
            log.debug("%s has closed its input", self._name)
        return Cost(**self._answer())

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            last = [text for text in self._log.read().splitlines() if text.strip()][-1:]
            self.stop()
            raise MachineError(
                f"{self._name} failed (exit code {self._process.returncode}): {' '.join(last)[:300]}; "
                "omit it with --without"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def _logits(folder: Path, name: str) -> np.ndarray:
    logits: np.ndarray = np.load(folder / LOGITS.format(name))
    return logits


def _accuracy(logits: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    return {
        "largest_logit_difference": float(f"{np.abs(logits - reference).max():.2g}"),
        "mask_agreement": round(float(((logits > 0) == (reference > 0)).mean()), 7),
    }
