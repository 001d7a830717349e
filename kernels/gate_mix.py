"""Everything after the attention in one launch, for up to 128 channels: all of them fit on the chip.

context = IN(V p); y = (Wout (s + tanh(W2 relu(W1 context)) context) + b) x.  Three products per tile; nothing between
them is written.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .gate import relu, tanh
from .launch import DTYPES, Launch, padded, precision, shape_of
from .moments import join_moments, merge
from .shape import Shape, chunk_of
from .tensors import arguments
from .tuned_tiles import planned

# Maximum size of a C x C weight, because an operand of a tile has to fit into 48 KiB of shared memory.
WEIGHT_BYTES = 32 * 1024


def fits(shape: Shape) -> bool:
    """Return True if one program can hold all channels: a power of two, up to 128 in fp16 and 64 in fp32."""
    channels = shape.channels
    return channels & (channels - 1) == 0 and channels**2 * DTYPES[shape.dtype].itemsize <= WEIGHT_BYTES


@triton.jit
def gate_mix_kernel(
    x_ptr, s_ptr, p_ptr, moments_ptr, values_ptr, hidden_ptr, gate_ptr, mix_ptr, bias_ptr, y_ptr,
    C: tl.constexpr, P: tl.constexpr, T: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_P: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (P / BLOCK_P, 1, B).  x, s, y (B, C, P); p (B, T, P); values (B, T, C); hidden, gate, mix (C, C)."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    b = tl.program_id(2).to(tl.int64)
    n, k, t = tl.arange(0, C), tl.arange(0, C), tl.arange(0, T)
    valid = (pixel < P)[None, :]
    x_ptr += b * C * P
    s_ptr += b * C * P
    y_ptr += b * C * P
    place = n[:, None] * P + pixel[None, :]
    weight = n[:, None] * C + k[None, :]
    count: tl.constexpr = (P + CHUNK - 1) // CHUNK

    p = tl.load(p_ptr + b * T * P + t[:, None] * P + pixel[None, :], mask=valid, other=0.0)
    # (C, T).
    values = tl.load(values_ptr + b * T * C + t[None, :] * C + n[:, None])
    # What does not depend on the statistics arrives beside them, if values leave it room.
    early: tl.constexpr = C * T * values_ptr.dtype.element_ty.primitive_bitwidth <= 65536
    if early:
        hidden_weight = tl.load(hidden_ptr + weight)
    s = tl.load(s_ptr + place, mask=valid, other=0.0)
    x = tl.load(x_ptr + place, mask=valid, other=0.0)
    bias = tl.load(bias_ptr + n)
    mean, scale = join_moments(moments_ptr + b * count * (2 * C), n, C, P, CHUNK, PARTS)
    context = (tl.dot(values, p, input_precision=PRECISION) - mean[:, None]) * scale[:, None]
    if not early:
        hidden_weight = tl.load(hidden_ptr + weight)
    hidden = tl.dot(hidden_weight, context.to(p.dtype), input_precision=PRECISION)
    gate = tl.dot(tl.load(gate_ptr + weight), relu(hidden).to(p.dtype), input_precision=PRECISION)
    u = s.to(tl.float32) + tanh(gate) * context
    y = tl.dot(tl.load(mix_ptr + weight), u.to(p.dtype), input_precision=PRECISION) + bias[:, None]
    tl.store(y_ptr + place, (y * x.to(tl.float32)).to(y_ptr.dtype.element_ty), mask=valid)


def launch(shape: Shape, *, pixels: int | None = None, parts: int | None = None, warps: int = 8) -> Launch:
    """Describe the launch: tiles of all channels by ``pixels``, and ``parts`` chunks of moments per step."""
    if not fits(shape):
        raise ValueError(
            f"gate_mix supports up to 128 channels (64 in fp32), not {shape}; use fold_values, gate and mix"
        )
    # Here 64 pixels spill, or need 8 bytes more than 48 KiB.
    large = shape.channels == 128 or shape.dtype == "fp32"
    pixels = pixels or (32 if large else 64)
    # More parts with 16 tokens spill on sm_100.
    limit = 32 if shape.tokens == 16 else 8192 // shape.channels
    parts = parts or min(padded(shape.chunks), limit)
    return Launch(
        gate_mix_kernel,
        (-(-shape.pixels // pixels), 1),
        arguments(shape, "x", "s", "p", "attended", "values", "hidden", "gate", "mix", "mix_bias", "y"),
        1,
        {
            "C": shape.channels, "P": shape.pixels, "T": shape.tokens, "CHUNK": shape.chunk,
            "BLOCK_P": pixels, "PARTS": parts, "PRECISION": precision(shape),
        },
        warps,
    )  # fmt: skip


@torch.library.custom_op("lsms_rt::gate_mix", mutates_args=(), device_types="cuda")
def gate_mix(
    x: Tensor, s: Tensor, p: Tensor, moments: Tensor, values: Tensor,
    hidden: Tensor, gate: Tensor, mix: Tensor, bias: Tensor,
) -> Tensor:  # fmt: skip
    """Compute the block's output (B, C, H, W), C a power of two up to 128 (64 in fp32).

    ``x``, ``s`` (B, C, H, W); ``p`` (B, T, P) and ``moments`` (B, m, 2, C) from ``token_attention``;
    ``values`` (B, T, C); ``hidden`` W1, ``gate`` W2, ``mix`` Wout (C, C); ``bias`` (C,) float32.
    """
    y = torch.empty_like(x)
    shape = shape_of(x, p.shape[1])
    planned(launch, shape)(x.shape[0], x, s, p, moments, values, hidden, gate, mix, bias, y)
    return y


@gate_mix.register_kernel("cpu")
def plain(
    x: Tensor, s: Tensor, p: Tensor, moments: Tensor, values: Tensor,
    hidden: Tensor, gate: Tensor, mix: Tensor, bias: Tensor,
) -> Tensor:  # fmt: skip
    """Compute the same in plain PyTorch: the twin."""
    mean, scale = merge(moments, p.shape[2], chunk_of(p.shape[2]))
    context = ((torch.matmul(values.transpose(1, 2), p) - mean[:, :, None]) * scale[:, :, None]).to(p.dtype)
    gated = torch.tanh(torch.matmul(gate, F.relu(torch.matmul(hidden, context)))) * context
    return (torch.matmul(mix, s.flatten(2) + gated) + bias[:, None].to(x.dtype)).reshape(x.shape) * x


@gate_mix.register_fake
def _(
    x: Tensor, s: Tensor, p: Tensor, moments: Tensor, values: Tensor,
    hidden: Tensor, gate: Tensor, mix: Tensor, bias: Tensor,
) -> Tensor:  # fmt: skip
    return torch.empty_like(x)
