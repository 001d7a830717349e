"""Measure the parts of one run by events on its stream."""

from __future__ import annotations

import time
from typing import Any

from .lane import STEPS


class StepTimes:
    """Events after a lane's ``STEPS``, and the host timestamps; passed to ``Lane.submit``."""

    def __init__(self, device: Any) -> None:
        self._events = {step: device.event() for step in STEPS}
        self._host: dict[str, tuple[float, float]] = {}

    def __call__(self, step: str, stream: Any) -> None:
        before = time.perf_counter()
        self._events[step].record(stream)
        self._host[step] = before, time.perf_counter()

    def times(self) -> dict[str, float]:
        """Return milliseconds, after the run has finished.

        "enqueue" is host time, until the plan is on its stream; "h2d", "compute" and "d2h" are GPU time.  The stream is
        idle when a run begins, so "h2d" includes the host time between the event and the copy.
        """
        events = self._events
        return {
            "enqueue": 1000 * (self._host["computed"][0] - self._host["uploaded"][1]),
            "h2d": float(events["uploaded"].time_since(events["start"])),
            "compute": float(events["computed"].time_since(events["uploaded"])),
            "d2h": float(events["downloaded"].time_since(events["computed"])),
        }

    def close(self) -> None:
        """Destroy the events, which needs the device's context, as making them does."""
        self._events.clear()
