"""Multi-scale depthwise convolution tap by tap, in three launches: 5x5, rows of all strips, columns of all strips.

This form serves fp32, where products on tensor cores would have to be split in three and spill registers.  In fp16 it
is the reference for the speed of the banded form, which multiplies a dozen times more on units a dozen times faster.
Arguments and plain twin are those of ``depthwise``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import depthwise
from .bands import TABLE, TABLES, TAP0
from .launch import Launch, padded, shape_of
from .shape import Shape
from .tensors import arguments
from .tuned_tiles import planned
from .windows import level_of


@triton.jit
def center_kernel(x_ptr, bands_ptr, bias_ptr, a_ptr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
                  ROWS: tl.constexpr, COLS: tl.constexpr):  # fmt: skip
    """Grid (H / ROWS, C, B): a = 5x5(x) + bias, less the map's level.  x, a (B, C, H, W)."""
    c = tl.program_id(1)
    offset = (tl.program_id(2).to(tl.int64) * C + c) * (H * W)
    x_ptr += offset
    a_ptr += offset
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, COLS)[None, :]
    tables = bands_ptr + c * TABLES
    bias = tl.load(bias_ptr + c)
    a = tl.zeros((ROWS, COLS), tl.float32) + (bias - level_of(x_ptr, tables, bias, H, W))
    for dy in tl.static_range(5):
        for dx in tl.static_range(5):
            y, z = row + (dy - 2), col + (dx - 2)
            x = tl.load(x_ptr + y * W + z, mask=(y >= 0) & (y < H) & (z >= 0) & (z < W), other=0.0)
            a += x.to(tl.float32) * tl.load(tables + dy * TABLE + TAP0 + (4 - dx)).to(tl.float32)
    tl.store(a_ptr + row * W + col, a.to(a_ptr.dtype.element_ty), mask=(row < H) & (col < W))


@triton.jit
def rows_kernel(x_ptr, a_ptr, bands_ptr, bias_ptr, rows_ptr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
                ROWS: tl.constexpr, COLS: tl.constexpr):  # fmt: skip
    """Grid (H / ROWS, C, B): the 1x7, 1x11 and 1x21 of a; one load of ``a`` serves all three.  rows (B, C, 3, H, W)."""
    c = tl.program_id(1)
    offset = (tl.program_id(2).to(tl.int64) * C + c) * (H * W)
    x_ptr += offset
    a_ptr += offset
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, COLS)[None, :]
    tables = bands_ptr + c * TABLES
    level = level_of(x_ptr, tables, tl.load(bias_ptr + c), H, W)
    seven = tl.zeros((ROWS, COLS), tl.float32)
    eleven = tl.zeros((ROWS, COLS), tl.float32)
    twentyone = tl.zeros((ROWS, COLS), tl.float32)
    for dx in tl.static_range(21):
        z = col + (dx - 10)
        inside = (row < H) & (z >= 0) & (z < W)
        a = tl.load(a_ptr + row * W + z, mask=inside, other=0.0).to(tl.float32)
        # With its level again, and zero outside of the map.
        a = tl.where(inside, a + level, 0.0)
        if (dx >= 7) and (dx < 14):
            seven += a * tl.load(tables + 6 * TABLE + TAP0 + (13 - dx)).to(tl.float32)
        if (dx >= 5) and (dx < 16):
            eleven += a * tl.load(tables + 8 * TABLE + TAP0 + (15 - dx)).to(tl.float32)
        twentyone += a * tl.load(tables + 10 * TABLE + TAP0 + (20 - dx)).to(tl.float32)
    place = rows_ptr + 3 * offset + row * W + col
    own = (row < H) & (col < W)
    tl.store(place, seven.to(rows_ptr.dtype.element_ty), mask=own)
    tl.store(place + H * W, eleven.to(rows_ptr.dtype.element_ty), mask=own)
    tl.store(place + 2 * H * W, twentyone.to(rows_ptr.dtype.element_ty), mask=own)


@triton.jit
def columns_kernel(x_ptr, a_ptr, rows_ptr, bands_ptr, bias_ptr, row_bias_ptr, s_ptr, C: tl.constexpr, H: tl.constexpr,
                   W: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):  # fmt: skip
    """Grid (H / ROWS, C, B): s = a + the 7x1, 11x1 and 21x1 of the rows' results + row_bias."""
    c = tl.program_id(1)
    offset = (tl.program_id(2).to(tl.int64) * C + c) * (H * W)
    x_ptr += offset
    a_ptr += offset
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, COLS)[None, :]
    tables = bands_ptr + c * TABLES
    own = (row < H) & (col < W)
    s = tl.load(a_ptr + row * W + col, mask=own, other=0.0).to(tl.float32)
    s += level_of(x_ptr, tables, tl.load(bias_ptr + c), H, W)
    s += tl.load(row_bias_ptr + c * H + row, mask=row < H, other=0.0)
    for dy in tl.static_range(21):
        y = row + (dy - 10)
        inside = (y >= 0) & (y < H) & (col < W)
        place = rows_ptr + 3 * offset + y * W + col
        if (dy >= 7) and (dy < 14):
            weight = tl.load(tables + 5 * TABLE + TAP0 + (dy - 7)).to(tl.float32)
            s += weight * tl.load(place, mask=inside, other=0.0).to(tl.float32)
        if (dy >= 5) and (dy < 16):
            weight = tl.load(tables + 7 * TABLE + TAP0 + (dy - 5)).to(tl.float32)
            s += weight * tl.load(place + H * W, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(tables + 9 * TABLE + TAP0 + dy).to(tl.float32)
        s += weight * tl.load(place + 2 * H * W, mask=inside, other=0.0).to(tl.float32)
    tl.store(s_ptr + offset + row * W + col, s.to(s_ptr.dtype.element_ty), mask=own)


def launch(shape: Shape, *, pixels: int = 512, warps: int = 4) -> tuple[Launch, Launch, Launch]:
    """Describe the launches: tiles of whole rows with ``pixels`` in total; 1024 spill sixteen bytes on sm_90."""
    columns = padded(shape.width)
    rows = max(1, pixels // columns)
    pointers = (
        (center_kernel, ("x", "bands", "bias", "a")),
        (rows_kernel, ("x", "a", "bands", "bias", "rows")),
        (columns_kernel, ("x", "a", "rows", "bands", "bias", "row_bias", "s")),
    )
    grid = -(-shape.height // rows), shape.channels
    constants = {"C": shape.channels, "H": shape.height, "W": shape.width, "ROWS": rows, "COLS": columns}
    first, second, third = (
        Launch(kernel, grid, arguments(shape, *names), 1, constants, warps) for kernel, names in pointers
    )
    return first, second, third


@torch.library.custom_op("lsms_rt::depthwise_direct", mutates_args=(), device_types="cuda")
def depthwise_direct(x: Tensor, bands: Tensor, bias: Tensor, row_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``multi_scale_depthwise``, with the same arguments and results."""
    batch, channels, height, width = x.shape
    a, s, rows = torch.empty_like(x), torch.empty_like(x), x.new_empty(batch, channels, 3, height, width)
    first, second, third = planned(launch, shape_of(x))
    first(batch, x, bands, bias, a)
    second(batch, x, a, bands, bias, rows)
    third(batch, x, a, rows, bands, bias, row_bias, s)
    return a, s


depthwise_direct.register_kernel("cpu")(depthwise.plain)


@depthwise_direct.register_fake
def _(x: Tensor, bands: Tensor, bias: Tensor, row_bias: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)
