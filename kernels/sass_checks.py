"""Compare the matrix descriptors of Hopper's products in machine code (SASS) with those of the PTX it was made from.

Why: ptxas 12.8 makes wrong machine code of right PTX for some tiles of ``gate_mix``.  Two descriptors there name one
address and differ in their upper words; ptxas takes a uniform register of the other one, or one that nothing has
written.  On an NVIDIA H200 that is an illegal memory access or a wrong result.

What it proves: the products (``wgmma`` of sm_90) of the machine code get the descriptors of those of the PTX, one by
one in their order, if there are as many: of the first iteration of each loop, or of all where ptxas unrolled them; if
there are not, each gets descriptors of some product of the PTX.  What it does not: other iterations of a loop (the
machine code is run straight through, and no branch is followed); other programs than (0, 0, 0), other threads than the
first one of each group of four warps; anything but descriptors; other architectures.
"""

from __future__ import annotations

import functools

import numpy as np

from . import wgmma
from .ptx_code import parse
from .ptx_integers import WARP, NotComputable
from .ptx_machine import Machine
from .sass import disassemble
from .sass import parse as parse_sass
from .sass_machine import UNKNOWN, Product, Value, apply, products

# Of one product: its operands in shared memory.
Descriptors = tuple[Value, ...]
GROUP = 4 * WARP
# Where shared memory begins that a kernel asks for; the first KiB belongs to the system.  In units of descriptors.
START, START_BITS = 0x400 >> 4, 0x3FFF


def wrong_descriptors(ptx: str, cubin: bytes) -> list[str]:
    """Return what is wrong with the descriptors of a kernel's machine code, in words; nothing without ``wgmma``.

    Raises:
        NotComputable: nothing is wrong, but some descriptors depend on data or on an instruction that is not known
            here; or nvdisasm is missing.
    """
    return differences(ptx, disassemble(cubin)) if "wgmma.mma_async" in ptx else []


def differences(ptx: str, sass: str) -> list[str]:
    """Return the same for machine code as text."""
    right = _ptx_descriptors(ptx)
    instructions = parse_sass(sass)
    started = {group: products(instructions, group * GROUP // WARP) for group in range(len(right))}
    if not all(started.values()):
        raise NotComputable("the machine code has no product; nvdisasm may be too old for it")
    wrong: list[str] = []
    unknown: list[str] = []
    for group, found in started.items():
        # The order is known where every loop runs once or was unrolled.
        order = next((those for those in right[group] if len(those) == len(found)), None)
        for i, product in enumerate(found):
            moved = tuple(apply(_without_start, value) for value in product.descriptors)
            known = order[i : i + 1] if order else right[group][-1]
            if moved not in known:
                possible = any(_may_be(moved, one) for one in known)
                (unknown if possible else wrong).append(_line(product, moved, group))
    if unknown and not wrong:
        raise NotComputable(f"{len(unknown)} products of the machine code, the first: {unknown[0]}")
    return wrong


@functools.lru_cache(maxsize=1)
def _ptx_descriptors(ptx: str) -> list[tuple[list[Descriptors], list[Descriptors]]]:
    """Return what every group of four warps gives its products, in order: the first time each is run, and every time.

    Cached for the machine code of several assemblers.
    """
    code = parse(ptx)
    machine = Machine(code, np.array([(0, 0, 0)]))
    first: list[dict[int, Descriptors]] = [{} for _ in range(code.threads // GROUP)]
    every: list[list[Descriptors]] = [[] for _ in first]
    for instruction in machine.run():
        if not instruction.is_a("wgmma.mma_async"):
            continue
        values = [machine.value(operand.text) for operand in wgmma.operands(instruction)]
        if any(value is None for value in values):
            raise NotComputable(f"line {instruction.line}: a descriptor depends on data")
        threads = [np.broadcast_to(value, (machine.threads,)) for value in values]
        for group in range(len(first)):
            descriptors = tuple(int(value[group * GROUP]) for value in threads)
            first[group].setdefault(instruction.line, descriptors)
            every[group].append(descriptors)
    return [(list(once.values()), those) for once, those in zip(first, every, strict=True)]


def _without_start(descriptor: int) -> int:
    """Count a descriptor's address from the kernel's own shared memory, as PTX is run here."""
    return descriptor & ~START_BITS | (descriptor & START_BITS) - START & START_BITS


def _may_be(values: Descriptors, known: Descriptors) -> bool:
    return all(value in (UNKNOWN, other) for value, other in zip(values, known, strict=True))


def _line(product: Product, descriptors: Descriptors, group: int) -> str:
    values = ", ".join(value if isinstance(value, str) else f"{value:#x}" for value in descriptors)
    one = product.instruction
    return (
        f"{'.'.join(one.parts)} at {one.address:#x}: the descriptors {values} are not those of the PTX (group {group})"
    )
