"""How a kernel is launched: one description for the launcher, the ahead-of-time compiler and the plugins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .shape import Shape

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Launch:
    """A kernel, specialised.  ``grid`` is (x, y); z is the batch, the only size that is not a compile-time constant.

    ``arguments`` names every pointer in order, inputs before outputs, with its element type; ``outputs`` counts the
    last of them that are written.  ``constants`` are the kernel's constexprs.
    """

    kernel: Any
    grid: tuple[int, int]
    arguments: Mapping[str, str]
    outputs: int
    constants: Mapping[str, Any]
    warps: int = 4
    stages: int = 2

    def __call__(self, batch: int, *tensors: Tensor) -> None:
        """Launch over ``batch`` items, inputs then outputs, all contiguous, on the current stream of their device."""
        for (name, dtype), tensor in zip(self.arguments.items(), tensors, strict=True):
            if tensor.dtype != DTYPES[dtype] or not tensor.is_contiguous():
                layout = "contiguous" if tensor.is_contiguous() else "not contiguous"
                raise ValueError(
                    f"{self.kernel.__name__}: {name} is {tensor.dtype} and {layout}; give {dtype}, contiguous"
                )
        with torch.cuda.device_of(tensors[0]):  # Triton takes the current device, whosever the pointers are
            self.kernel[(*self.grid, batch)](*tensors, **self.constants, num_warps=self.warps, num_stages=self.stages)


def shape_of(a: Tensor, tokens: int = 32) -> Shape:
    """The shape of maps ``a`` (B, C, H, W); raises ValueError for what no kernel takes."""
    return Shape(a.shape[1], a.shape[2], a.shape[3], tokens, _name(a))


def shape_of_rows(rows: Tensor, pixels: int) -> Shape:
    """The shape of token rows (B, T, C) for maps of ``pixels`` pixels, whose sides do not matter then."""
    return Shape(rows.shape[2], 1, pixels, rows.shape[1], _name(rows))


def _name(tensor: Tensor) -> str:
    names = {dtype: name for name, dtype in DTYPES.items()}
    if tensor.dtype not in names:
        raise ValueError(f"a tensor is {tensor.dtype}; the kernels take float16 and float32")
    return names[tensor.dtype]


def precision(shape: Shape) -> str:
    """Of ``tl.dot``: fp16 products are exact in fp32; fp32 is split into three tf32 products, which keep 21 bits."""
    return "tf32x3" if shape.dtype == "fp32" else "ieee"


def block(shape: Shape, largest: int = 64) -> int:
    """Channels of a tile: a power of two that divides them.  At most 32 in fp32, whose operands are split in two."""
    largest = min(largest, 32) if shape.dtype == "fp32" else largest
    return next(n for n in (64, 32) if n <= largest and shape.channels % n == 0)


def padded(size: int, least: int = 16) -> int:
    """The next power of two, at least ``least`` (the smallest side of a tensor core's product)."""
    return max(least, 1 << (size - 1).bit_length())
