"""Run the integer part of a kernel's PTX, for all threads of some programs at once: addresses, masks, loops, no data.

Control flow, addresses and masks of the kernels depend on constants, program ids and thread numbers alone, so that they
can be computed without a GPU, exactly.  What comes from memory or from floating-point arithmetic is unknown; a branch
or an address that depends on it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .ptx_code import Code, Instruction, bits_of
from .ptx_integers import OPERATIONS, WARP, NotComputable, Value

# Address of a kernel's first pointer; the next ones follow at the same distance, so that an address names its tensor.
POINTER = 1 << 40
# A loop that does not end is a mistake of this file.
STEPS = 2_000_000
# What a way that depends on data may do.
COMPUTING = {
    "abs", "add", "and", "copysign", "cvt", "div", "ex2", "fma", "lg2", "mad", "max", "min", "mov", "mul", "neg", "not",
    "or", "rcp", "rsqrt", "selp", "setp", "shl", "shr", "sub", "xor",
}  # fmt: skip


@dataclass
class Machine:
    """The registers of the threads of some programs.

    Attributes:
        code: the kernel.
        programs: (n, 3), the ids of the programs.
        registers: name -> value; a name that is missing is unknown.
    """

    code: Code
    programs: np.ndarray
    registers: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.programs)
        ids = np.repeat(np.asarray(self.programs, np.uint64), self.code.threads, axis=0)
        thread = np.tile(np.arange(self.code.threads, dtype=np.uint64), count)
        self._special = {"%tid.x": thread, "%laneid": thread % np.uint64(WARP), "%tid.y": np.uint64(0)}
        for i, axis in enumerate("xyz"):
            same = (ids[:, i] == ids[0, i]).all()
            self._special[f"%ctaid.{axis}"] = ids[0, i] if same else ids[:, i]
        # Where threads have parted: who goes on, from which place, and where all meet.
        self._here: Value = np.True_
        self._meet = self._parted = -1

    @property
    def threads(self) -> int:
        return len(self.programs) * self.code.threads

    def run(self) -> Iterator[Instruction]:
        """Yield every instruction before it is run: the registers are then those that it reads.

        Raises:
            NotComputable: control flow depends on data, or threads part other than to skip some instructions, or to
                go one of two ways.
        """
        place, steps, code = 0, 0, self.code
        while place < len(code.instructions):
            if place == self._meet:
                self._here, self._meet = np.True_, -1
            instruction = code.instructions[place]
            place, steps = place + 1, steps + 1
            yield instruction
            if instruction.is_a("ret"):
                return
            if instruction.is_a("bra"):
                if self._goes(instruction, place):
                    target = code.labels[instruction.operands[0]]
                    if place == self._meet < target and not instruction.guard:
                        # The end of one way of two: those who wait where it ends go the other one.
                        self._here, self._meet, self._parted = ~self._here, target, place
                        continue
                    if self._meet >= 0 and not self._parted <= target <= self._meet:
                        raise NotComputable(f"line {instruction.line}: parted threads leave what they skip")
                    place = target
            else:
                self._execute(instruction)
            if steps > STEPS:
                raise NotComputable(f"more than {STEPS} steps; a loop does not end")

    def active(self, instruction: Instruction) -> Value:
        """Return where the guard lets an instruction run: bools, one per thread or one for all; None if unknown."""
        if not instruction.guard:
            return self._here
        value = self.registers.get(instruction.guard)
        return None if value is None else self._here & (value == 0 if instruction.negated else value != 0)

    def address(self, operand: str) -> np.ndarray:
        """Compute the address of every thread for an operand like ``[%r1+16]``."""
        base, _, offset = operand.strip("[] ").partition("+")
        value = self.value(base.strip())
        if value is None:
            raise NotComputable(f"the address {operand} depends on data")
        return np.broadcast_to(value.astype(np.int64) + int(offset or 0), (self.threads,))

    def value(self, text: str, bits: int = 64) -> Value:
        """Return the value of an operand: a register, a number, a special register, or the shared memory's address."""
        if text in self.registers:
            return self.registers[text]
        if text in self._special:
            return self._special[text]
        if text == "global_smem":
            return np.uint64(0)
        if re.fullmatch(r"-?(0x[\da-fA-F]+|\d+)U?", text):
            return np.uint64(int(text.removesuffix("U"), 0) & ((1 << bits) - 1))
        if text.startswith(("0f", "0d")):
            return np.uint64(int(text[2:], 16))
        return None

    def _goes(self, instruction: Instruction, place: int) -> bool:
        """Decide a branch; threads may part, and meet behind what some skip, or behind two ways."""
        taken = self.active(instruction)
        # The loop that waits for an mbarrier of Blackwell's tensor cores: it ends.
        if instruction.guard == "complete":
            return False
        if taken is None and self._only_computes(instruction, place):
            # Both ways compute numbers that are not known here; this one is the longer way of erf.
            return False
        if taken is None:
            raise NotComputable(f"line {instruction.line}: the branch depends on data")
        goes = bool(taken.any())
        if not goes or (taken == self._here).all():
            return goes
        meet = self.code.labels[instruction.operands[0]]
        if meet <= place or self._meet >= 0:
            raise NotComputable(f"line {instruction.line}: the branch differs between threads, and is not a skip")
        self._here, self._meet, self._parted = self._here & ~taken, meet, place
        return False

    def _only_computes(self, branch: Instruction, place: int) -> bool:
        """Return whether both ways of a branch forward only compute, until they meet: no memory, barrier or branch."""
        code, end = self.code, self.code.labels[branch.operands[0]]
        way = code.instructions[place:end]
        if way and way[-1].is_a("bra"):
            # Instead of: it skips the other way.
            end, way = (
                code.labels[way[-1].operands[0]],
                way[:-1] + code.instructions[end : code.labels[way[-1].operands[0]]],
            )
        return place < end and all(one.op.partition(".")[0] in COMPUTING for one in way)

    def _execute(self, instruction: Instruction) -> None:
        if not instruction.writes:
            return
        # Registers wrap around.
        with np.errstate(over="ignore"):
            values = self._compute(instruction)
        active = self.active(instruction)
        for name, value in zip(instruction.writes, values, strict=False):
            if active is np.True_ and value is not None:
                self.registers[name] = value
                continue
            old = self.registers.get(name)
            # Threads that are not here do not read what they never wrote.
            everywhere = active is not None and (active | ~self._here).all()
            if active is not None and not active.any():
                value = old
            elif not everywhere and (active is None or old is None or value is None):
                value = None
            elif value is not None and old is not None and not active.all():
                value = np.where(active, value, old)
            if value is None:
                self.registers.pop(name, None)
            else:
                self.registers[name] = value

    def _compute(self, instruction: Instruction) -> list[Value]:
        unknown = [None] * len(instruction.writes)
        op, *parts = instruction.op.split(".")
        if op == "ld" and parts[0] == "param":
            place = self.code.parameters.index(instruction.operands[1].strip("[] "))
            return [np.uint64((place + 1) * POINTER)]
        if op == "mov" and "{" in "".join(instruction.operands):
            return self._packed(instruction) or unknown
        compute = OPERATIONS.get(op)
        kind = parts[-1] if parts else ""
        if op == "cvt" and "f" in parts[-2]:
            return unknown
        if compute is None or (kind[:1] == "f" and op not in ("mov", "selp")) or "x2" in kind:
            return unknown
        bits = bits_of(instruction.op)
        sources = [self.value(text, bits) for text in instruction.operands[1:]]
        if any(source is None for source in sources):
            return unknown
        return [compute(parts, kind, bits, *sources)]

    def _packed(self, instruction: Instruction) -> list[Value] | None:
        """Split a register into parts, or join parts."""
        target, source = instruction.operands
        bits = bits_of(instruction.op)
        names = [name.strip() for name in (target + source).replace("{", ",").replace("}", ",").split(",")]
        if target.startswith("{"):
            value, count = self.value(source), len(instruction.writes)
            part = bits // count
            mask = np.uint64((1 << part) - 1)
            return None if value is None else [(value >> np.uint64(i * part)) & mask for i in range(count)]
        parts = [self.value(name) for name in names[1:] if name]
        if any(part is None for part in parts):
            return None
        width = bits // len(parts)
        joined = parts[0]
        for i, value in enumerate(parts[1:], 1):
            joined = joined | (value << np.uint64(i * width))
        return [joined]
