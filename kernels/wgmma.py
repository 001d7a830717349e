"""Which bytes of shared memory an asynchronous product of Hopper (``wgmma``) reads: its matrix descriptors, decoded.

After the PTX manual, "Asynchronous Warpgroup Level Matrix Shared Memory Layout".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from .ptx_code import Instruction

ROWS = 64
# Swizzle mode -> bytes of a row of its atom, which has eight.
_SPANS = {0: 16, 1: 128, 2: 64, 3: 32}
# Swizzle mode -> which of the address's bits 7 to 9 are added to bits 4 to 6.
_SWIZZLES = {0: 0, 1: 7, 2: 3, 3: 1}


@dataclass(frozen=True)
class Operand:
    """An operand in shared memory: the text of its descriptor, and its size.

    Attributes:
        text: of the descriptor's register.
        outer: rows of A or columns of B.
        bytes: of an element.
        depth: elements along the sum.
        outer_first: True if elements along ``outer`` are neighbors, not those along the sum.
    """

    text: str
    outer: int
    bytes: int
    depth: int
    outer_first: bool


def operands(instruction: Instruction) -> list[Operand]:
    """Return the operands of a ``wgmma.mma_async`` that are in shared memory: A, unless it is in registers, and B."""
    found = re.search(r"m64n(\d+)k(\d+)\.f32\.(\w+)", instruction.op)
    if found is None:
        raise ValueError(f"line {instruction.line}: {instruction.op} is not known; add it to kernels/wgmma.py")
    columns, depth, size = int(found.group(1)), int(found.group(2)), 2 if found.group(3) in ("f16", "bf16") else 4
    _, first, second, *rest = instruction.operands
    in_registers = first.startswith("{")
    # Predicate, signs of A and B, then whether each is transposed: for 16 bits and shared memory only.
    turned = [text == "1" for text in rest[3:]]
    result = [] if in_registers else [Operand(first, ROWS, size, depth, bool(turned) and turned[0])]
    return [*result, Operand(second, columns, size, depth, bool(turned) and turned[-1])]


def addresses(descriptor: int, operand: Operand) -> np.ndarray:
    """Return the addresses of all bytes that a descriptor names."""
    start, leading, stride = ((descriptor >> shift & 0x3FFF) << 4 for shift in (0, 16, 32))
    mode = descriptor >> 62
    span = _SPANS[mode]
    if operand.outer_first:
        row, byte = np.arange(operand.depth), np.arange(operand.outer * operand.bytes)
        # Without a swizzle, the two strides change places.
        groups, chunks = (stride, leading) if mode else (leading, stride)
    else:
        row, byte = np.arange(operand.outer), np.arange(operand.depth * operand.bytes)
        groups, chunks = stride, leading
    along = byte // span * chunks + byte % span
    place = start + (row // 8 * groups + row % 8 * span)[:, None] + along[None, :]
    return np.asarray(place ^ ((place >> 7 & _SWIZZLES[mode]) << 4)).ravel()
