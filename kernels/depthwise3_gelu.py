"""The middle of the MLP in one pass: activated = gelu(3x3(wide) + b), a depthwise convolution with zero padding.

A program walks down some rows of a few channels and loads each row once: the row is added, with one row of taps each,
to the three rows of the result that it is a neighbor of.  A thread has two pixels side by side, so that they share what
they load.  Nothing is exchanged between threads, and rows do not wait for each other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .launch import Launch, padded, rest_of
from .pointwise import gelu
from .shape import RestShape
from .tensors import arguments
from .tuned_tiles import planned

# Pixels of a program's row, over its channels: two for each of 128 threads.
TILE = 256


@triton.jit
def three(taps):
    """One row of the 3x3, for every pair of pixels: three taps."""
    return tl.load(taps).to(tl.float32), tl.load(taps + 1).to(tl.float32), tl.load(taps + 2).to(tl.float32)


@triton.jit
def depthwise3_gelu_kernel(
    wide_ptr, taps_ptr, bias_ptr, y_ptr, E: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Grid (H / ROWS, E / CHANNELS, B).  wide, y (B, E, H, W); taps (E, 9); bias (E,) float32."""
    # Pairs of pixels, channel after channel; all that follows is of one pair a thread.
    pair = tl.arange(0, CHANNELS * COLS // 2)
    c = tl.program_id(1) * CHANNELS + pair // (COLS // 2)
    even = pair % (COLS // 2) * 2
    odd = even + 1
    both = even[:, None] + tl.arange(0, 2)[None, :]
    image = tl.program_id(2).to(tl.int64) * (E * H * W) + c * (H * W)
    # A block of one row, since masks are blocks.
    first = tl.program_id(0) * ROWS + tl.arange(0, 1)
    bias = tl.load(bias_ptr + c)
    t0, t1, t2 = three(taps_ptr + c * 9)
    m0, m1, m2 = three(taps_ptr + c * 9 + 3)
    b0, b1, b2 = three(taps_ptr + c * 9 + 6)

    # Sums of the row above the one that is loaded, and of that one.
    above_even = tl.zeros_like(bias)
    above_odd, here_even, here_odd = above_even, above_even, above_even
    for step in tl.static_range(ROWS + 2):
        row = first + (step - 1)
        inside = (row >= 0) & (row < H)
        x_ptr = wide_ptr + image + row * W
        left = tl.load(x_ptr + even - 1, mask=inside & (even > 0) & (even <= W), other=0.0).to(tl.float32)
        x = tl.load(x_ptr[:, None] + both, mask=inside[:, None] & (both < W), other=0.0)
        x_even, x_odd = tl.split(x.to(tl.float32))
        right = tl.load(x_ptr + odd + 1, mask=inside & (odd + 1 < W), other=0.0).to(tl.float32)
        if step >= 2:
            y_even = gelu(above_even + b0 * left + b1 * x_even + b2 * x_odd)
            y_odd = gelu(above_odd + b0 * x_even + b1 * x_odd + b2 * right)
            place = (y_ptr + image + (row - 1) * W)[:, None] + both
            y = tl.join(y_even, y_odd).to(y_ptr.dtype.element_ty)
            tl.store(place, y, mask=(row - 1 < H)[:, None] & (both < W))
        above_even = here_even + m0 * left + m1 * x_even + m2 * x_odd
        above_odd = here_odd + m0 * x_even + m1 * x_odd + m2 * right
        here_even = bias + t0 * left + t1 * x_even + t2 * x_odd
        here_odd = bias + t0 * x_even + t1 * x_odd + t2 * right


def launch(shape: RestShape, *, rows: int | None = None, pixels: int = TILE, warps: int = 4) -> Launch:
    """Describe the launch: ``rows`` a program, each of ``pixels`` over its channels."""
    columns = padded(shape.width)
    # The largest power of two that divides the channels is the limit.
    channels = max(1, min(pixels // columns, shape.expanded & -shape.expanded))
    # Two more are loaded than written.
    rows = rows or (8 if shape.height >= 32 else 4)
    return Launch(
        depthwise3_gelu_kernel,
        (-(-shape.height // rows), shape.expanded // channels),
        arguments(shape, "wide", "taps", "taps_bias", "activated"),
        1,
        {
            "E": shape.expanded, "H": shape.height, "W": shape.width,
            "ROWS": rows, "CHANNELS": channels, "COLS": columns,
        },
        warps,
    )  # fmt: skip


@torch.library.custom_op("lsms_rt::depthwise3_gelu", mutates_args=(), device_types="cuda")
def depthwise3_gelu(wide: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """Compute gelu(3x3(wide) + b).  ``wide`` (B, E, H, W); ``taps`` (E, 9), rows of the 3x3; ``bias`` (E,) float32."""
    activated = torch.empty_like(wide)
    planned(launch, rest_of(wide, 1))(wide.shape[0], wide, taps, bias, activated)
    return activated


@depthwise3_gelu.register_kernel("cpu")
def plain(wide: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """Compute the same in plain PyTorch: the twin."""
    weight = taps.reshape(-1, 1, 3, 3)
    return F.gelu(F.conv2d(wide, weight, bias.to(wide.dtype), padding=1, groups=len(weight)))


@depthwise3_gelu.register_fake
def _(wide: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(wide)
