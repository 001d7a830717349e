"""Scores, softmax over the tokens, and statistics of the attended values, in one pass over ``a``.

The output is p - 1/n (n tokens), not p: the shift is the same for all pixels, so the output's InstanceNorm cancels it,
and nearly uniform attention keeps its digits in fp16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lsms_rt.model.folded import wide

from .launch import Launch, block, precision, shape_of
from .moments import moments, statistics_type, write_moments
from .shape import Shape, chunk_of
from .tensors import arguments
from .tuned_tiles import planned


@triton.jit
def token_weights(scores, mask):
    """Softmax over the tokens (T, pixels) less 1/n for n tokens, and 0 at padding."""
    e = tl.exp(scores - tl.max(scores, 0)[None, :])
    tokens = tl.maximum(tl.sum(mask, 0), 1.0)
    return (e / tl.sum(e, 0)[None, :] - 1.0 / tokens) * mask[:, None]


@triton.jit
def token_attention_kernel(
    a_ptr, keys_ptr, offset_ptr, values_ptr, mask_ptr, p_ptr, moments_ptr,
    C: tl.constexpr, P: tl.constexpr, T: tl.constexpr, CHUNK: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (chunks, C / GROUP, B).  a (B, C, P); keys, values (B, T, C); offset, mask (B, T) float32; p (B, T, P)."""
    chunk = tl.program_id(0)
    group = tl.program_id(1)
    b = tl.program_id(2).to(tl.int64)
    t = tl.arange(0, T)
    pixel = chunk * CHUNK + tl.arange(0, CHUNK)
    valid = pixel < P
    a_ptr += b * C * P
    keys_ptr += b * T * C
    values_ptr += b * T * C
    p_ptr += b * T * P

    scores = tl.zeros((T, CHUNK), tl.float32)
    for start in range(0, C, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        a = tl.load(a_ptr + k[:, None] * P + pixel[None, :], mask=valid[None, :], other=0.0)
        keys = tl.load(keys_ptr + t[:, None] * C + k[None, :])
        scores = tl.dot(keys, a, scores, input_precision=PRECISION)
    scores += tl.load(offset_ptr + b * T + t)[:, None]
    p = token_weights(scores, tl.load(mask_ptr + b * T + t)).to(p_ptr.dtype.element_ty)
    # Every group of channels computes p, which costs less than a launch of its own; one writes it.
    if group == 0:
        tl.store(p_ptr + t[:, None] * P + pixel[None, :], p, mask=valid[None, :])

    count: tl.constexpr = (P + CHUNK - 1) // CHUNK
    for start in range(0, GROUP, BLOCK_N):
        n = group * GROUP + start + tl.arange(0, BLOCK_N)
        # (BLOCK_N, T).
        values = tl.load(values_ptr + t[None, :] * C + n[:, None])
        context = tl.dot(values, p, input_precision=PRECISION)
        write_moments(moments_ptr + (b * count + chunk) * (2 * C), context, valid, n, C)


def launch(
    shape: Shape,
    *,
    group: int | None = None,
    n: int | None = None,
    k: int | None = None,
    warps: int | None = None,
    stages: int | None = None,
) -> Launch:
    """Describe the launch: one chunk of pixels and ``group`` channels of moments per program, ``n`` at a time.

    ``k`` channels per step of the scores.
    """
    n, k = n or block(shape), k or block(shape)
    group = group or _group(shape, n)
    return Launch(
        token_attention_kernel,
        (shape.chunks, shape.channels // group),
        arguments(shape, "a", "folded_keys", "offset", "values", "mask", "p", "attended"),
        2,
        {
            "C": shape.channels, "P": shape.pixels, "T": shape.tokens, "CHUNK": shape.chunk,
            "GROUP": group, "BLOCK_N": n, "BLOCK_K": k, "PRECISION": precision(shape),
        },
        # In fp32, 64 tokens spill with 4.
        warps or (8 if shape.tokens > 32 and shape.dtype == "fp32" else 4),
        # With 64 tokens, a fourth one needs more than 48 KiB.
        stages or (2 if shape.pixels > 2048 or shape.dtype == "fp32" else 4 if shape.tokens <= 32 else 3),
    )  # fmt: skip


def _group(shape: Shape, n: int) -> int:
    """Return the channels of a program: as many as leave 64 programs, because small maps have few chunks."""
    tiles = shape.channels // n
    parts = [count for count in range(1, tiles + 1) if tiles % count == 0]
    return shape.channels // next((count for count in parts if count * shape.chunks >= 64), tiles)


@torch.library.custom_op("lsms_rt::token_attention", mutates_args=(), device_types="cuda")
def token_attention(a: Tensor, keys: Tensor, offset: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Compute p - 1/n (B, T, P), zero at padding, and moments (B, m, 2, C) of the values' sums, not yet normalized.

    ``a`` (B, C, H, W); ``keys`` (B, T, C) and ``offset`` (B, T) from ``fold_keys``; ``values`` (B, T, C) from
    ``fold_sentence``; ``mask`` (B, T) float32.
    """
    shape = shape_of(a, keys.shape[1])
    p = a.new_empty(a.shape[0], shape.tokens, shape.pixels)
    out = a.new_empty(a.shape[0], shape.chunks, 2, shape.channels, dtype=torch.float32)
    planned(launch, shape)(a.shape[0], a, keys, offset, values, mask, p, out)
    return p, out


@token_attention.register_kernel("cpu")
def plain(a: Tensor, keys: Tensor, offset: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the same in plain PyTorch: the twin."""
    pixels = a.flatten(2)
    scores = wide(torch.matmul(keys, pixels)) + offset[:, :, None]
    keep = wide(mask)[:, :, None]
    p = ((scores.softmax(1) - 1.0 / keep.sum(1, keepdim=True).clamp_min(1.0)) * keep).to(a.dtype)
    return p, moments(torch.matmul(values.transpose(1, 2), p), chunk_of(p.shape[2]))


@token_attention.register_fake
def _(a: Tensor, keys: Tensor, offset: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    batch, channels, pixels = a.shape[0], a.shape[1], a.shape[2] * a.shape[3]
    p = a.new_empty(batch, keys.shape[1], pixels)
    return p, a.new_empty(batch, -(-pixels // chunk_of(pixels)), 2, channels, dtype=statistics_type(a))
