"""Fold the query's projection and its InstanceNorm into the keys: scores = folded keys . a + offset.

keys . (Wq a - mean) / sigma = (keys / sigma) Wq . a - (keys / sigma) . mean.  T x C numbers per image, not C x P.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lsms_rt.model.folded import wide
from lsms_rt.model.functional import MASKED

from .launch import Launch, precision, shape_of_rows
from .moments import join_moments, join_tile, merge, scale_rows, scaled, statistics_type
from .shape import Shape, chunk_of
from .tensors import arguments
from .tuned_tiles import planned

MASKED_SCORE = tl.constexpr(MASKED)


@triton.jit
def score_offset(apart, mask):
    """What is added to every token's scores: minus its key times the query's mean, and -1e4 for padding."""
    return (mask - 1.0) * -MASKED_SCORE - apart


@triton.jit
def fold_keys_kernel(
    moments_ptr, query_ptr, keys_ptr, mask_ptr, folded_ptr, offset_ptr,
    C: tl.constexpr, P: tl.constexpr, T: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (C / BLOCK_N, 1, B).  query (C, C); keys, folded (B, T, C); mask, offset (B, T) float32."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    b = tl.program_id(2).to(tl.int64)
    t = tl.arange(0, T)
    keys_ptr += b * T * C
    folded_ptr += b * T * C
    count: tl.constexpr = (P + CHUNK - 1) // CHUNK
    folded = tl.zeros((T, BLOCK_N), tl.float32)
    apart = tl.zeros((T, BLOCK_K), tl.float32)
    for start in range(0, C, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        weight = tl.load(query_ptr + k[:, None] * C + n[None, :], mask=(k < C)[:, None], other=0.0)
        keys = tl.load(keys_ptr + t[:, None] * C + k[None, :], mask=(k < C)[None, :], other=0.0)
        mean, scale = join_moments(moments_ptr + b * count * (2 * C), k, C, P, CHUNK, PARTS)
        keys = scaled(keys, scale, weight.dtype)
        apart += keys.to(tl.float32) * mean[None, :]
        folded = tl.dot(keys, weight, folded, input_precision=PRECISION)
    tl.store(folded_ptr + t[:, None] * C + n[None, :], folded.to(folded_ptr.dtype.element_ty))
    if tl.program_id(0) == 0:
        mask = tl.load(mask_ptr + b * T + t)
        tl.store(offset_ptr + b * T + t, score_offset(tl.sum(apart, 1), mask))


def launch(
    shape: Shape,
    *,
    n: int | None = None,
    k: int | None = None,
    parts: int | None = None,
    warps: int | None = None,
    stages: int | None = None,
) -> Launch:
    """Describe the launch: tiles of ``n`` channels; ``k`` channels and ``parts`` chunks of moments per step."""
    tile = join_tile(shape, k)
    n = n or tile.n
    return Launch(
        fold_keys_kernel,
        (shape.channels // n, 1),
        arguments(shape, "statistics", "query", "keys", "mask", "folded_keys", "offset"),
        2,
        {
            "C": shape.channels, "P": shape.pixels, "T": shape.tokens, "CHUNK": shape.chunk,
            "BLOCK_N": n, "BLOCK_K": tile.k, "PARTS": parts or tile.parts, "PRECISION": precision(shape),
        },
        warps or tile.warps,
        stages or tile.stages,
    )  # fmt: skip


@torch.library.custom_op("lsms_rt::fold_keys", mutates_args=(), device_types="cuda")
def fold_keys(moments: Tensor, query: Tensor, keys: Tensor, mask: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Compute folded keys (B, T, C), and the offset (B, T) float32 of every token's scores, which also masks padding.

    ``moments`` (B, n, 2, C) from ``query_statistics`` of maps of ``pixels`` pixels;
    ``query`` (C, C); ``keys`` (B, T, C) from ``fold_sentence``; ``mask`` (B, T) float32, 1 for a token.
    """
    shape = shape_of_rows(keys, pixels)
    folded, offset = torch.empty_like(keys), torch.empty_like(mask)
    planned(launch, shape)(keys.shape[0], moments, query, keys, mask, folded, offset)
    return folded, offset


@fold_keys.register_kernel("cpu")
def plain(moments: Tensor, query: Tensor, keys: Tensor, mask: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Compute the same in plain PyTorch: the twin."""
    mean, scale = merge(moments, pixels, chunk_of(pixels))
    rows = scale_rows(keys, scale)
    offset = (wide(mask) - 1.0) * -MASKED - (rows * mean[:, None]).sum(2)
    return torch.matmul(rows, query), offset


@fold_keys.register_fake
def _(moments: Tensor, query: Tensor, keys: Tensor, mask: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(keys), mask.new_empty(mask.shape, dtype=statistics_type(keys))
