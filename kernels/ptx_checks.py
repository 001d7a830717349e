"""Look for races in a kernel's shared memory, by the addresses of all its threads: from the PTX, without a GPU.

One program is run (``ptx_machine.py``), and every byte of its shared memory remembers who wrote and read it since the
last barrier.  Faults are: a byte that two warps access without a barrier between, one of them writing; a copy
(``cp.async``) or product (``wgmma``) that was not waited for when its bytes or registers are used; a product that reads
what was stored without a proxy fence; a byte that is read but was never written; an access beyond the shared memory
that the launch asks for.

What the threads of one warp do, and what two warps store by one instruction (the same value, as Triton does), counts
as ordered.  Tensor memory, mbarriers and barriers of a part of the threads (Blackwell's tensor cores) are not covered:
``NotComputable`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from . import wgmma
from .ptx_code import Code, Instruction, is_copy, parse
from .ptx_integers import WARP, NotComputable
from .ptx_machine import Machine

NOBODY, SEVERAL = -1, -2
GROUP = 4 * WARP
_NOT_COVERED = (
    "tcgen05",
    "mbarrier",
    "cp.async.bulk",
    "barrier",
    "elect",
    "atom.shared",
    "red.shared",
    "fence.mbarrier",
)


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong, and at which line of the PTX."""

    line: int
    what: str


@dataclass
class _Copies:
    """Bytes that copies or products use, and the warps: those not committed, and the committed groups, oldest first."""

    loose: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    registers: set[str] = field(default_factory=set)
    groups: list[tuple[list[tuple[np.ndarray, np.ndarray]], set[str]]] = field(default_factory=list)

    def commit(self) -> None:
        self.groups.append((self.loose, self.registers))
        self.loose, self.registers = [], set()

    def finish(self, keep: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Remove all groups but the ``keep`` newest, and return their bytes."""
        done = self.groups[: max(0, len(self.groups) - keep)]
        self.groups = self.groups[len(done) :]
        return [part for parts, _ in done for part in parts]

    def busy(self) -> set[str]:
        """Return the registers of all products under way."""
        return self.registers.union(*(registers for _, registers in self.groups))


class _Shared:
    """The shared memory of a program: who used every byte since the last barrier."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.epoch = self.time = self.fence = 0
        self.faults: set[Fault] = set()
        self.write_epoch, self.read_epoch = np.full(size, -1), np.full(size, -1)
        self.write_warp, self.read_warp = np.full(size, NOBODY), np.full(size, NOBODY)
        # When a byte was stored by an ordinary instruction, which products see only behind a proxy fence.
        self.stored = np.full(size, -1)
        self.copying, self.multiplying = np.zeros(size, bool), np.zeros(size, int)

    def fault(self, line: int, what: str) -> None:
        self.faults.add(Fault(line, what))

    def inside(self, line: int, place: np.ndarray, warp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the accesses within the memory; others are faults."""
        fits = (place >= 0) & (place < self.size)
        if not fits.all():
            self.fault(line, f"shared memory at byte {int(place[~fits].max())}, of {self.size}")
        return place[fits], warp[fits]

    def write(self, line: int, place: np.ndarray, warp: np.ndarray, copy: bool = False) -> None:
        """Check a store, or the start of a copy."""
        place, warp = self.inside(line, place, warp)
        self._check_order(line, "written", place, warp, self.read_epoch, self.read_warp)
        self._check_order(line, "written twice", place, warp, self.write_epoch, self.write_warp)
        if self.copying[place].any():
            self.fault(line, "written while a copy to it is under way")
        if self.multiplying[place].any():
            self.fault(line, "written while a product reads it")
        if copy:
            self.copying[place] = True
        else:
            self._written(place, warp)
            self.stored[place] = self.time

    def copied(self, place: np.ndarray, warp: np.ndarray) -> None:
        """A copy has been waited for by those who started it."""
        self.copying[place] = False
        self._written(place, warp)
        self.stored[place] = -1

    def read(self, line: int, place: np.ndarray, warp: np.ndarray) -> np.ndarray:
        """Check a load, and return the bytes within the memory."""
        place, warp = self.inside(line, place, warp)
        self._check_order(line, "read", place, warp, self.write_epoch, self.write_warp)
        if self.copying[place].any():
            self.fault(line, "read while a copy to it is under way")
        elif (self.write_epoch[place] < 0).any():
            self.fault(line, "read, but never written")
        self._readers(place, warp)
        return place

    def multiply(self, line: int, place: np.ndarray) -> np.ndarray:
        """Check what a product reads, and return the bytes within the memory."""
        place = self.read(line, place, np.full(len(place), SEVERAL))
        if (self.stored[place] >= self.fence).any():
            self.fault(line, "read by a product without a proxy fence after the store")
        np.add.at(self.multiplying, place, 1)
        return place

    def multiplied(self, place: np.ndarray) -> None:
        """A product has been waited for; its warps may have done so at different times."""
        np.subtract.at(self.multiplying, place, 1)
        self._readers(place, np.full(len(place), SEVERAL))

    def _check_order(
        self, line: int, what: str, place: np.ndarray, warp: np.ndarray, epochs: np.ndarray, warps: np.ndarray
    ) -> None:
        wrong = (epochs[place] == self.epoch) & ((warps[place] != warp) | (warp == SEVERAL))
        if wrong.any():
            before = "read" if epochs is self.read_epoch else "written"
            self.fault(line, f"{what} without a barrier after another warp's access ({before})")

    def _written(self, place: np.ndarray, warp: np.ndarray) -> None:
        self.write_epoch[place], self.write_warp[place] = self.epoch, warp
        self.write_warp[place[self.write_warp[place] != warp]] = SEVERAL

    def _readers(self, place: np.ndarray, warp: np.ndarray) -> None:
        again = self.read_epoch[place] == self.epoch
        different = place[again & (self.read_warp[place] != warp)]
        self.read_epoch[place], self.read_warp[place] = self.epoch, warp
        self.read_warp[place[self.read_warp[place] != warp]] = SEVERAL
        self.read_warp[different] = SEVERAL


def check(ptx: str, shared: int, programs: Iterable[tuple[int, int, int]] = ((0, 0, 0),)) -> list[Fault]:
    """Return the faults of some programs of a kernel with ``shared`` bytes of shared memory, sorted by line.

    Raises:
        NotComputable: the kernel has an instruction that is not covered, or control flow that depends on data.
    """
    code = parse(ptx)
    return sorted(set[Fault]().union(*(_check_program(code, shared, program) for program in programs)))


def _check_program(code: Code, size: int, program: tuple[int, int, int]) -> set[Fault]:
    machine, memory = Machine(code, np.array([program])), _Shared(size)
    copies, products = _Copies(), _Copies()
    for instruction in machine.run():
        memory.time += 1
        _check_registers(memory, products, instruction)
        if instruction.is_a("bar.sync"):
            _barrier(memory, machine, instruction)
        elif instruction.op.startswith(_NOT_COVERED):
            raise NotComputable(f"line {instruction.line}: {instruction.op} is not covered")
        elif instruction.is_a("fence.proxy.async"):
            memory.fence = memory.time
        elif instruction.is_a("wgmma.mma_async"):
            products.loose += [(memory.multiply(instruction.line, place), place[:0])
                               for place in _product_bytes(machine, instruction)]  # fmt: skip
            products.registers |= _matrix_registers(instruction)
        elif instruction.is_a("wgmma.commit_group"):
            products.commit()
        elif instruction.is_a("wgmma.wait_group"):
            for place, _ in products.finish(int(instruction.operands[0])):
                memory.multiplied(place)
        elif instruction.is_a("cp.async.commit_group"):
            copies.commit()
        elif instruction.is_a("cp.async.wait_group", "cp.async.wait_all"):
            if instruction.is_a("cp.async.wait_all"):
                copies.commit()
            for place, warp in copies.finish(int(instruction.operands[0]) if instruction.operands else 0):
                memory.copied(place, warp)
        elif is_copy(instruction):
            part = _bytes(machine, instruction, instruction.operands[0], int(instruction.operands[2], 0))
            memory.write(instruction.line, *part, copy=True)
            copies.loose.append(memory.inside(instruction.line, *part))
        elif instruction.op.startswith(("st.shared", "stmatrix")):
            memory.write(instruction.line, *_bytes(machine, instruction, instruction.operands[0]))
        elif instruction.op.startswith(("ld.shared", "ldmatrix")):
            memory.read(instruction.line, *_bytes(machine, instruction, instruction.operands[1]))
    last = code.instructions[-1].line
    if copies.loose or copies.groups:
        memory.fault(last, "the program ends while a copy is under way")
    if products.loose or products.groups:
        memory.fault(last, "the program ends while a product is under way")
    return memory.faults


def _barrier(memory: _Shared, machine: Machine, instruction: Instruction) -> None:
    """All threads meet; anything else is not covered."""
    active = machine.active(instruction)
    if active is None or not active.all() or len(instruction.operands) > 1:
        raise NotComputable(f"line {instruction.line}: a barrier of a part of the threads is not covered")
    memory.epoch += 1


def _check_registers(memory: _Shared, products: _Copies, instruction: Instruction) -> None:
    """Check that nothing but another product uses the registers of a product under way."""
    busy = products.busy()
    if (
        busy
        and not instruction.is_a("wgmma.mma_async")
        and not busy.isdisjoint((*instruction.reads, *instruction.writes))
    ):
        memory.fault(instruction.line, "a register of a product is used before the product was waited for")


def _matrix_registers(instruction: Instruction) -> set[str]:
    """Return the registers of a product's accumulators, and of A where it is in registers."""
    parts = (operand for operand in instruction.operands if operand.startswith("{"))
    return {name.strip(" {}") for part in parts for name in part.split(",")}


def _product_bytes(machine: Machine, instruction: Instruction) -> list[np.ndarray]:
    """Return the addresses of the bytes that the product of every group of four warps reads."""
    found = []
    for operand in wgmma.operands(instruction):
        value = machine.value(operand.text)
        if value is None:
            raise NotComputable(f"line {instruction.line}: a descriptor depends on data")
        every = np.broadcast_to(value, (machine.threads,)).reshape(-1, GROUP)
        if (every != every[:, :1]).any():
            raise NotComputable(f"line {instruction.line}: a descriptor differs within a warpgroup")
        found += [wgmma.addresses(int(descriptor), operand) for descriptor in np.unique(every[:, 0])]
    return found


def _bytes(
    machine: Machine, instruction: Instruction, operand: str, width: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return address and warp of every byte that an access to shared memory touches."""
    active = machine.active(instruction)
    if active is None:
        raise NotComputable(f"line {instruction.line}: the mask depends on data")
    active = np.broadcast_to(active, (machine.threads,)).copy()
    thread = np.arange(machine.threads)
    if instruction.op.startswith(("ldmatrix", "stmatrix")):
        # Every eight threads give the rows of one matrix.
        count = next(int(part[1:]) for part in instruction.op.split(".") if part in ("x1", "x2", "x4"))
        active &= thread % WARP < 8 * count
        width = 16
    width = width or instruction.width
    place = machine.address(operand)[active][:, None] + np.arange(width)
    return place.ravel(), np.repeat(thread[active] // WARP, width)
