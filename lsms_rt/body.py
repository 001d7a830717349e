"""Find the body in a slice; the rest would only cost resolution."""

from __future__ import annotations

import numpy as np

# What of a slice the network sees: all of it, or the square around the body.
CROPS = ("none", "body")
# Air and lung are below, fat (-100 HU) and everything else of a body above.
BODY_HU = -300.0
# The slice is examined in about this many blocks per side.  The walls of a table are thinner than a block and vanish.
BLOCKS = 64
# A row or a column belongs to the body from this many blocks on: two body walls around a lung have that many.
MIN_BLOCKS = 2
MARGIN = 1


def body_box(hu: np.ndarray) -> tuple[int, int, int, int]:
    """Return the rows and columns that hold the body, with a margin of one block.

    Args:
        hu: (H, W), Hounsfield units.

    Returns:
        (top, left, bottom, right) in pixels, ``bottom`` and ``right`` exclusive, inside the slice.  The whole slice
        if no body is found.
    """
    height, width = hu.shape
    side = max(1, round(max(height, width) / BLOCKS))
    rows, columns = height // side, width // side
    if rows < 2 or columns < 2:
        return 0, 0, height, width
    blocks = hu[: rows * side, : columns * side].reshape(rows, side, columns, side)
    body = blocks.mean((1, 3), dtype=np.float32) > BODY_HU
    first, last = _longest_run(body.sum(1) >= MIN_BLOCKS)
    left, right = _longest_run(body[first:last].sum(0) >= MIN_BLOCKS)
    if last <= first or right <= left:
        return 0, 0, height, width
    return (
        max(0, (first - MARGIN) * side),
        max(0, (left - MARGIN) * side),
        min(height, (last + MARGIN) * side) if last < rows else height,
        min(width, (right + MARGIN) * side) if right < columns else width,
    )


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
    """Return start and end (exclusive) of the longest run of True; (0, 0) if there is none."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False]))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    best = int(np.argmax(ends - starts))
    return int(starts[best]), int(ends[best])
