"""Fold the output's InstanceNorm, and the first gate layer, into the values (for more than 128 channels).

context = V^ p + v0 with V^ = V / sigma, v0 = -mean / sigma; hidden layer = W1 context = (W1 V^) p + W1 v0, of rank T.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lsms_rt.model.folded import wide

from .launch import Launch, precision, shape_of_rows
from .moments import join_moments, join_tile, merge, scale_rows, scaled, statistics_type
from .shape import Shape, chunk_of
from .tensors import arguments
from .tuned_tiles import planned


@triton.jit
def fold_values_kernel(
    moments_ptr, values_ptr, hidden_ptr, context_ptr, context_offset_ptr, layer_ptr, layer_offset_ptr,
    C: tl.constexpr, P: tl.constexpr, T: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (C / BLOCK_N, 1, B).  values, context, layer (B, T, C); hidden (C, C); offsets (B, C) float32."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    b = tl.program_id(2).to(tl.int64)
    t = tl.arange(0, T)
    count: tl.constexpr = (P + CHUNK - 1) // CHUNK
    moments_ptr += b * count * (2 * C)
    values_ptr += b * T * C
    context_ptr += b * T * C
    layer_ptr += b * T * C
    row = t[:, None] * C

    own = tl.load(values_ptr + row + n[None, :])
    own_mean, own_scale = join_moments(moments_ptr, n, C, P, CHUNK, PARTS)
    tl.store(context_ptr + row + n[None, :], scaled(own, own_scale, own.dtype))
    tl.store(context_offset_ptr + b * C + n, -own_mean * own_scale)

    layer = tl.zeros((T, BLOCK_N), tl.float32)
    layer_offset = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, C, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        # W1 transposed, (BLOCK_K, BLOCK_N).
        weight = tl.load(hidden_ptr + n[None, :] * C + k[:, None], mask=(k < C)[:, None], other=0.0)
        values = tl.load(values_ptr + row + k[None, :], mask=(k < C)[None, :], other=0.0)
        mean, scale = join_moments(moments_ptr, k, C, P, CHUNK, PARTS)
        layer_offset -= tl.sum(weight.to(tl.float32) * (mean * scale)[:, None], 0)
        values = scaled(values, scale, weight.dtype)
        layer = tl.dot(values, weight, layer, input_precision=PRECISION)
    tl.store(layer_ptr + row + n[None, :], layer.to(layer_ptr.dtype.element_ty))
    tl.store(layer_offset_ptr + b * C + n, layer_offset)


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
        fold_values_kernel,
        (shape.channels // n, 1),
        arguments(shape, "attended", "values", "hidden", "context", "context_offset", "layer", "layer_offset"),
        4,
        {
            "C": shape.channels, "P": shape.pixels, "T": shape.tokens, "CHUNK": shape.chunk,
            "BLOCK_N": n, "BLOCK_K": tile.k, "PARTS": parts or tile.parts, "PRECISION": precision(shape),
        },
        # At 512 channels, 8 spill on sm_87.
        warps or (16 if tile.k == 512 else tile.warps),
        stages or tile.stages,
    )  # fmt: skip


@torch.library.custom_op("lsms_rt::fold_values", mutates_args=(), device_types="cuda")
def fold_values(moments: Tensor, values: Tensor, hidden: Tensor, pixels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute V^ (B, T, C) and v0 (B, C) float32; W1 V^ (B, T, C) and W1 v0 (B, C) float32.

    ``moments`` (B, m, 2, C) from ``token_attention`` over ``pixels`` pixels;
    ``values`` (B, T, C) from ``fold_sentence``; ``hidden`` W1 (C, C).
    """
    shape = shape_of_rows(values, pixels)
    context, layer = torch.empty_like(values), torch.empty_like(values)
    offsets = [values.new_empty(values.shape[0], shape.channels, dtype=torch.float32) for _ in range(2)]
    planned(launch, shape)(values.shape[0], moments, values, hidden, context, offsets[0], layer, offsets[1])
    return context, offsets[0], layer, offsets[1]


@fold_values.register_kernel("cpu")
def plain(moments: Tensor, values: Tensor, hidden: Tensor, pixels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the same in plain PyTorch: the twin."""
    mean, scale = merge(moments, pixels, chunk_of(pixels))
    context = scale_rows(values, scale)
    offset = -mean * scale
    layer = torch.matmul(context, hidden.T)
    return context, offset, layer, torch.matmul(offset, wide(hidden).T)


@fold_values.register_fake
def _(moments: Tensor, values: Tensor, hidden: Tensor, pixels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def offset() -> Tensor:
        return values.new_empty(values.shape[0], values.shape[2], dtype=statistics_type(values))

    return torch.empty_like(values), offset(), torch.empty_like(values), offset()
