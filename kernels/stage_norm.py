"""The LayerNorm over the channels at the end of a stage, channels first: no map is permuted for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from lsms_rt.model.functional import EPS

from .launch import Launch, padded, rest_of
from .moments import EPSILON
from .shape import RestShape
from .tensors import arguments
from .tuned_tiles import planned


@triton.jit
def stage_norm_kernel(
    x_ptr, scale_ptr, shift_ptr, y_ptr, C: tl.constexpr, P: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Grid (P / BLOCK_P, 1, B).  x, y (B, C, P); scale, shift (C,); BLOCK_C is at least C."""
    pixel = (tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P))[None, :]
    c = tl.arange(0, BLOCK_C)[:, None]
    place = tl.program_id(2).to(tl.int64) * C * P + c * P + pixel
    valid = (c < C) & (pixel < P)
    x = tl.load(x_ptr + place, mask=valid, other=0.0).to(tl.float32)
    apart = tl.where(valid, x - tl.sum(x, 0)[None, :] / C, 0.0)
    y = apart * tl.rsqrt(tl.sum(apart * apart, 0)[None, :] / C + EPSILON)
    scale = tl.load(scale_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    shift = tl.load(shift_ptr + c, mask=c < C, other=0.0).to(tl.float32)
    tl.store(y_ptr + place, (scale * y + shift).to(y_ptr.dtype.element_ty), mask=valid)


def launch(shape: RestShape, *, pixels: int | None = None, warps: int = 4) -> Launch:
    """Describe the launch: tiles of all channels by ``pixels``."""
    channels = padded(shape.channels)
    pixels = pixels or (32 if channels <= 128 else 16)
    return Launch(
        stage_norm_kernel,
        (-(-shape.pixels // pixels), 1),
        arguments(shape, "x", "stage_scale", "stage_shift", "normed"),
        1,
        {"C": shape.channels, "P": shape.pixels, "BLOCK_C": channels, "BLOCK_P": pixels},
        warps,
    )


@torch.library.custom_op("lsms_rt::stage_norm", mutates_args=(), device_types="cuda")
def stage_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalize the channels of every pixel.  ``x`` (B, C, H, W); ``scale``, ``shift`` (C,), type as ``x``."""
    y = torch.empty_like(x)
    planned(launch, rest_of(x))(x.shape[0], x, scale, shift, y)
    return y


@stage_norm.register_kernel("cpu")
def plain(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Compute the same in plain PyTorch: the twin."""
    last = F.layer_norm(x.permute(0, 2, 3, 1), scale.shape, scale, shift, EPS)
    return last.permute(0, 3, 1, 2).contiguous()


@stage_norm.register_fake
def _(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.empty_like(x)
