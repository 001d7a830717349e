"""The stopwatch for GPUs, with a fake of torch.cuda on which every call takes a known time."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from lsms_rt.bench.timing import Effort, GpuStopwatch

CALL_MS = 0.01


class FakeGpu:
    """Counts the calls of a function, which take ``CALL_MS`` each on the time line of the events."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.capturing, self.captured = 0.0, False, 0
        self.repeats: list[int] = []
        gpu = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.time = gpu.now

            def synchronize(self) -> None: ...

            def elapsed_time(self, end: Any) -> float:
                return end.time - self.time

        class Graph:
            def replay(self) -> None:
                gpu.now += self.calls * CALL_MS

        class Capture:
            def __init__(self, graph: Any) -> None:
                self.graph = graph

            def __enter__(self) -> None:
                gpu.capturing, gpu.captured = True, 0

            def __exit__(self, *_: object) -> None:
                self.graph.calls, gpu.capturing = gpu.captured, False
                gpu.repeats.append(gpu.captured)

        class Stream:
            def wait_stream(self, _: object) -> None: ...

        for name, fake in (
            ("Event", Event), ("CUDAGraph", Graph), ("graph", Capture), ("Stream", Stream), ("current_stream", Stream),
            ("stream", nullcontext),
        ):  # fmt: skip
            monkeypatch.setattr(torch.cuda, name, fake)

    def run(self) -> None:
        if self.capturing:
            self.captured += 1
        else:
            self.now += CALL_MS


def test_short_work_is_repeated_in_a_graph_and_divided_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch)
    samples = GpuStopwatch(Effort(0, 0, 5, 5), window_ms=1.5)(gpu.run)
    assert gpu.repeats == [16, 150]
    assert samples.unit == "ms" and samples.values == pytest.approx([CALL_MS] * 5)


def test_without_a_graph_every_call_is_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch)
    samples = GpuStopwatch(Effort(0, 0, 3, 3))(gpu.run, graph=False)
    assert not gpu.repeats and samples.values == pytest.approx([CALL_MS] * 3)
