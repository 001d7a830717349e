"""The first 1x1 of a block, with BatchNorm in its weights: v = gelu(W x + b)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .launch import Launch, rest_of
from .pointwise import gelu, launch_of, product, times
from .shape import RestShape
from .tuned_tiles import planned


@triton.jit
def inner_kernel(
    x_ptr, weight_ptr, bias_ptr, v_ptr, K: tl.constexpr, N: tl.constexpr, P: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (P / BLOCK_P, N / BLOCK_N, B).  x (B, K, P); weight (N, K); bias (N,) float32; v (B, N, P)."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    b = tl.program_id(2).to(tl.int64)
    v = gelu(product(x_ptr + b * K * P, weight_ptr, bias_ptr, n, pixel, K, P, BLOCK_K, PRECISION))
    place = v_ptr + b * N * P + n[:, None] * P + pixel[None, :]
    tl.store(place, v.to(v_ptr.dtype.element_ty), mask=(pixel < P)[None, :])


def launch(shape: RestShape, **tiles: Any) -> Launch:
    """Describe the launch; ``tiles`` as in ``pointwise.launch_of``."""
    names = ("x", "inner", "inner_bias", "v")
    return launch_of(inner_kernel, shape, names, shape.channels, shape.channels, **tiles)


@torch.library.custom_op("lsms_rt::inner", mutates_args=(), device_types="cuda")
def inner(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute gelu(W x + b).  ``x`` (B, C, H, W); ``weight`` (C, C); ``bias`` (C,) float32 -> (B, C, H, W)."""
    v = torch.empty_like(x)
    planned(launch, rest_of(x))(x.shape[0], x, weight, bias, v)
    return v


@inner.register_kernel("cpu")
def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute the same in plain PyTorch: the twin."""
    return F.gelu(times(weight, x, bias))


@inner.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(x)
