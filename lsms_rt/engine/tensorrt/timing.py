"""Where the time of one run goes, told by events on its stream.  Not run on a GPU yet."""

from __future__ import annotations

import time
from typing import Any

from .lane import MOMENTS


class Marks:
    """Events at a lane's ``MOMENTS``, and when the host came by; a lane's ``mark``."""

    def __init__(self, device: Any) -> None:
        self._events = {moment: device.event() for moment in MOMENTS}
        self._host: dict[str, tuple[float, float]] = {}

    def __call__(self, moment: str, stream: Any) -> None:
        before = time.perf_counter()
        self._events[moment].record(stream)
        self._host[moment] = before, time.perf_counter()

    def times(self) -> dict[str, float]:
        """Milliseconds, once the run is done: of the host until the plan is on its stream ("enqueue"), and of the GPU.

        A GPU that shares the CPU's memory copies nothing: its "h2d" and "d2h" are next to nothing.  The stream is idle
        when a run begins, so that "h2d" holds what the host takes between the event and the copy.
        """
        moments = {name: self._events[name] for name in MOMENTS}
        return {
            "enqueue": 1000 * (self._host["computed"][0] - self._host["uploaded"][1]),
            "h2d": float(moments["uploaded"].time_since(moments["start"])),
            "compute": float(moments["computed"].time_since(moments["uploaded"])),
            "d2h": float(moments["downloaded"].time_since(moments["computed"])),
        }
