"""The last 1x1 and the product with the block's input: y = (Wout u + b) x (for more than 128 channels)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Launch, block, pixels_of, precision, shape_of, stages_of
from .shape import Shape
from .tensors import arguments
from .tuned_tiles import planned


@triton.jit
def mix_kernel(
    u_ptr, x_ptr, mix_ptr, bias_ptr, y_ptr,
    C: tl.constexpr, P: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (P / BLOCK_P, C / BLOCK_N, B).  u, x, y (B, C, P); mix Wout (C, C); bias (C,) float32."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    b = tl.program_id(2).to(tl.int64)
    valid = (pixel < P)[None, :]
    u_ptr += b * C * P
    x_ptr += b * C * P
    y_ptr += b * C * P
    place = n[:, None] * P + pixel[None, :]
    # What is used after the loop arrives during it.
    x = tl.load(x_ptr + place, mask=valid, other=0.0)
    bias = tl.load(bias_ptr + n)
    y = tl.zeros((BLOCK_N, BLOCK_P), tl.float32)
    for start in range(0, C, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        weight = tl.load(mix_ptr + n[:, None] * C + k[None, :])
        u = tl.load(u_ptr + k[:, None] * P + pixel[None, :], mask=valid, other=0.0)
        y = tl.dot(weight, u, y, input_precision=PRECISION)
    y = (y + bias[:, None]) * x.to(tl.float32)
    tl.store(y_ptr + place, y.to(y_ptr.dtype.element_ty), mask=valid)


def launch(
    shape: Shape,
    *,
    n: int | None = None,
    k: int | None = None,
    pixels: int | None = None,
    warps: int = 4,
    stages: int | None = None,
) -> Launch:
    """Describe the launch: tiles of ``n`` channels by ``pixels``, and ``k`` channels per step of the sum."""
    n, k = n or block(shape), k or block(shape)
    pixels = pixels or pixels_of(shape)
    return Launch(
        mix_kernel,
        (-(-shape.pixels // pixels), shape.channels // n),
        arguments(shape, "u", "x", "mix", "mix_bias", "y"),
        1,
        {
            "C": shape.channels, "P": shape.pixels,
            "BLOCK_N": n, "BLOCK_K": k, "BLOCK_P": pixels, "PRECISION": precision(shape),
        },
        warps,
        stages or stages_of(shape),
    )  # fmt: skip


@torch.library.custom_op("lsms_rt::mix", mutates_args=(), device_types="cuda")
def mix(u: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute (Wout u + b) x.  ``u``, ``x`` (B, C, H, W); ``weight`` (C, C); ``bias`` (C,) float32 -> (B, C, H, W)."""
    y = torch.empty_like(x)
    planned(launch, shape_of(x))(x.shape[0], u, x, weight, bias, y)
    return y


@mix.register_kernel("cpu")
def plain(u: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute the same in plain PyTorch: the twin."""
    return (torch.matmul(weight, u.flatten(2)) + bias[:, None].to(u.dtype)).reshape(x.shape) * x


@mix.register_fake
def _(u: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.empty_like(x)
