"""Which sensors this machine has; one that is absent is said to be, and never guessed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lsms_rt import jetson
from lsms_rt.gpu import look


class Meter(Protocol):
    """Counts energy from when it is made until it is closed."""

    source: str

    def joules(self) -> float:
        """Since some moment in the past; only differences mean anything."""

    def close(self) -> None:
        """Stop what reads the sensor."""


@dataclass(frozen=True)
class Sensors:
    """``meter`` makes a :class:`Meter`, ``state`` reads clocks, temperatures and reasons of throttling, ``throttled``
    says in words what slowed the device down during two such states.  ``absent`` says why there are none."""

    meter: Callable[[], Meter] | None
    state: Callable[[], dict[str, Any]]
    throttled: Callable[[dict[str, Any], dict[str, Any]], list[str]]
    absent: str | None = None


def find_sensors(index: int = 0) -> Sensors:
    """Those of a Jetson, those of NVIDIA GPU ``index``, or none."""
    board = jetson.find()
    if board is not None:
        from . import tegrastats

        return Sensors(tegrastats.Tegrastats, lambda: tegrastats.state(board), tegrastats.throttled)
    problem = look().problem
    if problem:
        return _none(f"{problem}; a CPU's own counters are not read")
    try:
        import pynvml
    except ImportError:
        return _none("reading a GPU's sensors needs NVML; pip install nvidia-ml-py")
    from . import nvml

    device = nvml.Device(pynvml, index)
    absent = device.no_energy
    meter = None if absent else lambda: nvml.NvmlMeter(device)
    return Sensors(meter, device.state, nvml.throttled, absent)


def _none(reason: str) -> Sensors:
    return Sensors(None, lambda: {"absent": reason}, lambda before, after: [], reason)
