"""Prove where a kernel reads and writes: every address of every thread of every program, from the PTX, without a GPU.

Proved for one shape and number of slices, by running the integer part of the compiled code (``ptx_machine.py``):
all loads and stores stay within their tensors, at multiples of their width, inputs are not written, every byte of an
output is written, and by one program only.  That the programs of one launch run in any order then cannot matter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from .aot import Compiled
from .launch import DTYPES
from .ptx_code import Instruction, is_copy, parse
from .ptx_integers import NotComputable
from .ptx_machine import POINTER, Machine
from .shape import Shape
from .tensors import size_of

# Threads that are run at once: more need more memory, fewer more time.
THREADS = 1 << 14


def out_of_bounds(compiled: Compiled, shape: Shape, batch: int = 2) -> list[str]:
    """Return what is wrong with a kernel's accesses to global memory, in words; nothing if all is proved.

    Raises:
        NotComputable: an address or a mask depends on data.
    """
    code = parse(compiled.ptx)
    names = list(compiled.arguments)
    sizes = [math.prod(size_of(name, shape, batch)) * DTYPES[compiled.arguments[name]].itemsize for name in names]
    # Byte -> the program that wrote it, or -1.
    owners = {i: np.full(sizes[i], -1, np.int32) for i in range(len(names) - compiled.outputs, len(names))}
    wrong: set[str] = set()
    programs = list(itertools.product(range(compiled.grid[0]), range(compiled.grid[1]), range(batch)))
    step = max(1, THREADS // code.threads)
    for start in range(0, len(programs), step):
        part = np.array(programs[start : start + step])
        machine = Machine(code, part)
        program = np.repeat(np.arange(start, start + len(part), dtype=np.int32), code.threads)
        for instruction in machine.run():
            for operand, width, bytes_, stores in _accesses(machine, instruction):
                place = machine.address(operand)
                runs = np.broadcast_to(machine.active(instruction), place.shape)
                # A width is a power of two.
                if (place[runs] & (width - 1)).any():
                    wrong.add(f"line {instruction.line}: {width} bytes at an address that is no multiple of it")
                active = runs & (bytes_ > 0)
                tensor = place // POINTER - 1
                offset = place - (tensor + 1) * POINTER
                for i in _distinct(tensor[active]):
                    here = active & (tensor == i)
                    what = f"line {instruction.line}: "
                    if not 0 <= i < len(names) or (offset[here] + bytes_[here] > sizes[i]).any():
                        wrong.add(f"{what}outside of all tensors, after {names[min(max(i, 0), len(names) - 1)]}")
                    elif stores and i not in owners:
                        wrong.add(f"{what}the input {names[i]} is written")
                    elif stores and not _own(owners[i], offset[here], int(bytes_[0]), program[here]):
                        wrong.add(f"{what}an element of {names[i]} is written by two programs")
    wrong |= {f"{int((owner < 0).sum())} bytes of {names[i]} are not written" for i, owner in owners.items()
              if (owner < 0).any()}  # fmt: skip
    return sorted(wrong)


def _distinct(values: np.ndarray) -> np.ndarray:
    """Return each value once.  Almost always it is one, which ``np.unique`` takes long to see."""
    return values[:1] if (values == values[:1]).all() else np.unique(values)


def _accesses(machine: Machine, instruction: Instruction) -> Iterator[tuple[str, int, np.ndarray, bool]]:
    """Yield the operand of an access to global memory, its width, its bytes for every thread, whether it stores."""
    if not instruction.op.startswith(("ld.", "st.", "cp.async", "red.", "atom.")):
        return
    if machine.active(instruction) is None:
        if instruction.is_a("ld.global", "st.global"):
            raise NotComputable(f"line {instruction.line}: the mask depends on data")
        return
    width = np.broadcast_to(np.int64(instruction.width), (machine.threads,))
    if instruction.is_a("ld.global"):
        yield instruction.operands[1], instruction.width, width, False
    elif instruction.is_a("st.global"):
        yield instruction.operands[0], instruction.width, width, True
    elif is_copy(instruction):
        # A copy of 0 bytes reads nothing: it fills with zeros.
        size = int(instruction.operands[2], 0)
        read = machine.value(instruction.operands[3]) if len(instruction.operands) > 3 else np.int64(size)
        if read is None:
            raise NotComputable(f"line {instruction.line}: the bytes of a copy depend on data")
        bytes_ = np.broadcast_to(np.asarray(read).astype(np.int64), (machine.threads,))
        yield instruction.operands[1], size, bytes_, False
    elif instruction.op.startswith(("red.global", "atom.global", "cp.async.bulk", "ld.volatile", "st.volatile")):
        raise NotComputable(f"line {instruction.line}: {instruction.op} is not covered")


def _own(owner: np.ndarray, offset: np.ndarray, width: int, program: np.ndarray) -> bool:
    """Note who writes; return False if a byte has another owner already."""
    place = (offset[:, None] + np.arange(width)).ravel()
    who = np.repeat(program, width)
    free = (owner[place] < 0) | (owner[place] == who)
    owner[place] = who
    return bool(free.all() and (owner[place] == who).all())
