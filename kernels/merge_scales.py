"""The decoder's sum of four scales in one launch: merged = gelu(scale (x + up(y2) + up(y4) + up(y8)) + shift).

``up`` interpolates bilinearly to stride 4, where x is; ``scale`` and ``shift`` are a BatchNorm's.  A thread has one
pixel, whose neighbors in the smaller maps are the same for all channels of the program.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from lsms_rt.model.folded_block import Norm
from lsms_rt.model.packs import Packs

from .launch import Launch, decoder_shape_of
from .pointwise import gelu
from .shape import DecoderShape
from .tensors import arguments
from .tuned_tiles import planned


@triton.jit
def neighbors(at, SIZE: tl.constexpr, FACTOR: tl.constexpr):
    """The two neighbors, among SIZE, of positions on a grid FACTOR times as fine, and the second one's weight.

    A position is (at + 0.5) / FACTOR - 0.5, here in units of 1 / (2 FACTOR): integers, from which all follows exactly.
    """
    place = tl.maximum(2 * at + 1 - FACTOR, 0)
    first = place // (2 * FACTOR)
    return first, tl.minimum(first + 1, SIZE - 1), (place % (2 * FACTOR)).to(tl.float32) / (2 * FACTOR)


@triton.jit
def upsampled(x_ptr, row, col, valid, H: tl.constexpr, W: tl.constexpr, FACTOR: tl.constexpr):
    """Bilinear interpolation of one channel (H, W) at rows and columns of a map FACTOR times as large."""
    top, bottom, down = neighbors(row, H, FACTOR)
    left, right, across = neighbors(col, W, FACTOR)
    a = tl.load(x_ptr + top * W + left, mask=valid, other=0.0).to(tl.float32)
    b = tl.load(x_ptr + top * W + right, mask=valid, other=0.0).to(tl.float32)
    c = tl.load(x_ptr + bottom * W + left, mask=valid, other=0.0).to(tl.float32)
    d = tl.load(x_ptr + bottom * W + right, mask=valid, other=0.0).to(tl.float32)
    upper = a + across * (b - a)
    return upper + down * (c + across * (d - c) - upper)


@triton.jit
def merge_scales_kernel(
    x_ptr, y2_ptr, y4_ptr, y8_ptr, scale_ptr, shift_ptr, merged_ptr,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, CHANNELS: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Grid (H W / BLOCK_P, C / CHANNELS, B).  x, merged (B, C, H, W); yn (B, C, H / n, W / n); scale, shift (C,)."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    row, col, valid = pixel // W, pixel % W, pixel < H * W
    first = tl.program_id(2).to(tl.int64) * C + tl.program_id(1) * CHANNELS
    for step in tl.static_range(CHANNELS):
        # Of all maps of all slices.
        plane = first + step
        y = tl.load(x_ptr + plane * (H * W) + pixel, mask=valid, other=0.0).to(tl.float32)
        y += upsampled(y2_ptr + plane * (H * W // 4), row, col, valid, H // 2, W // 2, 2)
        y += upsampled(y4_ptr + plane * (H * W // 16), row, col, valid, H // 4, W // 4, 4)
        y += upsampled(y8_ptr + plane * (H * W // 64), row, col, valid, H // 8, W // 8, 8)
        c = tl.program_id(1) * CHANNELS + step
        y = gelu(tl.load(scale_ptr + c) * y + tl.load(shift_ptr + c))
        tl.store(merged_ptr + plane * (H * W) + pixel, y.to(merged_ptr.dtype.element_ty), mask=valid)


def launch(shape: DecoderShape, *, channels: int = 4, warps: int = 4) -> Launch:
    """Describe the launch: a pixel a thread, and ``channels`` a program."""
    pixels = 32 * warps
    return Launch(
        merge_scales_kernel,
        (-(-shape.pixels // pixels), shape.channels // channels),
        arguments(shape, "x", "y2", "y4", "y8", "merge_scale", "merge_shift", "merged"),
        1,
        {"C": shape.channels, "H": shape.height, "W": shape.width, "CHANNELS": channels, "BLOCK_P": pixels},
        warps,
    )


@torch.library.custom_op("lsms_rt::merge_scales", mutates_args=(), device_types="cuda")
def merge_scales(x: Tensor, y2: Tensor, y4: Tensor, y8: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Compute the sum of four scales, (B, C, H, W).

    ``x`` (B, C, H, W); ``yn`` (B, C, H / n, W / n); ``scale``, ``shift`` (C,) float32.
    """
    merged = torch.empty_like(x)
    planned(launch, decoder_shape_of(x))(x.shape[0], x, y2, y4, y8, scale, shift, merged)
    return merged


@merge_scales.register_kernel("cpu")
def plain(x: Tensor, y2: Tensor, y4: Tensor, y8: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Compute the same in plain PyTorch: the twin."""
    y = x
    for factor, small in ((2.0, y2), (4.0, y4), (8.0, y8)):
        y = y + F.interpolate(small, scale_factor=factor, mode="bilinear", align_corners=False)
    return F.gelu(scale[:, None, None].to(y.dtype) * y + shift[:, None, None].to(y.dtype))


@merge_scales.register_fake
def _(x: Tensor, y2: Tensor, y4: Tensor, y8: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.empty_like(x)


class TritonScales:
    """The form that runs the kernel (``lsms_rt.model.forms``), with the BatchNorm as a factor and a summand."""

    def __init__(self) -> None:
        self.packs: Packs[tuple[Tensor, Tensor]] = Packs()

    def __call__(self, maps: list[Tensor], norm: Norm) -> Tensor:
        scale, shift = self.packs.get("scales", norm.tensors(), norm.factors)
        x, y2, y4, y8 = (y.contiguous() for y in maps)
        return merge_scales(x, y2, y4, y8, scale, shift)
