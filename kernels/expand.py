"""The first 1x1 of the MLP, with BatchNorm in its weights: wide = W z + b, to several times the channels."""

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
def expand_kernel(
    z_ptr, weight_ptr, bias_ptr, wide_ptr, K: tl.constexpr, N: tl.constexpr, P: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (P / BLOCK_P, N / BLOCK_N, B).  z (B, K, P); weight (N, K); bias (N,) float32; wide (B, N, P)."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    b = tl.program_id(2).to(tl.int64)
    wide = product(z_ptr + b * K * P, weight_ptr, bias_ptr, n, pixel, K, P, BLOCK_K, PRECISION)
    place = wide_ptr + b * N * P + n[:, None] * P + pixel[None, :]
    tl.store(place, wide.to(wide_ptr.dtype.element_ty), mask=(pixel < P)[None, :])


def launch(shape: RestShape, **tiles: Any) -> Launch:
    """Describe the launch; ``tiles`` as in ``pointwise.launch_of``."""
    names = ("z", "expand", "expand_bias", "wide")
    return launch_of(expand_kernel, shape, names, shape.channels, shape.expanded, **tiles)


@torch.library.custom_op("lsms_rt::expand", mutates_args=(), device_types="cuda")
def expand(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute W z + b.  ``z`` (B, C, H, W); ``weight`` (E, C); ``bias`` (E,) float32 -> (B, E, H, W)."""
    wide = z.new_empty(z.shape[0], len(weight), *z.shape[2:])
    planned(launch, rest_of(z, len(weight) // z.shape[1]))(z.shape[0], z, weight, bias, wide)
    return wide


@expand.register_kernel("cpu")
def plain(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute the same in plain PyTorch: the twin."""
    return times(weight, z, bias)


@expand.register_fake
def _(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return z.new_empty(z.shape[0], len(weight), *z.shape[2:])
