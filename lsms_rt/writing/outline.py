"""The outlines of a mask, along the edges of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A corner of pixels: (row, column); pixel (r, c) lies between the corners (r, c) and (r + 1, c + 1).
Corner = tuple[int, int]
# Steps from corner to corner: to the right, down, to the left, up.
_STEPS = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])


def rings(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the closed outlines of all parts of a mask and of their holes.

    Pixels that touch at a corner only are two parts.

    Args:
        mask: bool (H, W).

    Returns:
        int64 (corners, 2) each, (row, column) of every corner of pixels on the way; the last one is a step from the
        first.  Parts run clockwise, as rows grow downwards; holes run the other way, see :func:`is_hole`.
    """
    rows, columns = mask.shape
    p = np.pad(np.asarray(mask, bool), 1)
    inside = p[1:-1, 1:-1]
    # whether a step of each direction starts at a corner: the mask is on its right, and not on its left
    steps = np.zeros((4, rows + 1, columns + 1), bool)
    steps[0, :-1, :-1] = inside & ~p[:-2, 1:-1]
    steps[1, :-1, 1:] = inside & ~p[1:-1, 2:]
    steps[2, 1:, 1:] = inside & ~p[2:, 1:-1]
    steps[3, 1:, :-1] = inside & ~p[1:-1, :-2]
    numbers = np.full(steps.shape, -1)
    direction, row, column = np.nonzero(steps)
    numbers[steps] = np.arange(len(direction))
    ends = np.stack([row, column], 1) + _STEPS[direction]
    # to the right, if there is such a step, which stays at the same pixel; else straight on; else to the left
    turns = [numbers[(direction + turn) % 4, ends[:, 0], ends[:, 1]] for turn in (1, 0, 3)]
    following = np.where(turns[0] >= 0, turns[0], np.where(turns[1] >= 0, turns[1], turns[2])).tolist()
    corners, left, found = np.stack([row, column], 1), [True] * len(following), []
    for first in range(len(following)):
        ring, step = [], first
        while left[step]:
            left[step] = False
            ring.append(step)
            step = following[step]
        if ring:
            found.append(corners[ring])
    return found


def is_hole(ring: NDArray[np.int64]) -> bool:
    """Return whether an outline is that of a hole."""
    y, x = ring.T
    return bool(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) < 0)


def polygons(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return one polygon for each part of a mask; each hole is joined to its part's outline by a cut of no width.

    Args:
        mask: bool (H, W).

    Returns:
        int64 (corners, 2) each, (row, column) of the corners at which the outline turns.
    """
    found = rings(mask)
    # A corner to which a cut leads is on one ring: both pixels on its right are inside.
    ring_at = {corner: n for n, ring in enumerate(found) for corner in _corners(ring)}
    whole: dict[int, list[Corner]] = {}
    part_of: dict[int, int] = {}
    holes = []
    for n, ring in enumerate(found):
        if is_hole(ring):
            holes.append((min((column, row) for row, column in _corners(ring)), n))
        else:
            whole[n], part_of[n] = _corners(ring), n
    # From left to right: what a cut meets, going left, belongs to a part already.
    for (column, row), n in sorted(holes):
        hole = _corners(found[n])
        start = hole.index((row, column))
        end = next(c for c in range(column - 1, -1, -1) if (row, c) in ring_at)
        part_of[n] = part_of[ring_at[row, end]]
        outline = whole[part_of[n]]
        cut = outline.index((row, end))
        whole[part_of[n]] = [*outline[: cut + 1], *hole[start:], *hole[: start + 1], *outline[cut:]]
    return [_turns(outline) for outline in whole.values()]


def _corners(ring: NDArray[np.int64]) -> list[Corner]:
    return [(row, column) for row, column in ring.tolist()]


def _turns(outline: Sequence[Corner]) -> NDArray[np.int64]:
    """Leave out the corners at which the outline goes straight on."""
    points = np.array(outline)
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    return np.asarray(points[(before != after).any(1)])
