"""Mean and variance over the pixels in parts: the InstanceNorm statistics that kernels exchange.

A *moments* tensor (B, n, 2, C) float32 holds, for each of n consecutive chunks of pixels, mean and sum of squared
deviations of C channels: a kernel writes one chunk per program, and the next kernel joins them about the common mean
(Chan, Golub, LeVeque 1979).  No large, nearly equal numbers are subtracted; there are no atomics, so that sums have one
order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lsms_rt.model.folded import wide
from lsms_rt.model.functional import EPS

EPSILON = tl.constexpr(EPS)


@triton.jit
def write_moments(moments, x, valid, channel, C: tl.constexpr):
    """Store moments of a tile ``x`` (channels, pixels) over its valid pixels, at chunk pointer ``moments`` (2, C)."""
    keep = valid[None, :]
    mean = tl.sum(tl.where(keep, x, 0.0), 1) / tl.sum(valid.to(tl.float32), 0)
    deviation = tl.where(keep, x - mean[:, None], 0.0)
    tl.store(moments + channel, mean)
    tl.store(moments + C + channel, tl.sum(deviation * deviation, 1))


@triton.jit
def join_moments(moments, channel, C: tl.constexpr, P: tl.constexpr, CHUNK: tl.constexpr, PARTS: tl.constexpr):
    """Mean and 1 / sqrt(variance + eps) of some channels, from all chunks of one image, ``PARTS`` at a time."""
    count: tl.constexpr = (P + CHUNK - 1) // CHUNK
    total = tl.zeros_like(channel).to(tl.float32)
    for start in range(0, count, PARTS):
        part = start + tl.arange(0, PARTS)
        size = tl.where(part < count, tl.minimum(P - part * CHUNK, CHUNK), 0).to(tl.float32)[:, None]
        place = moments + part[:, None] * (2 * C) + channel[None, :]
        total += tl.sum(size * tl.load(place, mask=(part < count)[:, None], other=0.0), 0)
    mean = total / P
    squares = tl.zeros_like(total)
    for start in range(0, count, PARTS):
        part = start + tl.arange(0, PARTS)
        there = (part < count)[:, None]
        size = tl.where(part < count, tl.minimum(P - part * CHUNK, CHUNK), 0).to(tl.float32)[:, None]
        place = moments + part[:, None] * (2 * C) + channel[None, :]
        apart = tl.load(place, mask=there, other=0.0) - mean[None, :]
        squares += tl.sum(tl.load(place + C, mask=there, other=0.0) + size * apart * apart, 0)
    return mean, tl.rsqrt(squares / P + EPSILON)


def moments(x: Tensor, chunk: int) -> Tensor:
    """Compute ``write_moments`` for all chunks in plain PyTorch: x (B, C, P) -> (B, n, 2, C)."""
    parts = [wide(part) for part in x.split(chunk, dim=2)]
    means = [part.mean(2) for part in parts]
    squares = [(part - mean[:, :, None]).square().sum(2) for part, mean in zip(parts, means, strict=True)]
    return torch.stack([torch.stack(pair, 1) for pair in zip(means, squares, strict=True)], 1)


def merge(statistics: Tensor, pixels: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Compute ``join_moments`` in plain PyTorch: mean and 1 / sqrt(variance + eps) over all ``pixels``, both (B, C)."""
    sizes = [min(chunk, pixels - start) for start in range(0, pixels, chunk)]
    share = torch.tensor(sizes, dtype=statistics.dtype, device=statistics.device)[None, :, None]
    mean = (statistics[:, :, 0] * share).sum(1) / pixels
    between = ((statistics[:, :, 0] - mean[:, None]).square() * share).sum(1)
    return mean, ((statistics[:, :, 1].sum(1) + between) / pixels + EPS).rsqrt()


def statistics_type(x: Tensor) -> torch.dtype:
    """Return the type of moments and offsets for maps of x's type."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
