"""Find the sensors of this machine; missing sensors are reported, never estimated."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from lsms_rt.machine import jetson
from lsms_rt.machine.gpu import query_driver


class Meter(Protocol):
    """Counts energy from its construction until it is closed."""

    source: str

    def joules(self) -> float:
        """Return the energy since some moment in the past; only differences have a meaning."""

    def close(self) -> None:
        """Stop reading the sensor."""


@dataclass(frozen=True)
class Sensors:
    """The sensors of one device.

    Attributes:
        meter: Starts a :class:`Meter`; None if energy cannot be measured.
        state: Reads clocks, temperatures and reasons for throttling.
        throttled: Returns, in words, what slowed the device down in any of some states.
        absent: Why energy cannot be measured.
        every: Seconds between states that are read while the device works.
    """

    meter: Callable[[], Meter] | None
    state: Callable[[], dict[str, Any]]
    throttled: Callable[[list[dict[str, Any]]], list[str]]
    absent: str | None = None
    every: float = 0.2

    @contextmanager
    def watched(self) -> Iterator[list[dict[str, Any]]]:
        """Collect states while the body runs, because a GPU reports why it is slow only while it is."""
        states: list[dict[str, Any]] = []
        stop = threading.Event()

        def follow() -> None:
            while not stop.wait(self.every):
                states.append(self.state())

        thread = threading.Thread(target=follow, daemon=True)
        if self.absent is None:
            thread.start()
        try:
            yield states
        finally:
            stop.set()
            if thread.ident is not None:
                thread.join()


def find_sensors(index: int = 0) -> Sensors:
    """Return the sensors of a Jetson, those of NVIDIA GPU ``index``, or none."""
    board = jetson.find()
    if board is not None:
        from . import tegrastats

        if shutil.which(tegrastats.COMMAND[0]) is None:
            return no_sensors("tegrastats is not on the PATH; it comes with JetPack")
        return Sensors(tegrastats.Tegrastats, lambda: tegrastats.state(board), tegrastats.throttled, every=5.0)
    problem = query_driver().problem
    if problem:
        return no_sensors(f"{problem}; sensors of a CPU are not read")
    try:
        import pynvml
    except ImportError:
        return no_sensors("reading a GPU's sensors needs NVML; pip install nvidia-ml-py")
    from . import nvml

    device = nvml.Device(pynvml, index)
    absent = device.no_energy
    meter = None if absent else lambda: nvml.NvmlMeter(device)
    return Sensors(meter, device.state, nvml.throttled, absent)


def no_sensors(reason: str) -> Sensors:
    """Return sensors that only state why there are none."""
    return Sensors(None, lambda: {"absent": reason}, lambda states: [], reason)
