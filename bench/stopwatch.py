"""How often and how long something is measured: trtexec's manners."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from .samples import Samples

Clock = Callable[[], float]  # seconds
Found = TypeVar("Found")


@dataclass(frozen=True)
class Effort:
    """Warm-up of ``warm_up_s`` seconds, then samples for ``measure_s``, at least ``least`` and at most ``most``."""

    warm_up_s: float = 0.2
    measure_s: float = 3.0
    least: int = 100
    most: int = 100_000

    def to_dict(self) -> dict[str, float]:
        return {"warm_up_s": self.warm_up_s, "measure_s": self.measure_s, "least_samples": self.least}


FULL, QUICK = Effort(), Effort(0.1, 0.3, 10, 1000)


def measure(run: Callable[[], object], effort: Effort, clock: Clock = time.perf_counter) -> Samples:
    """Milliseconds of every call of ``run`` after the warm-up, which calls it once at least."""

    def timed() -> float:
        start = clock()
        run()
        return (clock() - start) * 1000

    return Samples(tuple(collect(timed, effort, clock)))


def collect(run: Callable[[], Found], effort: Effort, clock: Clock = time.perf_counter) -> list[Found]:
    """What every call of ``run`` says after the warm-up."""
    begin = clock()
    run()
    while clock() - begin < effort.warm_up_s:
        run()
    values: list[Found] = []
    begin = clock()
    while len(values) < effort.most and (len(values) < effort.least or clock() - begin < effort.measure_s):
        values.append(run())
    return values
