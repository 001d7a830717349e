"""Multi-scale depthwise convolution: 5x5, then 7, 11 and 21 long strips, in one launch.

One program computes a window of one channel of one image: it reads x, and writes its part of ``a`` minus the map's
level (an approximate channel mean), and of ``s`` = a + strips(a).  A small map is one window (stages 2 to 4 at usual
sizes); larger ones (stage 1) are cut into windows that overlap by the radius of the filters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from lsms_rt.model.functional import STRIPS

from .bands import TABLE, TABLES, TAP0, band, unpack_bands
from .launch import Launch, padded, precision, shape_of
from .shape import Shape
from .tensors import arguments
from .tuned_tiles import planned

# Maximum side of a window.
WINDOW = 64
# The radius of the longest strip; for columns that of the 5x5 is added, because x is loaded with shifted rows, but not
# with shifted columns.
ROW_REACH = 10
COLUMN_REACH = 12
# The level is the mean of a grid of 4 x 4 points.
LEVEL_POINTS = 4
POINTS = tl.constexpr(LEVEL_POINTS)


@triton.jit
def strip(a, s, table, ROWS: tl.constexpr, COLS: tl.constexpr, RADIUS: tl.constexpr, VECTOR: tl.constexpr,
          PRECISION: tl.constexpr):  # fmt: skip
    """s + U a T.  Columns first: ``a`` stays in shared memory for all strips, U a goes on in registers."""
    column = tl.dot(band(table, ROWS, ROWS, RADIUS, VECTOR), a, input_precision=PRECISION).to(a.dtype)
    return tl.dot(column, band(table + TABLE, COLS, COLS, RADIUS, VECTOR), s, input_precision=PRECISION)


@triton.jit
def level_of(x_map, tables, bias, H: tl.constexpr, W: tl.constexpr):
    """Mean of a = 5x5(x) over a few pixels of the map: the middles of four equal parts of its rows and columns.

    Every program of a map computes the same number.  Any number near the mean serves: it cancels in the attention.
    """
    point = tl.arange(0, POINTS * POINTS)[:, None]
    # The next power of two over 25.
    tap = tl.arange(0, 32)[None, :]
    dy, dx = tap // 5, tap % 5
    row = (2 * (point // POINTS) + 1) * H // (2 * POINTS) + dy - 2
    col = (2 * (point % POINTS) + 1) * W // (2 * POINTS) + dx - 2
    inside = (tap < 25) & (row >= 0) & (row < H) & (col >= 0) & (col < W)
    x = tl.load(x_map + row * W + col, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(tables + dy * TABLE + TAP0 + (4 - dx), mask=tap < 25, other=0.0).to(tl.float32)
    return bias + tl.sum(tl.sum(x * weight, 1), 0) / (POINTS * POINTS)


@triton.jit
def depthwise_kernel(
    x_ptr, bands_ptr, bias_ptr, row_bias_ptr, a_ptr, s_ptr,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    ROW_STEP: tl.constexpr, COL_STEP: tl.constexpr, VECTOR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (windows, C, B).  x, a, s (B, C, H, W); bands (C, 11, 8, 32); bias (C,), row_bias (C, H) float32."""
    # Windows, top to bottom.
    down: tl.constexpr = (H - ROWS + ROW_STEP - 1) // ROW_STEP + 1 if H > ROWS else 1
    across: tl.constexpr = (W - COLS + COL_STEP - 1) // COL_STEP + 1 if W > COLS else 1
    i, j = tl.program_id(0) // across, tl.program_id(0) % across
    c = tl.program_id(1)
    offset = (tl.program_id(2).to(tl.int64) * C + c) * (H * W)
    # So that indices inside of a map are 32 bits wide.
    x_ptr += offset
    a_ptr += offset
    s_ptr += offset
    tables = bands_ptr + c * TABLES

    row = i * ROW_STEP + tl.arange(0, ROWS)
    col = j * COL_STEP + tl.arange(0, COLS)
    inside = (row < H)[:, None] & (col < W)[None, :]
    a = tl.zeros((ROWS, COLS), tl.float32)
    for dy in tl.static_range(5):
        y = row + (dy - 2)
        x = tl.load(x_ptr + y[:, None] * W + col[None, :],
                    mask=((y >= 0) & (y < H))[:, None] & (col < W)[None, :], other=0.0)  # fmt: skip
        a = tl.dot(x, band(tables + dy * TABLE, COLS, COLS, 2, VECTOR), a, input_precision=PRECISION)
    bias = tl.load(bias_ptr + c)
    # Zero outside of the map: the strips' padding.
    a = tl.where(inside, a + bias, 0.0)

    # Where two windows overlap, each owns the half that its filters reach wholly.
    row_reach: tl.constexpr = (ROWS - ROW_STEP) // 2
    col_reach: tl.constexpr = (COLS - COL_STEP) // 2
    first_row = tl.where(i == 0, 0, i * ROW_STEP + row_reach)
    last_row = tl.where(i == down - 1, H, i * ROW_STEP + ROWS - row_reach)
    first_col = tl.where(j == 0, 0, j * COL_STEP + col_reach)
    last_col = tl.where(j == across - 1, W, j * COL_STEP + COLS - col_reach)
    own = ((row >= first_row) & (row < last_row))[:, None] & ((col >= first_col) & (col < last_col))[None, :]
    place = row[:, None] * W + col[None, :]
    level = level_of(x_ptr, tables, bias, H, W)
    # Now, so that a's registers are free.
    tl.store(a_ptr + place, (a - level).to(a_ptr.dtype.element_ty), mask=own)

    s = a + tl.load(row_bias_ptr + c * H + row, mask=row < H, other=0.0)[:, None]
    half = a.to(x_ptr.dtype.element_ty)
    s = strip(half, s, tables + 5 * TABLE, ROWS, COLS, 3, VECTOR, PRECISION)
    s = strip(half, s, tables + 7 * TABLE, ROWS, COLS, 5, VECTOR, PRECISION)
    s = strip(half, s, tables + 9 * TABLE, ROWS, COLS, 10, VECTOR, PRECISION)
    tl.store(s_ptr + place, s.to(s_ptr.dtype.element_ty), mask=own)


def launch(shape: Shape, *, vector: bool | None = None, warps: int | None = None) -> Launch:
    """Describe the launch: windows of up to 64 x 64, and ``vector`` as in ``band``.

    At 64 x 64, four warps spill on sm_87 and sm_120.
    """
    rows, columns = (min(WINDOW, padded(size)) for size in (shape.height, shape.width))
    steps = rows - 2 * ROW_REACH, columns - 2 * COLUMN_REACH
    windows = _windows(shape.height, rows, steps[0]) * _windows(shape.width, columns, steps[1])
    large = max(rows, columns)
    return Launch(
        depthwise_kernel,
        (windows, shape.channels),
        arguments(shape, "x", "bands", "bias", "row_bias", "a", "s"),
        2,
        {
            "C": shape.channels, "H": shape.height, "W": shape.width, "ROWS": rows, "COLS": columns,
            "ROW_STEP": steps[0], "COL_STEP": steps[1],
            "VECTOR": large > 16 if vector is None else vector, "PRECISION": precision(shape),
        },
        warps or {16: 1, 32: 4, 64: 8}[large],
    )  # fmt: skip


def _windows(size: int, window: int, step: int) -> int:
    """Count windows at a distance of ``step``, until the last one reaches the end."""
    return 1 if size <= window else -(-(size - window) // step) + 1


@torch.library.custom_op("lsms_rt::multi_scale_depthwise", mutates_args=(), device_types="cuda")
def multi_scale_depthwise(x: Tensor, bands: Tensor, bias: Tensor, row_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``a`` minus its level (an approximate channel mean), and ``s``, both (B, C, H, W).

    ``x`` (B, C, H, W) fp16 or fp32; ``bands`` (C, 11, 8, 32) like x, from ``pack_bands``; ``bias`` (C,) of the 5x5 and
    ``row_bias`` (C, H) from ``pack_row_bias``, float32.
    """
    a, s = torch.empty_like(x), torch.empty_like(x)
    planned(launch, shape_of(x))(x.shape[0], x, bands, bias, row_bias, a, s)
    return a, s


@multi_scale_depthwise.register_kernel("cpu")
def plain(x: Tensor, bands: Tensor, bias: Tensor, row_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the same in plain PyTorch, in x's type: the twin."""
    channels, (height, width) = x.shape[1], x.shape[2:]
    center, strips = unpack_bands(bands)
    a = F.conv2d(x, center, bias.to(x.dtype), padding=2, groups=channels)
    s = a + row_bias[:, :, None].to(x.dtype)
    for n, (row, column) in zip(STRIPS, strips, strict=True):
        along = F.conv2d(a, row, padding=(0, n // 2), groups=channels)
        s = s + F.conv2d(along, column, padding=(n // 2, 0), groups=channels)
    rows, columns = (
        [(2 * i + 1) * size // (2 * LEVEL_POINTS) for i in range(LEVEL_POINTS)] for size in (height, width)
    )
    return a - a[:, :, rows][:, :, :, columns].mean((2, 3), keepdim=True), s


@multi_scale_depthwise.register_fake
def _(x: Tensor, bands: Tensor, bias: Tensor, row_bias: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)
