"""Cells of Markdown tables."""

from __future__ import annotations


def number(value: float | None, digits: int, missing: str = "n/a") -> str:
    """Return a value with so many digits, or ``missing`` for None."""
    return missing if value is None else f"{value:.{digits}f}"
