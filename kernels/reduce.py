"""The last 1x1 of a block, with the layer scale in its weights and the shortcut: next = z + W activated + b."""

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
def reduce_kernel(
    activated_ptr, z_ptr, weight_ptr, bias_ptr, next_ptr, K: tl.constexpr, N: tl.constexpr, P: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (P / BLOCK_P, N / BLOCK_N, B).  activated (B, K, P); z, next (B, N, P); weight (N, K); bias (N,) float32."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    b = tl.program_id(2).to(tl.int64)
    change = product(activated_ptr + b * K * P, weight_ptr, bias_ptr, n, pixel, K, P, BLOCK_K, PRECISION)
    place = b * N * P + n[:, None] * P + pixel[None, :]
    valid = (pixel < P)[None, :]
    z = tl.load(z_ptr + place, mask=valid, other=0.0).to(tl.float32)
    tl.store(next_ptr + place, (z + change).to(next_ptr.dtype.element_ty), mask=valid)


def launch(shape: RestShape, **tiles: Any) -> Launch:
    """Describe the launch; ``tiles`` as in ``pointwise.launch_of``."""
    names = ("activated", "z", "reduce", "reduce_bias", "next")
    return launch_of(reduce_kernel, shape, names, shape.expanded, shape.channels, **tiles)


@torch.library.custom_op("lsms_rt::reduce", mutates_args=(), device_types="cuda")
def reduce(activated: Tensor, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute z + W activated + b.

    ``activated`` (B, E, H, W); ``z`` (B, C, H, W); ``weight`` (C, E); ``bias`` (C,) float32 -> (B, C, H, W).
    """
    result = torch.empty_like(z)
    shape = rest_of(z, activated.shape[1] // z.shape[1])
    planned(launch, shape)(z.shape[0], activated, z, weight, bias, result)
    return result


@reduce.register_kernel("cpu")
def plain(activated: Tensor, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute the same in plain PyTorch: the twin."""
    # In the bias's type, and rounded once.
    return times(weight, activated, torch.add(z, bias[:, None, None], out=torch.empty_like(z)))


@reduce.register_fake
def _(activated: Tensor, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(z)
