"""tegrastats: power rails, temperatures and clocks of a Jetson.

It prints one line per interval.  A rail is ``VDD_IN 4970mW/4969mW``: now, and on average since it started.  VDD_IN is
the power of the whole module (older boards: POM_5V_IN).
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterable
from typing import Any

from lsms_rt.machine import jetson
from lsms_rt.machine.jetson import Jetson

# The rail of the whole module, by board.
WHOLE = ("VDD_IN", "POM_5V_IN", "VIN")
# An AGX Orin has no such rail; these are its parts.
PARTS = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
# Degrees Celsius; software throttling of an Orin begins at 99.
HOT = 95.0
COMMAND = ("tegrastats", "--interval", "100")
_RAIL = re.compile(r"(\w+) (\d+)(?:mW)?/(\d+)(?:mW)?(?= |$)")
_TEMPERATURE = re.compile(r"(\w+)@(-?\d+(?:\.\d+)?)C")
_RAM = re.compile(r"RAM (\d+)/(\d+)MB")
_GPU = re.compile(r"GR3D_FREQ (\d+)%(?:@\[?(\d+))?")


def parse(line: str) -> dict[str, Any]:
    """Parse one line into ``rails`` (mW), ``celsius``, ``ram_mb``, ``gpu_percent``, ``gpu_mhz``; None if missing."""
    # Rails come after the temperatures; before them, "RAM 2448/7620MB" looks like one.
    ends = [match.end() for match in _TEMPERATURE.finditer(line)]
    power = line[ends[-1] :] if ends else ""
    rails = {name: int(now) for name, now, _ in _RAIL.findall(power)}
    ram, gpu = _RAM.search(line), _GPU.search(line)
    return {
        "rails": rails,
        "celsius": {name: float(value) for name, value in _TEMPERATURE.findall(line) if float(value) > -200},
        "ram_mb": int(ram[1]) if ram else None,
        "gpu_percent": int(gpu[1]) if gpu else None,
        "gpu_mhz": int(gpu[2]) if gpu and gpu[2] else None,
    }


def whole_watts(sample: dict[str, Any]) -> float | None:
    """Return the power of the whole module from a parsed line."""
    rails = sample["rails"]
    for name in WHOLE:
        if name in rails:
            return float(rails[name]) / 1000
    if all(name in rails for name in PARTS):
        return float(sum(rails[name] for name in PARTS)) / 1000
    return None


class Tegrastats:
    """Integrates power over time, from a tegrastats process of its own."""

    source = "tegrastats, module input rail"

    def __init__(self) -> None:
        self._process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True)
        self._total = Integral()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def joules(self) -> float:
        return self._total.joules(time.monotonic())

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()

    def _follow(self) -> None:
        assert self._process.stdout is not None
        lines: Iterable[str] = self._process.stdout
        for line in lines:
            watts = whole_watts(parse(line))
            if watts is not None:
                self._total.add(time.monotonic(), watts)


class Integral:
    """Energy from samples of power, each of which holds until the next one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._joules, self._watts = 0.0, 0.0
        self._last: float | None = None

    def add(self, now: float, watts: float) -> None:
        with self._lock:
            if self._last is not None:
                self._joules += self._watts * (now - self._last)
            self._last, self._watts = now, watts

    def joules(self, now: float) -> float:
        with self._lock:
            return self._joules + (self._watts * (now - self._last) if self._last is not None else 0.0)


def state(board: Jetson) -> dict[str, Any]:
    """Return the power mode, which may have changed since ``board`` was found, and one line of tegrastats."""
    board = jetson.find() or board
    try:
        with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.terminate()
    except OSError as error:
        return {
            "board": board.model,
            "power_mode": board.power_mode,
            "absent": f"tegrastats could not be started: {error}",
        }
    return {"board": board.model, "power_mode": board.power_mode} | parse(line)


def throttled(states: list[dict[str, Any]]) -> list[str]:
    """Return warnings about a changed power mode and about temperatures near the limit."""
    modes = list(dict.fromkeys(str(state.get("power_mode")) for state in states))
    warnings = [f"the power mode changed: {', then '.join(modes)}"] if len(modes) > 1 else []
    hottest: dict[str, float] = {}
    for state in states:
        for name, value in state.get("celsius", {}).items():
            hottest[name] = max(value, hottest.get(name, value))
    hot = {name: value for name, value in hottest.items() if value >= HOT}
    warnings += [f"{name} is at {value:.0f} degrees Celsius: clocks may be reduced" for name, value in hot.items()]
    return warnings
