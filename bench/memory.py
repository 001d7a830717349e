"""What this process takes of the host's memory, in MB (1e6); None where the system does not tell."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")  # getrusage would give the parent's peak to a process that it started


def peak_rss_mb() -> float | None:
    """The most that it ever had resident."""
    return _field("VmHWM:")


def rss_mb() -> float | None:
    """What it has resident now."""
    return _field("VmRSS:")


def _field(name: str) -> float | None:
    if not _STATUS.exists():
        return None
    values = [line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith(name)]
    return round(int(values[0]) * 1024 / 1e6, 1) if values else None
