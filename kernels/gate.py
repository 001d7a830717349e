"""The gated context, added to the convolutions: u = s + tanh(W2 relu(W1 c)) c (for more than 128 channels).

``c`` and ``W1 c`` are products of rank T with p, which are computed on the fly and never written.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .launch import Launch, block, pixels_of, precision, shape_of, stages_of
from .shape import Shape
from .tensors import arguments
from .tuned_tiles import planned


@triton.jit
def tanh(x):
    """From exp, which never overflows here; libdevice's tanh does not run in Triton's interpreter."""
    e = tl.exp(-2.0 * tl.abs(x))
    positive = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -positive, positive)


@triton.jit
def relu(x):
    """Also of NaN, which a GPU's max would turn into 0, so that an overflow stays to be seen."""
    return tl.maximum(x, 0.0, tl.PropagateNan.ALL)


@triton.jit
def gate_kernel(
    s_ptr, p_ptr, context_ptr, context_offset_ptr, layer_ptr, layer_offset_ptr, gate_ptr, u_ptr,
    C: tl.constexpr, P: tl.constexpr, T: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (P / BLOCK_P, C / BLOCK_N, B).  s, u (B, C, P); p (B, T, P); gate W2 (C, C); the rest from fold_values."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    b = tl.program_id(2).to(tl.int64)
    t = tl.arange(0, T)
    valid = (pixel < P)[None, :]
    context_ptr += b * T * C
    layer_ptr += b * T * C
    s_ptr += b * C * P
    u_ptr += b * C * P
    layer_offset_ptr += b * C
    place = n[:, None] * P + pixel[None, :]
    # What is used after the loop arrives during it.
    s = tl.load(s_ptr + place, mask=valid, other=0.0)
    # (BLOCK_N, T).
    values = tl.load(context_ptr + t[None, :] * C + n[:, None])
    context_offset = tl.load(context_offset_ptr + b * C + n)
    p = tl.load(p_ptr + b * T * P + t[:, None] * P + pixel[None, :], mask=valid, other=0.0)

    gate = tl.zeros((BLOCK_N, BLOCK_P), tl.float32)
    # Triton does not pipeline so small a load: the offset of the next step is loaded in this one.
    next_offset = tl.load(layer_offset_ptr + tl.arange(0, BLOCK_K))
    for start in range(0, C, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        # (BLOCK_K, T).
        layer = tl.load(layer_ptr + t[None, :] * C + k[:, None])
        offset = next_offset
        next_offset = tl.load(layer_offset_ptr + BLOCK_K + k, mask=BLOCK_K + k < C, other=0.0)
        hidden = tl.dot(layer, p, input_precision=PRECISION) + offset[:, None]
        weight = tl.load(gate_ptr + n[:, None] * C + k[None, :])
        gate = tl.dot(weight, relu(hidden).to(weight.dtype), gate, input_precision=PRECISION)

    context = tl.dot(values, p, input_precision=PRECISION) + context_offset[:, None]
    tl.store(u_ptr + place, (s.to(tl.float32) + tanh(gate) * context).to(u_ptr.dtype.element_ty), mask=valid)


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
    # With 64 tokens, 64 channels need a few bytes more than 48 KiB on sm_100 and sm_110.
    n, k = n or block(shape), k or block(shape, 64 if shape.tokens <= 32 else 32)
    # In fp32, 64 tokens spill with 32.
    pixels = pixels or (16 if shape.tokens > 32 and shape.dtype == "fp32" else pixels_of(shape))
    return Launch(
        gate_kernel,
        (-(-shape.pixels // pixels), shape.channels // n),
        arguments(shape, "s", "p", "context", "context_offset", "layer", "layer_offset", "gate", "u"),
        1,
        {
            "C": shape.channels, "P": shape.pixels, "T": shape.tokens,
            "BLOCK_N": n, "BLOCK_K": k, "BLOCK_P": pixels, "PRECISION": precision(shape),
        },
        warps,
        stages or stages_of(shape),
    )  # fmt: skip


@torch.library.custom_op("lsms_rt::gate", mutates_args=(), device_types="cuda")
def gate(
    s: Tensor, p: Tensor, context: Tensor, context_offset: Tensor, layer: Tensor, layer_offset: Tensor, weight: Tensor
) -> Tensor:
    """Compute u (B, C, H, W).  ``s`` (B, C, H, W); ``p`` (B, T, P) from ``token_attention``; ``weight`` W2 (C, C).

    ``context``, ``context_offset``, ``layer``, ``layer_offset`` are the four results of ``fold_values``.
    """
    u = torch.empty_like(s)
    shape = shape_of(s, p.shape[1])
    planned(launch, shape)(s.shape[0], s, p, context, context_offset, layer, layer_offset, weight, u)
    return u


@gate.register_kernel("cpu")
def plain(
    s: Tensor, p: Tensor, context: Tensor, context_offset: Tensor, layer: Tensor, layer_offset: Tensor, weight: Tensor
) -> Tensor:
    """Compute the same in plain PyTorch: the twin."""
    c = torch.matmul(context.transpose(1, 2), p) + context_offset[:, :, None].to(p.dtype)
    hidden = torch.matmul(layer.transpose(1, 2), p) + layer_offset[:, :, None].to(p.dtype)
    return s + (torch.tanh(torch.matmul(weight, F.relu(hidden))) * c).reshape(s.shape)


@gate.register_fake
def _(
    s: Tensor, p: Tensor, context: Tensor, context_offset: Tensor, layer: Tensor, layer_offset: Tensor, weight: Tensor
) -> Tensor:
    return torch.empty_like(s)
