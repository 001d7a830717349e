"""The stopwatch of all benchmarks: warm-up, samples, interleaved rounds, on the wall clock and with GPU events.

Every measurement is a :class:`Samples`.  This module needs PyTorch for :class:`GpuStopwatch` only.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from .samples import Samples

Clock = Callable[[], float]
"""Returns seconds since some moment in the past."""
Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True)
class Effort:
    """How long to measure, as trtexec does it.

    Attributes:
        warm_up_s: Seconds of calls before the first sample; at least one call.
        measure_s: Seconds of samples.
        min_samples: Number of samples even if they take longer than ``measure_s``.
        max_samples: Number of samples even if they take less than ``measure_s``.
    """

    warm_up_s: float = 0.2
    measure_s: float = 3.0
    min_samples: int = 100
    max_samples: int = 100_000

    def to_dict(self) -> dict[str, float]:
        return {"warm_up_s": self.warm_up_s, "measure_s": self.measure_s, "least_samples": self.min_samples}


FULL, QUICK = Effort(), Effort(0.1, 0.3, 10, 1000)
# With windows of 1.5 ms these are about 200 samples.
ON_GPU = Effort(0.1, 0.3, 20)


def seconds(run: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    """Return the wall time of one call."""
    return timed(run, clock)[1]


def timed(run: Callable[[], Value], clock: Clock = time.perf_counter) -> tuple[Value, float]:
    """Return the result of one call, and its wall time in seconds."""
    begin = clock()
    value = run()
    return value, clock() - begin


class Cost(NamedTuple):
    """What one call takes: seconds on the wall clock, and of all threads of this process on all cores together."""

    seconds: float
    cpu_seconds: float


def cost(run: Callable[[], object]) -> Cost:
    """Return the wall time and the CPU time of one call; waiting threads that spin count as work, since they use power.

    What other processes and other threads of this one do meanwhile is not told apart, so call one function at a time.
    """
    begin = time.process_time()
    wall = seconds(run)
    return Cost(wall, time.process_time() - begin)


def measure(run: Callable[[], object], effort: Effort, clock: Clock = time.perf_counter) -> Samples:
    """Return the wall time in ms of every call of ``run`` after the warm-up."""
    return Samples(tuple(collect(lambda: 1000 * seconds(run, clock), effort, clock)))


def collect(run: Callable[[], Value], effort: Effort, clock: Clock = time.perf_counter) -> list[Value]:
    """Return the results of every call of ``run`` after the warm-up."""
    begin = clock()
    run()
    while clock() - begin < effort.warm_up_s:
        run()
    values: list[Value] = []
    begin = clock()
    while len(values) < effort.max_samples and (len(values) < effort.min_samples or clock() - begin < effort.measure_s):
        values.append(run())
    return values


def rounds(
    runs: Mapping[Key, Callable[[], Value]], count: int, *, warm_up: int = 1, order: random.Random | None = None
) -> dict[Key, list[Value]]:
    """Call every function once per round, so that a machine that slows down slows all of them down.

    Args:
        runs: Name -> function that returns one sample.
        count: Number of rounds whose samples are returned.
        warm_up: Number of rounds before them.
        order: Shuffles each round; None calls the functions in the order of ``runs``.

    Returns:
        Name -> ``count`` samples.
    """
    names = list(runs)
    values: dict[Key, list[Value]] = {name: [] for name in names}
    for number in range(warm_up + count):
        for name in order.sample(names, len(names)) if order else names:
            value = runs[name]()
            if number >= warm_up:
                values[name].append(value)
    return values


class Stopwatch(Protocol):
    """Measures a function on a device in ms; ``graph`` replays it from a CUDA graph where there is one."""

    def __call__(self, run: Callable[[], object], *, graph: bool = True) -> Samples: ...


class GpuStopwatch:
    """CUDA events around each call, or around each replay of a CUDA graph.

    Short work is repeated inside the graph until one sample takes about ``window_ms``, so that neither the resolution
    of an event nor the launch of a graph counts.  The inputs are then in the L2 cache, as they are in a model, where
    the previous kernel has just written them.
    """

    def __init__(self, effort: Effort = ON_GPU, window_ms: float = 1.5) -> None:
        self.effort, self.window_ms = effort, window_ms

    def __call__(self, run: Callable[[], object], *, graph: bool = True) -> Samples:
        import torch

        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        repeats = 1
        if graph:
            # Sixteen in one graph, because launching a short kernel from Python takes longer than running it.
            replay = _capture(torch, run, 16)
            _event_ms(torch, replay)
            repeats = max(1, min(1000, round(self.window_ms / (_event_ms(torch, replay) / 16))))
            run = _capture(torch, run, repeats)
        return Samples(tuple(collect(lambda: _event_ms(torch, run) / repeats, self.effort)))


def _capture(torch: Any, run: Callable[[], object], repeats: int) -> Callable[[], object]:
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        for _ in range(repeats):
            run()
    replay: Callable[[], object] = captured.replay
    return replay


def _event_ms(torch: Any, run: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))
