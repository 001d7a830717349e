"""Multi-scale depthwise convolution: 5x5, then 7, 11 and 21 long strips, in one launch.

One program computes a window of one channel of one image: it reads x, and writes its part of ``a`` minus the map's
level (an approximate channel mean), and of ``s`` = a + strips(a).  A small map is one window (stages 2 to 4 at usual
sizes); larger ones (stage 1) are cut into windows that overlap by the radius of the filters.

The operands of several products are loaded before the first of them, so that a program waits for memory once (windows
of up to 32 x 32) or five times (64 x 64), not at every product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from lsms_rt.model.functional import STRIPS

from .bands import TABLE, TABLES, band, unpack_bands
from .launch import Launch, padded, precision, shape_of
from .shape import Shape
from .tensors import arguments
from .tuned_tiles import planned
from .windows import (
    COLUMN_REACH,
    LEVEL_POINTS,
    POINTS,
    ROW_REACH,
    WINDOW,
    count_windows,
    level_here,
    level_products,
    owned,
    shifted,
)


@triton.jit
def strip_bands(tables, FIRST: tl.constexpr, END: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
                VECTOR: tl.constexpr):  # fmt: skip
    """The matrices U and T of some of the strips of 7, 11 and 21."""
    left = ()
    right = ()
    for n in tl.static_range(FIRST, END):
        table = tables + (5 + 2 * n) * TABLE
        left += (band(table, ROWS, ROWS, 10 if n == 2 else 3 + 2 * n, VECTOR),)
        right += (band(table + TABLE, COLS, COLS, 10 if n == 2 else 3 + 2 * n, VECTOR),)
    return left, right


@triton.jit
def depthwise_kernel(
    x_ptr, bands_ptr, bias_ptr, row_bias_ptr, a_ptr, s_ptr,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    ROW_STEP: tl.constexpr, COL_STEP: tl.constexpr, VECTOR: tl.constexpr, PRECISION: tl.constexpr,
    GROUP: tl.constexpr, STRIPS: tl.constexpr,
):  # fmt: skip
    """Grid (windows, C, B).  x, a, s (B, C, H, W); bands (C, 11, 8, 32); bias (C,), row_bias (C, H) float32.

    The operands of GROUP products of the 5x5, and of STRIPS strips, are in shared memory at once.
    """
    # Windows beside each other.
    across: tl.constexpr = (W - COLS + COL_STEP - 1) // COL_STEP + 1 if W > COLS else 1
    whole: tl.constexpr = H <= ROWS and W <= COLS
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
    bias = tl.load(bias_ptr + c)
    row_bias = tl.load(row_bias_ptr + c * H + row, mask=row < H, other=0.0)
    if not whole:
        # Loaded now, with the others, and summed when there is shared memory for it.
        products = level_products(x_ptr, tables, H, W)
    if STRIPS == 3:
        left, right = strip_bands(tables, 0, 3, ROWS, COLS, VECTOR)
    a = tl.zeros((ROWS, COLS), tl.float32)
    for first in tl.static_range(0, 5, GROUP):
        x = ()
        bands = ()
        # Rows 0, 4, 3, 2, 1 of the filter: the first two bring all rows of x into the L1 cache.
        for k in tl.static_range(first, min(first + GROUP, 5)):
            x += (shifted(x_ptr, row, col, 4 * k % 5 - 2, H, W),)
            bands += (band(tables + 4 * k % 5 * TABLE, COLS, COLS, 2, VECTOR),)
        for k in tl.static_range(min(GROUP, 5 - first)):
            a = tl.dot(x[k], bands[k], a, input_precision=PRECISION)
    # Zero outside of the map: the strips' padding.
    a = tl.where((row < H)[:, None] & (col < W)[None, :], a + bias, 0.0)

    own = owned(row, i, H, ROWS, ROW_STEP)[:, None] & owned(col, j, W, COLS, COL_STEP)[None, :]
    place = row[:, None] * W + col[None, :]
    level = level_here(a, row, col, H, W) if whole else bias + tl.sum(products) / (POINTS * POINTS)
    # Now, so that a's registers are free.
    tl.store(a_ptr + place, (a - level).to(a_ptr.dtype.element_ty), mask=own)

    s = a + row_bias[:, None]
    half = a.to(x_ptr.dtype.element_ty)
    for first in tl.static_range(0, 3, STRIPS):
        if STRIPS < 3:
            left, right = strip_bands(tables, first, min(first + STRIPS, 3), ROWS, COLS, VECTOR)
        for n in tl.static_range(min(STRIPS, 3 - first)):
            # s + U a T.  Columns first: a stays in shared memory for all strips, U a goes on in registers.
            column = tl.dot(left[n], half, input_precision=PRECISION).to(half.dtype)
            s = tl.dot(column, right[n], s, input_precision=PRECISION)
    tl.store(s_ptr + place, s.to(s_ptr.dtype.element_ty), mask=own)


def launch(shape: Shape, *, vector: bool | None = None, warps: int | None = None, group: int | None = None) -> Launch:
    """Describe the launch.

    Args:
        shape: the shape; windows are up to 64 x 64.
        vector: as in ``band``.
        warps: of a program.
        group: products of the 5x5 whose operands are loaded at once.  At 64 x 64 three fill the 48 KiB of shared memory
            that a plugin gets, and Blackwell needs eight bytes more.
    """
    rows, columns = (min(WINDOW, padded(size)) for size in (shape.height, shape.width))
    steps = rows - 2 * ROW_REACH, columns - 2 * COLUMN_REACH
    windows = count_windows(shape.height, rows, steps[0]) * count_windows(shape.width, columns, steps[1])
    large = max(rows, columns)
    constants = {
        "C": shape.channels, "H": shape.height, "W": shape.width, "ROWS": rows, "COLS": columns,
        "ROW_STEP": steps[0], "COL_STEP": steps[1],
        "VECTOR": large > 16 if vector is None else vector, "PRECISION": precision(shape),
        "GROUP": group or (2 if large == WINDOW else 5), "STRIPS": 2 if large == WINDOW else 3,
    }  # fmt: skip
    return Launch(
        depthwise_kernel,
        (windows, shape.channels),
        arguments(shape, "x", "bands", "bias", "row_bias", "a", "s"),
        2,
        constants,
        # Four warps are one group of wgmma, which reads an operand once.
        warps or (1 if large == 16 else 4),
    )


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
    center, strips = unpack_bands(bands)
    channels, (height, width) = x.shape[1], x.shape[2:]
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
