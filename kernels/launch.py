"""The description of a kernel's launch, for the launcher, the ahead-of-time compiler and the plugins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsms_rt.model.config import OWN_TOKENS

from .shape import DecoderShape, RestShape, Shape

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Launch:
    """A kernel specialized for one shape.

    Attributes:
        kernel: the Triton function.
        grid: (x, y); z is the batch, the only size that is not a compile-time constant.
        arguments: name -> element type of every pointer in order, inputs before outputs (``tensors.arguments``).
        outputs: number of pointers, the last ones, that are written.
        constants: the kernel's constexprs.
        warps: warps per program.
        stages: stages of software pipelining.
    """

    kernel: Any
    grid: tuple[int, int]
    arguments: Mapping[str, str]
    outputs: int
    constants: Mapping[str, Any]
    warps: int = 4
    stages: int = 2

    def options(self) -> dict[str, Any]:
        """Return constants and options as Triton's launcher takes them."""
        return {**self.constants, "num_warps": self.warps, "num_stages": self.stages}

    def __call__(self, batch: int, *tensors: Tensor) -> None:
        """Launch for ``batch`` slices on the current stream of the tensors' device; inputs come before outputs."""
        for (name, dtype), tensor in zip(self.arguments.items(), tensors, strict=True):
            if tensor.dtype != DTYPES[dtype] or not tensor.is_contiguous():
                layout = "contiguous" if tensor.is_contiguous() else "not contiguous"
                raise ValueError(
                    f"{self.kernel.__name__}: {name} is {tensor.dtype} and {layout}; pass {dtype}, contiguous"
                )
        # Triton launches on the current device, whichever device the pointers belong to.
        with torch.cuda.device_of(tensors[0]):
            self.kernel[(*self.grid, batch)](*tensors, **self.options())


def shape_of(a: Tensor, tokens: int = OWN_TOKENS) -> Shape:
    """Return the shape of maps ``a`` (B, C, H, W); raises ValueError if the kernels do not support it."""
    return Shape(a.shape[1], a.shape[2], a.shape[3], tokens, _name(a))


def shape_of_rows(rows: Tensor, pixels: int) -> Shape:
    """Return a shape for token rows (B, T, C) and maps of ``pixels`` pixels, whose sides do not matter here."""
    return Shape(rows.shape[2], 1, pixels, rows.shape[1], _name(rows))


def rest_of(a: Tensor, ratio: int = 1) -> RestShape:
    """Return the shape of the rest of a block for maps ``a`` (B, C, H, W); ``ratio`` is 1 if a kernel sees only C."""
    return RestShape(a.shape[1], a.shape[2], a.shape[3], dtype=_name(a), ratio=ratio)


def decoder_shape_of(a: Tensor) -> DecoderShape:
    """Return the shape of the decoder's kernel for its map ``a`` (B, C, H, W) at stride 4."""
    return DecoderShape(a.shape[1], a.shape[2], a.shape[3], dtype=_name(a))


def _name(tensor: Tensor) -> str:
    names = {dtype: name for name, dtype in DTYPES.items()}
    if tensor.dtype not in names:
        raise ValueError(f"a tensor is {tensor.dtype}; the kernels support float16 and float32")
    return names[tensor.dtype]


def precision(shape: Shape) -> str:
    """Return the precision for ``tl.dot``.

    Products of fp16 are exact in fp32; fp32 is split into three tf32 products, which keep 21 bits.
    """
    return "tf32x3" if shape.dtype == "fp32" else "ieee"


def block(shape: Shape, maximum: int = 64) -> int:
    """Return the channels of a tile: a power of two that divides them.

    At most 32 in fp32, whose operands are split in two.
    """
    maximum = min(maximum, 32) if shape.dtype == "fp32" else maximum
    return next(n for n in (64, 32) if n <= maximum and shape.channels % n == 0)


def pixels_of(shape: Shape) -> int:
    """Return the pixels of a tile of 64 channels: fewer for small maps, to occupy more of the GPU."""
    if shape.pixels > 2048 and shape.dtype == "fp16":
        return 64
    return 16 if shape.pixels <= 512 and shape.dtype == "fp16" else 32


def stages_of(shape: Shape) -> int:
    """Return the stages of software pipelining: 3 for small maps, whose programs wait for loads more than they compute.

    Large maps have enough programs per processor to fill the waits.
    """
    return 3 if shape.pixels <= 2048 and shape.dtype == "fp16" else 2


def padded(size: int, minimum: int = 16) -> int:
    """Return the next power of two, at least ``minimum`` (the smallest side of a product on tensor cores)."""
    return max(minimum, 1 << (size - 1).bit_length())
