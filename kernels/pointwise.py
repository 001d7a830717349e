"""What all 1x1s of a block share: one product W x per tile, its tiles, and the exact GELU.

Maps stay channels first: the pixels of a channel are contiguous, so a 1x1 is a matrix product with a slice as it is.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Launch, precision
from .shape import RestShape
from .tensors import arguments

# (channels, pixels) of a tile; the first one that gives at least PROGRAMS programs for one slice, or the last one.
TILES = ((64, 64), (64, 32), (32, 32))
PROGRAMS = 128


@triton.jit
def gelu(x):
    """x times the normal distribution, exactly: ``torch.nn.GELU``."""
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def product(
    x_ptr, weight_ptr, bias_ptr, n, pixel, K: tl.constexpr, P: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """W x + b in float32, for channels ``n`` and some pixels of one slice.  x (K, P); weight (N, K); bias (N,)."""
    y = tl.zeros((n.shape[0], pixel.shape[0]), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        weight = tl.load(weight_ptr + n[:, None] * K + k[None, :])
        x = tl.load(x_ptr + k[:, None] * P + pixel[None, :], mask=(pixel < P)[None, :], other=0.0)
        y = tl.dot(weight, x, y, input_precision=PRECISION)
    return y + tl.load(bias_ptr + n)[:, None]


def launch_of(
    kernel: Any, shape: RestShape, names: tuple[str, ...], sources: int, targets: int, *, n: int | None = None,
    k: int | None = None, pixels: int | None = None, warps: int = 4, stages: int | None = None,
) -> Launch:  # fmt: skip
    """Describe the launch of a 1x1 from ``sources`` to ``targets`` channels; the last of ``names`` is written.

    Tiles have ``n`` channels and ``pixels``; the sum has ``k`` channels per step.
    """
    at = default_tiles(shape, targets)
    n, pixels = n or at[0], pixels or at[1]
    # Three stages of 64 x 64 x 64 need 16 bytes more than 48 KiB on sm_100 and sm_110: a long sum gets four of half.
    large = n * pixels >= 64 * 64
    k = k or (64 if sources % 64 == 0 and shape.dtype == "fp16" and (sources <= 128 or not large) else 32)
    if stages is None:
        stages = {64 * 64: 2 if k == 64 else 4, 64 * 32: 3}.get(n * pixels, 5)
    return Launch(
        kernel,
        (-(-shape.pixels // pixels), targets // n),
        arguments(shape, *names),
        1,
        {
            "K": sources, "N": targets, "P": shape.pixels,
            "BLOCK_N": n, "BLOCK_K": k, "BLOCK_P": pixels, "PRECISION": precision(shape),
        },
        warps,
        stages,
    )  # fmt: skip


def default_tiles(shape: RestShape, targets: int) -> tuple[int, int]:
    """Return (channels, pixels) of a tile of ``targets`` channels: small enough to occupy a GPU with one slice."""
    fitting = [(n, p) for n, p in TILES if targets % n == 0]
    if shape.dtype == "fp32":
        return fitting[-1]
    enough = ((n, p) for n, p in fitting if (targets // n) * -(-shape.pixels // p) >= PROGRAMS)
    return next(enough, fitting[-1])


def times(weight: Tensor, x: Tensor, start: Tensor) -> Tensor:
    """Compute start + W x in plain PyTorch: one product by cuBLAS on a GPU.

    ``weight`` (N, K), ``x`` (B, K, H, W), ``start`` (B, N, H, W) or (N,), which is then the same for all pixels.
    """
    batch, _, height, width = x.shape
    start = start[None, :, None] if start.dim() == 1 else start.flatten(2)
    start = start.to(x.dtype)
    y = torch.baddbmm(start, weight.expand(batch, *weight.shape), x.flatten(2))
    return y.reshape(batch, len(weight), height, width)
