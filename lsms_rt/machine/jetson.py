"""Detect an NVIDIA Jetson, its software and its power mode."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MODEL, RELEASE, PACKAGES = "proc/device-tree/model", "etc/nv_tegra_release", "var/lib/dpkg/status"


@dataclass(frozen=True)
class Jetson:
    """A Jetson board.

    Attributes:
        model: the board's name.
        l4t: version of its Linux, e.g. "36.4.3"; None if unknown.
        jetpack: version of JetPack; None if unknown.
        power_mode: name of the power mode; None if unknown.
    """

    model: str
    l4t: str | None
    jetpack: str | None
    power_mode: str | None


def _run(command: Sequence[str]) -> str:
    """Return the output of a command; empty if it is missing, fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def find(root: Path = Path("/"), run: Callable[[Sequence[str]], str] = _run) -> Jetson | None:
    """Return this Jetson; None on another machine.  ``root`` and ``run`` are injectable for tests."""
    model = _read(root / MODEL).rstrip("\0").strip()
    if "Jetson" not in model and "Orin" not in model and "Thor" not in model:
        return None
    release = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _read(root / RELEASE))
    package = re.search(
        r"^Package: nvidia-jetpack$.*?^Version: (\S+)", _read(root / PACKAGES), re.MULTILINE | re.DOTALL
    )
    mode = re.search(r"NV Power Mode: (\S+)", run(["nvpmodel", "-q"]))
    return Jetson(
        model,
        f"{release[1]}.{release[2]}" if release else None,
        package[1] if package else None,
        mode[1] if mode else None,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
