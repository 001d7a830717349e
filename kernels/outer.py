"""The 1x1 after SVLA, with BatchNorm, the layer scale and both shortcuts: z = W y + b + shortcut x."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Launch, rest_of
from .pointwise import launch_of, product, times
from .shape import RestShape
from .tuned_tiles import planned


@triton.jit
def outer_kernel(
    y_ptr, x_ptr, weight_ptr, bias_ptr, shortcut_ptr, z_ptr, K: tl.constexpr, N: tl.constexpr, P: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (P / BLOCK_P, N / BLOCK_N, B).  y (B, K, P); x, z (B, N, P); weight (N, K); bias, shortcut (N,) float32."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    b = tl.program_id(2).to(tl.int64)
    z = product(y_ptr + b * K * P, weight_ptr, bias_ptr, n, pixel, K, P, BLOCK_K, PRECISION)
    place = b * N * P + n[:, None] * P + pixel[None, :]
    valid = (pixel < P)[None, :]
    z += tl.load(shortcut_ptr + n)[:, None] * tl.load(x_ptr + place, mask=valid, other=0.0).to(tl.float32)
    tl.store(z_ptr + place, z.to(z_ptr.dtype.element_ty), mask=valid)


def launch(shape: RestShape, **tiles: Any) -> Launch:
    """Describe the launch; ``tiles`` as in ``pointwise.launch_of``."""
    names = ("y", "x", "outer", "outer_bias", "shortcut", "z")
    return launch_of(outer_kernel, shape, names, shape.channels, shape.channels, **tiles)


@torch.library.custom_op("lsms_rt::outer", mutates_args=(), device_types="cuda")
def outer(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor) -> Tensor:
    """Compute W y + b + shortcut x.

    ``y``, ``x`` (B, C, H, W); ``weight`` (C, C); ``bias``, ``shortcut`` (C,) float32 -> (B, C, H, W).
    """
    z = torch.empty_like(x)
    planned(launch, rest_of(x))(x.shape[0], y, x, weight, bias, shortcut, z)
    return z


@outer.register_kernel("cpu")
def plain(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor) -> Tensor:
    """Compute the same in plain PyTorch: the twin."""
    # In the biases' type, and rounded once.
    start = torch.addcmul(bias[:, None, None], shortcut[:, None, None], x, out=torch.empty_like(x))
    return times(weight, y, start)


@outer.register_fake
def _(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor) -> Tensor:
    return torch.empty_like(x)
