"""The style of all pictures: colors, figures without global state, and saving."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

# Ours against others, dots of raw samples, text and lines in the background.
OURS, OTHERS, DOT, GRAY = "#c0392b", "#7f8c8d", "#2c3e50", "#7f8c8d"
# What passes or is chosen, and what does not or is not.
GOOD, BAD = "tab:blue", "tab:red"
# Outlines on CT slices.
TRUTH, REFERENCE, PREDICTED = "lime", "deepskyblue", "red"
# Lines that guide the eye.
GUIDE = "0.6"


def new_figure(width: float, height: float) -> Any:
    """Return a matplotlib Figure of a size in inches, which needs no display and no pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def open_frame(*panels: Any) -> None:
    """Leave out the top and the right line of the frame of some axes."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: Path, dpi: int = 100, metadata: dict[str, str] | None = None) -> Path:
    """Write a PNG file; ``metadata`` become its text chunks."""
    figure.savefig(path, format="png", dpi=dpi, metadata=metadata)
    return path


def png(figure: Any, dpi: int = 100) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
