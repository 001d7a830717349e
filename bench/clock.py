"""Time on a device: events around replays of a CUDA graph on a GPU, the wall clock on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Times:
    """Milliseconds of one run: median, 10th and 90th percentile of ``runs`` samples."""

    p50: float
    p10: float
    p90: float
    runs: int

    def to_dict(self) -> dict[str, float]:
        return {
            "p50_ms": round(self.p50, 5),
            "p10_ms": round(self.p10, 5),
            "p90_ms": round(self.p90, 5),
            "runs": self.runs,
        }


def times_of(samples: list[float]) -> Times:
    quantiles = torch.tensor(samples, dtype=torch.float64).quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    low, middle, high = (float(q) for q in quantiles)
    return Times(middle, low, high, len(samples))


class Clock(Protocol):
    """Measures how long a function takes on a device; ``graph`` replays it from a CUDA graph, where there is one."""

    def __call__(self, run: Callable[[], object], *, graph: bool = True) -> Times: ...


class GpuClock:
    """Warm-up of at least ``warm_up_ms``, then samples for ``sample_ms``, at least ``least`` of them.

    Short work is repeated inside the graph until a sample lasts about ``window_ms``, so that neither an event's
    resolution nor the launch of a graph counts; its inputs are then in the L2 cache, as they are in a model, where the
    kernel before has just written them.
    """

    def __init__(
        self, warm_up_ms: float = 100, sample_ms: float = 300, least: int = 20, window_ms: float = 0.5
    ) -> None:
        self.warm_up_ms, self.sample_ms, self.least, self.window_ms = warm_up_ms, sample_ms, least, window_ms

    def __call__(self, run: Callable[[], object], *, graph: bool = True) -> Times:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(side)
        repeats = 1
        if graph:
            replay = _capture(run, 16)  # from Python, launching a kernel takes longer than a short one runs
            _sample(replay)
            repeats = max(1, min(1000, round(self.window_ms / (_sample(replay) / 16))))
            run = _capture(run, repeats)
        spent = 0.0
        while spent < self.warm_up_ms:
            spent += _sample(run)
        samples: list[float] = []
        while len(samples) < self.least or sum(samples) < self.sample_ms:
            samples.append(_sample(run))
        return times_of([sample / repeats for sample in samples])


class CpuClock:
    """The wall clock; for trying the measuring code on a machine without a GPU."""

    def __init__(self, runs: int = 3) -> None:
        self.runs = runs

    def __call__(self, run: Callable[[], object], *, graph: bool = True) -> Times:
        run()
        samples = []
        for _ in range(self.runs):
            begin = time.perf_counter()
            run()
            samples.append((time.perf_counter() - begin) * 1000)
        return times_of(samples)


def _capture(run: Callable[[], object], repeats: int) -> Callable[[], object]:
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        for _ in range(repeats):
            run()
    return captured.replay


def _sample(run: Callable[[], object]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))
