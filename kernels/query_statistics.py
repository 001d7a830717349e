"""Statistics of the projected query, Wq a: a product whose output is never written.

Its InstanceNorm needs the mean and variance of every channel; all else of the query is folded into the keys.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Launch, block, precision, shape_of, stages_of
from .moments import moments, statistics_type, write_moments
from .shape import Shape, chunk_of
from .tensors import arguments
from .tuned_tiles import planned


@triton.jit
def query_statistics_kernel(
    a_ptr, query_ptr, moments_ptr,
    C: tl.constexpr, P: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Grid (chunks, C / BLOCK_N, B).  a (B, C, P); query (C, C); moments (B, chunks, 2, C) float32."""
    chunk = tl.program_id(0)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    b = tl.program_id(2).to(tl.int64)
    pixel = chunk * CHUNK + tl.arange(0, CHUNK)
    a_ptr += b * C * P
    q = tl.zeros((BLOCK_N, CHUNK), tl.float32)
    for start in range(0, C, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        weight = tl.load(query_ptr + n[:, None] * C + k[None, :])
        a = tl.load(a_ptr + k[:, None] * P + pixel[None, :], mask=(pixel < P)[None, :], other=0.0)
        q = tl.dot(weight, a, q, input_precision=PRECISION)
    count: tl.constexpr = (P + CHUNK - 1) // CHUNK
    write_moments(moments_ptr + (b * count + chunk) * (2 * C), q, pixel < P, n, C)


def launch(
    shape: Shape, *, n: int | None = None, k: int | None = None, warps: int = 4, stages: int | None = None
) -> Launch:
    """Describe the launch: tiles of ``n`` channels by a chunk of pixels, and ``k`` channels per step of the sum."""
    n, k = n or block(shape), k or block(shape)
    return Launch(
        query_statistics_kernel,
        (shape.chunks, shape.channels // n),
        arguments(shape, "a", "query", "statistics"),
        1,
        {
            "C": shape.channels, "P": shape.pixels, "CHUNK": shape.chunk,
            "BLOCK_N": n, "BLOCK_K": k, "PRECISION": precision(shape),
        },
        warps,
        stages or stages_of(shape),
    )  # fmt: skip


@torch.library.custom_op("lsms_rt::query_statistics", mutates_args=(), device_types="cuda")
def query_statistics(a: Tensor, query: Tensor) -> Tensor:
    """Compute moments (B, n, 2, C) of Wq a, over chunks of ``chunk_of(H * W)`` pixels.

    ``a`` (B, C, H, W), minus any offset per channel; ``query`` (C, C), both fp16 or fp32.
    """
    shape = shape_of(a)
    out = a.new_empty(a.shape[0], shape.chunks, 2, shape.channels, dtype=torch.float32)
    planned(launch, shape)(a.shape[0], a, query, out)
    return out


@query_statistics.register_kernel("cpu")
def plain(a: Tensor, query: Tensor) -> Tensor:
    """Compute the same in plain PyTorch: the twin."""
    pixels = a.flatten(2)
    return moments(torch.matmul(query, pixels), chunk_of(pixels.shape[2]))


@query_statistics.register_fake
def _(a: Tensor, query: Tensor) -> Tensor:
    pixels = a.shape[2] * a.shape[3]
    return a.new_empty(a.shape[0], -(-pixels // chunk_of(pixels)), 2, a.shape[1], dtype=statistics_type(a))
