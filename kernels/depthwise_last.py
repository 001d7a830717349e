"""Multi-scale depthwise convolution of maps with channels last, tap by tap, in three launches: 5x5, rows, columns.

Lanes run over channels, so that a tap is one wide load for several channels, and needs no arithmetic for its address.
A thread computes several neighbors in a row (or column) of the map from values that it loads once.  The results ``a``
and ``s`` have channels first, as the rest of the chain reads them; what the launches exchange has channels last.

It would serve where the kernel before the block can write channels last; it is in no chain yet.  The next run on a GPU
judges: if it is faster there than ``depthwise``, it gets a chain, otherwise it goes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lsms_rt.model.functional import STRIPS, SvlaWeights

from . import depthwise
from .launch import Launch, block, shape_of
from .overlap import after_previous
from .shape import Shape
from .tensors import arguments
from .tuned_tiles import planned
from .windows import POINTS

# Where the taps of the strips begin in the table: the 25 of the 5x5, then nx1 and 1xn of every strip.
TAPS_OF = tl.constexpr((25, 39, 61))
LENGTHS = tl.constexpr(STRIPS)


@triton.jit
def load_pixels(map_ptr, row, col, c, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """Pixels of a map (H, W, C) as float32 (pixels, channels), zero outside of it."""
    inside = (row >= 0) & (row < H) & (col >= 0) & (col < W)
    place = (row * W + col)[:, None] * C + c[None, :]
    return tl.load(map_ptr + place, mask=inside[:, None], other=0.0).to(tl.float32)


@triton.jit
def convolve(sums, values, filters_ptr, c, STEP: tl.constexpr, FIRST: tl.constexpr, COUNT: tl.constexpr,
             PIXELS: tl.constexpr, C: tl.constexpr):  # fmt: skip
    """Add a filter of COUNT taps to the sums of PIXELS neighbors; ``values[FIRST]`` meets the first tap of the first.

    Taps are STEP rows apart in the table (taps, C).
    """
    for tap in tl.static_range(COUNT):
        weight = tl.load(filters_ptr + tap * STEP * C + c)[None, :]
        more = ()
        for pixel in tl.static_range(PIXELS):
            more += (sums[pixel] + values[FIRST + tap + pixel] * weight,)
        sums = more
    return sums


@triton.jit
def center_kernel(x_ptr, filters_ptr, bias_ptr, a_ptr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
                  PIXELS: tl.constexpr, COLS: tl.constexpr, CHANNELS: tl.constexpr, OVERLAP: tl.constexpr):  # fmt: skip
    """Grid (tiles of PIXELS x COLS, C / CHANNELS, B): a = 5x5(x) + bias.  x, a (B, H, W, C), a float32."""
    after_previous(OVERLAP)
    across: tl.constexpr = (W + COLS - 1) // COLS
    offset = tl.program_id(2).to(tl.int64) * (H * W * C)
    x_ptr += offset
    a_ptr += offset
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    col = tl.program_id(0) % across * COLS + tl.arange(0, COLS)
    row = tl.program_id(0) // across * PIXELS + tl.zeros_like(col)
    sums = ()
    for _ in tl.static_range(PIXELS):
        sums += (tl.zeros((COLS, CHANNELS), tl.float32) + tl.load(bias_ptr + c)[None, :],)
    for dx in tl.static_range(5):
        x = ()
        for y in tl.static_range(PIXELS + 4):
            x += (load_pixels(x_ptr, row + (y - 2), col + (dx - 2), c, C, H, W),)
        sums = convolve(sums, x, filters_ptr + dx * C, c, 5, 0, 5, PIXELS, C)
    for y in tl.static_range(PIXELS):
        place = ((row + y) * W + col)[:, None] * C + c[None, :]
        tl.store(a_ptr + place, sums[y], mask=((row + y < H) & (col < W))[:, None])


@triton.jit
def rows_kernel(a_ptr, filters_ptr, rows_ptr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, PIXELS: tl.constexpr,
                COLS: tl.constexpr, CHANNELS: tl.constexpr, OVERLAP: tl.constexpr):  # fmt: skip
    """Grid (tiles of COLS x PIXELS neighbors, C / CHANNELS, B): the 1x7, 1x11 and 1x21 of a.  rows (B, 3, H, W, C)."""
    after_previous(OVERLAP)
    # Groups of PIXELS neighbors in a row of the map.
    groups: tl.constexpr = (W + PIXELS - 1) // PIXELS
    offset = tl.program_id(2).to(tl.int64) * (H * W * C)
    a_ptr += offset
    rows_ptr += 3 * offset
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    group = tl.program_id(0) * COLS + tl.arange(0, COLS)
    row, col = group // groups, group % groups * PIXELS
    a = ()
    for x in tl.static_range(PIXELS + 20):
        a += (load_pixels(a_ptr, row, col + (x - 10), c, C, H, W),)
    for n in tl.static_range(3):
        sums = ()
        for _ in tl.static_range(PIXELS):
            sums += (tl.zeros((COLS, CHANNELS), tl.float32),)
        # The 1xn of a strip comes after its nx1.
        table = filters_ptr + (TAPS_OF[n] + LENGTHS[n]) * C
        sums = convolve(sums, a, table, c, 1, 10 - LENGTHS[n] // 2, LENGTHS[n], PIXELS, C)
        for x in tl.static_range(PIXELS):
            place = (n * H * W + row * W + col + x)[:, None] * C + c[None, :]
            inside = ((row < H) & (col + x < W))[:, None]
            tl.store(rows_ptr + place, sums[x].to(rows_ptr.dtype.element_ty), mask=inside)


@triton.jit
def columns_kernel(a_last_ptr, rows_ptr, filters_ptr, row_bias_ptr, a_ptr, s_ptr, C: tl.constexpr, H: tl.constexpr,
                   W: tl.constexpr, PIXELS: tl.constexpr, COLS: tl.constexpr, CHANNELS: tl.constexpr,
                   OVERLAP: tl.constexpr):  # fmt: skip
    """Grid (tiles of PIXELS x COLS, C / CHANNELS, B): s = a + the 7x1, 11x1 and 21x1 of the rows' results + row_bias.

    Writes ``a`` less the map's level, and ``s``, both (B, C, H, W).
    """
    after_previous(OVERLAP)
    across: tl.constexpr = (W + COLS - 1) // COLS
    offset = tl.program_id(2).to(tl.int64) * (H * W * C)
    a_last_ptr += offset
    rows_ptr += 3 * offset
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    col = tl.program_id(0) % across * COLS + tl.arange(0, COLS)
    row = tl.program_id(0) // across * PIXELS + tl.zeros_like(col)
    point = tl.arange(0, POINTS * POINTS)
    level_row = (2 * (point // POINTS) + 1) * H // (2 * POINTS)
    level_col = (2 * (point % POINTS) + 1) * W // (2 * POINTS)
    level = tl.sum(load_pixels(a_last_ptr, level_row, level_col, c, C, H, W), 0)[None, :] / (POINTS * POINTS)
    sums = ()
    for y in tl.static_range(PIXELS):
        a = load_pixels(a_last_ptr, row + y, col, c, C, H, W)
        place = offset + c[None, :] * (H * W) + ((row + y) * W + col)[:, None]
        tl.store(a_ptr + place, (a - level).to(a_ptr.dtype.element_ty), mask=((row + y < H) & (col < W))[:, None])
        bias = tl.load(row_bias_ptr + c[None, :] * H + (row + y)[:, None], mask=(row + y < H)[:, None], other=0.0)
        sums += (a + bias,)
    for n in tl.static_range(3):
        values = ()
        for y in tl.static_range(PIXELS + LENGTHS[n] - 1):
            values += (load_pixels(rows_ptr + n * H * W * C, row + (y - LENGTHS[n] // 2), col, c, C, H, W),)
        sums = convolve(sums, values, filters_ptr + TAPS_OF[n] * C, c, 1, 0, LENGTHS[n], PIXELS, C)
    for y in tl.static_range(PIXELS):
        place = offset + c[None, :] * (H * W) + ((row + y) * W + col)[:, None]
        tl.store(s_ptr + place, sums[y].to(s_ptr.dtype.element_ty), mask=((row + y < H) & (col < W))[:, None])


def launch(
    shape: Shape, *, pixels: int = 4, columns: int = 16, channels: int = 32, warps: int = 4
) -> tuple[Launch, Launch, Launch]:
    """Describe the launches: tiles of ``columns`` x ``channels``, and ``pixels`` neighbors of each in a thread."""
    channels = block(shape, channels)
    constants = {
        "C": shape.channels, "H": shape.height, "W": shape.width, "PIXELS": pixels, "COLS": columns,
        "CHANNELS": channels,
    }  # fmt: skip
    tiles = -(-shape.height // pixels) * -(-shape.width // columns)
    groups = -(-shape.height * -(-shape.width // pixels) // columns)
    steps = (
        (center_kernel, tiles, ("x_last", "filters_last", "bias", "a_last"), 1),
        (rows_kernel, groups, ("a_last", "filters_last", "rows_last"), 1),
        (columns_kernel, tiles, ("a_last", "rows_last", "filters_last", "row_bias", "a", "s"), 2),
    )
    first, second, third = (
        Launch(kernel, (count, shape.channels // channels), arguments(shape, *names), outputs, constants, warps)
        for kernel, count, names, outputs in steps
    )
    return first, second, third


@torch.library.custom_op("lsms_rt::depthwise_last", mutates_args=(), device_types="cuda")
def depthwise_last(x: Tensor, filters: Tensor, bias: Tensor, row_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``a`` minus its level (an approximate channel mean), and ``s``, both (B, C, H, W), type as ``x``.

    ``x`` (B, H, W, C) fp16 or fp32, contiguous: ``x.permute(0, 2, 3, 1)`` of a map in PyTorch's channels_last format.
    ``filters`` (103, C) from ``pack_taps``, ``bias`` (C,) of the 5x5 and ``row_bias`` (C, H), float32.
    """
    batch, height, width, channels = x.shape
    a, s = x.new_empty(batch, channels, height, width), x.new_empty(batch, channels, height, width)
    a_last = torch.empty_like(x, dtype=torch.float32)
    rows = x.new_empty(batch, 3, height, width, channels)
    first, second, third = planned(launch, shape_of(a))
    first(batch, x, filters, bias, a_last)
    second(batch, a_last, filters, rows)
    third(batch, a_last, rows, filters, row_bias, a, s)
    return a, s


@depthwise_last.register_kernel("cpu")
def plain(x: Tensor, filters: Tensor, bias: Tensor, row_bias: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the same in plain PyTorch, in x's type: the twin."""
    taps = filters.to(x.dtype).T[:, None]
    strips, first = [], 25
    for n in STRIPS:
        column, row = taps[..., first : first + n], taps[..., first + n : first + 2 * n]
        strips.append((row[..., None, :], column[..., None]))
        first += 2 * n
    center = taps[..., :25].unflatten(-1, (5, 5))
    return depthwise.convolve(x.permute(0, 3, 1, 2).contiguous(), center, strips, bias, row_bias)


@depthwise_last.register_fake
def _(x: Tensor, filters: Tensor, bias: Tensor, row_bias: Tensor) -> tuple[Tensor, Tensor]:
    batch, height, width, channels = x.shape
    return x.new_empty(batch, channels, height, width), x.new_empty(batch, channels, height, width)


def pack_taps(weights: SvlaWeights, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pack a block's depthwise filters into rows of channels (103, C): the 5x5, then for n = 7, 11, 21 nx1 and 1xn."""
    filters = [weights.center[0]]
    for (row_weight, _), (column_weight, _) in weights.strips:
        filters += [column_weight, row_weight]
    return torch.cat([weight.flatten(1) for weight in filters], 1).T.to(dtype).contiguous()
