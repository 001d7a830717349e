"""``fold_keys`` and ``token_attention`` in one launch, for up to 128 channels: every program folds the keys itself.

That saves a launch, and costs as many reads of the moments as there are chunks of pixels.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import fold_keys, gate_mix, token_attention
from .fold_keys import score_offset
from .launch import Launch, padded, precision, shape_of
from .moments import join_moments, scaled, statistics_type, write_moments
from .shape import Shape, chunk_of
from .tensors import arguments
from .token_attention import token_weights
from .tuned_tiles import planned


@triton.jit
def fold_attention_kernel(
    a_ptr, moments_ptr, query_ptr, keys_ptr, values_ptr, mask_ptr, p_ptr, attended_ptr,
    C: tl.constexpr, P: tl.constexpr, T: tl.constexpr, CHUNK: tl.constexpr,
    PARTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (chunks, 1, B).  a (B, C, P); query (C, C); keys, values (B, T, C); mask (B, T) float32; p (B, T, P)."""
    chunk = tl.program_id(0)
    b = tl.program_id(2).to(tl.int64)
    t, n, k = tl.arange(0, T), tl.arange(0, C), tl.arange(0, C)
    pixel = chunk * CHUNK + tl.arange(0, CHUNK)
    valid = pixel < P
    count: tl.constexpr = (P + CHUNK - 1) // CHUNK

    # Loads that do not wait for the statistics.  At 128 channels, a and query together need more than 48 KiB.
    place = a_ptr + b * C * P + n[:, None] * P + pixel[None, :]
    if C <= 64:
        a = tl.load(place, mask=valid[None, :], other=0.0)
    keys = tl.load(keys_ptr + b * T * C + t[:, None] * C + k[None, :])
    query = tl.load(query_ptr + k[:, None] * C + n[None, :])
    mask = tl.load(mask_ptr + b * T + t)
    mean, scale = join_moments(moments_ptr + b * count * (2 * C), k, C, P, CHUNK, PARTS)
    keys = scaled(keys, scale, query.dtype)
    offset = score_offset(tl.sum(keys.to(tl.float32) * mean[None, :], 1), mask)
    folded = tl.dot(keys, query, input_precision=PRECISION).to(query.dtype)
    if C > 64:
        a = tl.load(place, mask=valid[None, :], other=0.0)
    scores = tl.dot(folded, a, input_precision=PRECISION) + offset[:, None]

    p = token_weights(scores, mask).to(p_ptr.dtype.element_ty)
    tl.store(p_ptr + b * T * P + t[:, None] * P + pixel[None, :], p, mask=valid[None, :])
    # (C, T).
    values = tl.load(values_ptr + b * T * C + t[None, :] * C + n[:, None])
    context = tl.dot(values, p, input_precision=PRECISION)
    write_moments(attended_ptr + (b * count + chunk) * (2 * C), context, valid, n, C)


def fits(shape: Shape) -> bool:
    """Return True if one program can hold all channels: up to 128 in fp16; in fp32, 64 spill on sm_87 and sm_120."""
    return gate_mix.fits(shape) and (shape.dtype == "fp16" or shape.channels <= 32)


def launch(shape: Shape, *, parts: int | None = None, warps: int = 8) -> Launch:
    """Describe the launch: one chunk of pixels per program, and ``parts`` chunks of moments per step."""
    if not fits(shape):
        raise ValueError(
            f"fold_attention supports up to 128 channels (32 in fp32), not {shape}; use fold_keys and token_attention"
        )
    return Launch(
        fold_attention_kernel,
        (shape.chunks, 1),
        arguments(shape, "a", "statistics", "query", "keys", "values", "mask", "p", "attended"),
        2,
        {
            "C": shape.channels, "P": shape.pixels, "T": shape.tokens, "CHUNK": shape.chunk,
            "PARTS": parts or min(padded(shape.chunks), 8192 // shape.channels), "PRECISION": precision(shape),
        },
        warps,
    )  # fmt: skip


@torch.library.custom_op("lsms_rt::fold_attention", mutates_args=(), device_types="cuda")
def fold_attention(
    a: Tensor, moments: Tensor, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute what ``token_attention`` computes of the keys that ``fold_keys`` folds, C a power of two up to 128.

    ``a`` (B, C, H, W); ``moments`` (B, n, 2, C) from ``query_statistics``; ``query`` (C, C);
    ``keys``, ``values`` (B, T, C) from ``fold_sentence``; ``mask`` (B, T) float32.
    """
    shape = shape_of(a, keys.shape[1])
    p = a.new_empty(a.shape[0], shape.tokens, shape.pixels)
    out = a.new_empty(a.shape[0], shape.chunks, 2, shape.channels, dtype=torch.float32)
    planned(launch, shape)(a.shape[0], a, moments, query, keys, values, mask, p, out)
    return p, out


@fold_attention.register_kernel("cpu")
def plain(
    a: Tensor, moments: Tensor, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the same in plain PyTorch: the twin."""
    folded, offset = fold_keys.plain(moments, query, keys, mask, a.shape[2] * a.shape[3])
    return token_attention.plain(a, folded, offset, values, mask)


@fold_attention.register_fake
def _(a: Tensor, moments: Tensor, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    batch, channels, pixels = a.shape[0], a.shape[1], a.shape[2] * a.shape[3]
    p = a.new_empty(batch, keys.shape[1], pixels)
    return p, a.new_empty(batch, -(-pixels // chunk_of(pixels)), 2, channels, dtype=statistics_type(a))
