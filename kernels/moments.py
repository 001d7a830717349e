"""Mean and variance over the pixels in parts: the InstanceNorm statistics that kernels exchange.

A *moments* tensor (B, n, 2, C) float32 holds, for each of n consecutive chunks of pixels, mean and sum of squared
deviations of C channels: a kernel writes one chunk per program, and the next kernel joins them about the common mean
(Chan, Golub, LeVeque 1979).  No large, nearly equal numbers are subtracted; there are no atomics, so that sums have one
order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from lsms_rt.model.folded import wide
from lsms_rt.model.functional import EPS

from .launch import padded
from .shape import Shape

EPSILON = tl.constexpr(EPS)
# A channel is dead if its normalized values are below 2e-3, about what fp16 rounds away from those of a live channel:
# 1 / sigma is then within 2e-6 of its limit, 316.
DEAD = (1 - 2e-6) * EPS**-0.5
DEAD_SCALE = tl.constexpr(DEAD)


@dataclass(frozen=True, kw_only=True)
class JoinTile:
    """Tile sizes of a kernel that joins moments, and multiplies T x C numbers scaled by them by a C x C weight.

    Attributes:
        n: channels of a program.
        k: channels per step of the sum.
        parts: chunks of moments per step.
        warps: warps per program.
        stages: stages of software pipelining.
    """

    n: int
    k: int
    parts: int
    warps: int
    stages: int


def join_tile(shape: Shape, k: int | None = None) -> JoinTile:
    """Return the default tile sizes at a shape."""
    whole = padded(shape.channels)
    if shape.dtype == "fp32":
        # Moments are loaded while the step before computes; more of them exceed the shared memory.
        k, numbers, stages = k or min(whole, 64), 4096, 2
    elif shape.tokens <= 32:
        # All channels in one step.
        k, numbers, stages = k or whole, 16384, 1
    else:
        # More channels in a step exceed 48 KiB.
        k, numbers, stages = k or min(whole, 256), 8192, 1
    parts = min(padded(shape.chunks), numbers // k)
    return JoinTile(n=16, k=k, parts=parts, warps=8 if parts * k <= 8192 else 16, stages=stages)


@triton.jit
def scaled(x, scale, dtype: tl.constexpr):
    """Rows (T, channels) times 1 / sigma of every channel, in ``dtype``, in which a dead channel stays finite.

    A dead channel's deviation is zero, so its scaled rows multiply zeros: of infinity they would make NaN, of fp16's
    largest number they make the zero that is right.  Whatever else exceeds fp16 becomes infinite, so that the result
    is refused: a clamp would give another mask.
    """
    x = x.to(tl.float32) * scale[None, :]
    if dtype == tl.float16:
        x = tl.where((scale > DEAD_SCALE)[None, :], tl.clamp(x, -65504.0, 65504.0, tl.PropagateNan.ALL), x)
    return x.to(dtype)


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
    """Mean and 1 / sqrt(variance + eps) of some channels, from all chunks of one image, each read once.

    ``PARTS`` chunks are joined from registers, and blocks of them one after another.  Channels from C on, which fill a
    tile up, have mean 0 and scale 0.
    """
    count: tl.constexpr = (P + CHUNK - 1) // CHUNK
    mean = tl.zeros_like(channel).to(tl.float32)
    squares = mean
    for start in range(0, count, PARTS):
        part = start + tl.arange(0, PARTS)
        there = (part < count)[:, None] & (channel < C)[None, :]
        size = tl.where(part < count, tl.minimum(P - part * CHUNK, CHUNK), 0).to(tl.float32)[:, None]
        place = moments + part[:, None] * (2 * C) + channel[None, :]
        means = tl.load(place, mask=there, other=0.0)
        within = tl.load(place + C, mask=there, other=0.0)
        # Pixels before this block, and up to its end.
        before = start * CHUNK
        pixels = tl.minimum(before + PARTS * CHUNK, P)
        block = tl.sum(size * means, 0) / (pixels - before)
        apart = means - block[None, :]
        shift = block - mean
        share = (pixels - before) / pixels
        squares += tl.sum(within + size * apart * apart, 0) + shift * shift * (before * share)
        mean += shift * share
    return mean, tl.where(channel < C, tl.rsqrt(squares / P + EPSILON), 0.0)


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


def scale_rows(x: Tensor, scale: Tensor) -> Tensor:
    """Compute ``scaled`` in plain PyTorch: x (B, T, C), scale (B, C) -> type and size of x."""
    rows, limit = x * scale[:, None], torch.finfo(x.dtype).max
    if x.dtype == torch.float16:
        rows = torch.where((scale > DEAD)[:, None], rows.clamp(-limit, limit), rows)
    return rows.to(x.dtype)


def statistics_type(x: Tensor) -> torch.dtype:
    """Return the type of moments and offsets for maps of x's type."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
