"""Memory of this process on the host, in MB (1e6); None if unavailable on this platform."""

from __future__ import annotations

from pathlib import Path

# Not getrusage, which reports the parent's peak to a process that it started.
_STATUS = Path("/proc/self/status")


def peak_rss_mb() -> float | None:
    """Return the peak of the resident memory."""
    return _field("VmHWM:")


def rss_mb() -> float | None:
    """Return the resident memory now."""
    return _field("VmRSS:")


def _field(name: str) -> float | None:
    if not _STATUS.exists():
        return None
    values = [line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith(name)]
    return round(int(values[0]) * 1024 / 1e6, 1) if values else None
