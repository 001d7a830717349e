"""Cells of Markdown tables."""

from __future__ import annotations


def number(value: float | None, digits: int, missing: str = "n/a") -> str:
    """Return a value with so many digits, or ``missing`` for None."""
    return missing if value is None else f"{value:.{digits}f}"


def interval(ends: tuple[float, float] | None, digits: int = 3) -> str:
    """Return both ends of an interval; "" for None."""
    return "" if ends is None else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"
