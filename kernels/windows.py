"""What the depthwise kernels share: windows of a map, rows of it, and the map's level."""

from __future__ import annotations

import triton
import triton.language as tl

from .bands import TABLE, TAP0

# Maximum side of a window.
WINDOW = 64
# The radius of the longest strip; for columns that of the 5x5 is added, because x is loaded with shifted rows, but not
# with shifted columns.
ROW_REACH = 10
COLUMN_REACH = 12
# The level is the mean of a grid of 4 x 4 points.
LEVEL_POINTS = 4
POINTS = tl.constexpr(LEVEL_POINTS)


def count_windows(size: int, window: int, step: int) -> int:
    """Count windows at a distance of ``step``, until the last one reaches the end."""
    return 1 if size <= window else -(-(size - window) // step) + 1


@triton.jit
def owned(at, index, SIZE: tl.constexpr, WINDOW: tl.constexpr, STEP: tl.constexpr):
    """Whether the window of this index owns rows (or columns) ``at``.

    Where two windows overlap, each owns the half that its filters reach wholly.
    """
    reach: tl.constexpr = (WINDOW - STEP) // 2
    last: tl.constexpr = (SIZE - WINDOW + STEP - 1) // STEP if SIZE > WINDOW else 0
    begin = tl.where(index == 0, 0, index * STEP + reach)
    end = tl.where(index == last, SIZE, index * STEP + WINDOW - reach)
    return (at >= begin) & (at < end)


@triton.jit
def shifted(x_map, row, col, dy, H: tl.constexpr, W: tl.constexpr):
    """Rows ``row`` + ``dy`` of a map, zero outside of it."""
    y = row + dy
    inside = ((y >= 0) & (y < H))[:, None] & (col < W)[None, :]
    return tl.load(x_map + y[:, None] * W + col[None, :], mask=inside, other=0.0)


@triton.jit
def level_of(x_map, tables, bias, H: tl.constexpr, W: tl.constexpr):
    """Mean of a = 5x5(x) over a few pixels of the map: the middles of four equal parts of its rows and columns.

    Every program of a map computes the same number.  Any number near the mean serves: it cancels in the attention.
    """
    return bias + tl.sum(tl.sum(level_products(x_map, tables, H, W), 1), 0) / (POINTS * POINTS)


@triton.jit
def level_products(x_map, tables, H: tl.constexpr, W: tl.constexpr):
    """The products of the 5x5 at the points of the level: their sum is that of ``a`` without its bias."""
    point = tl.arange(0, POINTS * POINTS)[:, None]
    # The next power of two over 25.
    tap = tl.arange(0, 32)[None, :]
    dy, dx = tap // 5, tap % 5
    row = (2 * (point // POINTS) + 1) * H // (2 * POINTS) + dy - 2
    col = (2 * (point % POINTS) + 1) * W // (2 * POINTS) + dx - 2
    inside = (tap < 25) & (row >= 0) & (row < H) & (col >= 0) & (col < W)
    x = tl.load(x_map + row * W + col, mask=inside, other=0.0).to(tl.float32)
    return x * tl.load(tables + dy * TABLE + TAP0 + (4 - dx), mask=tap < 25, other=0.0).to(tl.float32)


@triton.jit
def level_here(a, row, col, H: tl.constexpr, W: tl.constexpr):
    """The same from ``a`` itself, for a program that has the whole map."""
    return tl.sum(a * (points(row, H)[:, None] * points(col, W)[None, :])) / (POINTS * POINTS)


@triton.jit
def points(at, SIZE: tl.constexpr):
    """How many of the level's points lie in rows (or columns) ``at``; on a short side several share one."""
    count = tl.zeros_like(at).to(tl.float32)
    for i in tl.static_range(POINTS):
        count += tl.where(at == (2 * i + 1) * SIZE // (2 * POINTS), 1.0, 0.0)
    return count
