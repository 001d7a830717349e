"""Run the integer part of a kernel's PTX, for all threads of some programs at once: addresses, masks, loops, no data.

Control flow, addresses and masks of the kernels depend on constants, program ids and thread numbers alone, so that they
can be computed without a GPU, exactly.  What comes from memory or from floating-point arithmetic is unknown; a branch
or an address that depends on it is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Bits of a register's value, one per thread or one for all; None if it is unknown.
Value = Any
# Address of a kernel's first pointer; the next ones follow at the same distance, so that an address names its tensor.
POINTER = 1 << 40
# A loop that does not end is a mistake of this file.
STEPS = 2_000_000
WARP = 32

_NAME = re.compile(r"%[a-z]+\d+|\bcomplete\b")
# Instructions that write no register.
_NO_RESULT = (
    "st", "stmatrix", "red", "bar", "barrier", "bra", "ret", "fence", "membar", "mbarrier", "griddepcontrol", "tcgen05",
)  # fmt: skip


# What a way that depends on data may do.
COMPUTING = {
    "abs", "add", "and", "copysign", "cvt", "div", "ex2", "fma", "lg2", "mad", "max", "min", "mov", "mul", "neg", "not",
    "or", "rcp", "rsqrt", "selp", "setp", "shl", "shr", "sub", "xor",
}  # fmt: skip


class NotComputable(ValueError):
    """The PTX has a branch or an address that depends on data, or an instruction that this file does not know."""


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        line: line of the PTX, from 1.
        op: name with all its suffixes, e.g. ``ld.global.v4.b32``.
        operands: texts of the operands.
        guard: name of the predicate, or "".
        negated: True if it runs where the predicate is false.
        writes: names of the registers that it writes.
        reads: names of those that it reads, with the guard.
    """

    line: int
    op: str
    operands: tuple[str, ...]
    guard: str = ""
    negated: bool = False
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()

    def is_a(self, *names: str) -> bool:
        """Return whether the instruction's name starts with one of some names, whole parts of it."""
        return any(self.op == name or self.op.startswith(name + ".") for name in names)

    @property
    def width(self) -> int:
        """Bytes per thread of a load or store."""
        vector = next((int(part[1:]) for part in self.op.split(".") if re.fullmatch(r"v\d", part)), 1)
        return vector * bits_of(self.op) // 8


@dataclass(frozen=True)
class Code:
    """A kernel: its instructions, the places of its labels, its pointers, and its threads."""

    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    parameters: tuple[str, ...]
    threads: int


def parse(ptx: str) -> Code:
    """Read PTX with one kernel; raises ValueError if there is none."""
    entry = re.search(r"\.visible \.entry \w+\((.*?)\n\)", ptx, re.DOTALL)
    threads = re.search(r"\.reqntid\s+(\d+)", ptx)
    if entry is None or threads is None:
        raise ValueError("the PTX has no .visible .entry with .reqntid; only PTX from Triton can be used")
    parameters = tuple(re.findall(r"\b(\w+_param_\d+)", entry.group(1)))
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    first = ptx.count("\n", 0, entry.end()) + 1
    for number, text in enumerate(ptx.splitlines()[first:], first + 1):
        code = text.split("//")[0].strip()
        if code.startswith(".section"):
            break
        if label := re.match(r"([$\w]+):", code):
            labels[label.group(1)] = len(instructions)
        elif code.endswith(";") and not code.startswith((".reg", ".loc", ".pragma")):
            instructions += [_instruction(part.strip(), number) for part in code.split(";") if part.strip(" {}")]
    return Code(tuple(instructions), labels, parameters, int(threads.group(1)))


def _instruction(text: str, line: int) -> Instruction:
    guard = re.match(r"@(!?)(%?\w+)\s+", text)
    if guard:
        text = text[guard.end() :]
    op, _, rest = text.partition(" ") if " " in text else text.partition("\t")
    operands = tuple(part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", rest.strip()))
    operands = tuple(part for part in operands if part)
    results = 0 if op.split(".")[0] in _NO_RESULT or op.startswith("cp.async") or not operands else 1
    if op.startswith(("mbarrier.try_wait", "tcgen05.ld")):
        results = 1
    if op.startswith("wgmma") and "mma_async" not in op:
        results = 0
    writes = tuple(name for operand in operands[:results] for name in _NAME.findall(operand))
    # The accumulators of an asynchronous product are read and written.
    sources = operands if op.startswith("wgmma.mma_async") else operands[results:]
    reads = tuple(name for operand in sources for name in _NAME.findall(operand))
    name = guard.group(2) if guard else ""
    reads = (*reads, name) if name else reads
    return Instruction(line, op.strip(), operands, name, bool(guard and guard.group(1)), writes, reads)


def is_copy(instruction: Instruction) -> bool:
    """Return whether it copies from global to shared memory asynchronously, by single threads."""
    return instruction.op.startswith(("cp.async.ca.", "cp.async.cg."))


def bits_of(op: str) -> int:
    """Return the bits of an instruction's last type."""
    if op.endswith(("pred", "tid")):
        return 1
    found = re.findall(r"\.[a-z]+(\d+)(?:x2)?\b", op)
    return int(found[-1]) if found else 32


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
            NotComputable: control flow depends on data, or threads part other than to skip some instructions.
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
        """Decide a branch; threads may part to skip some instructions, and meet behind them."""
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
        compute = _OPERATIONS.get(op)
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


def _signed(value: Value, bits: int) -> Value:
    shift = 64 - bits
    return (value << np.uint64(shift)).astype(np.int64) >> np.int64(shift)


def _cut(value: Value, bits: int) -> Value:
    value = np.asarray(value).astype(np.uint64)
    return value if bits >= 64 else value & np.uint64((1 << bits) - 1)


def _wide(value: Value, kind: str, bits: int) -> Value:
    return _signed(value, bits) if kind.startswith("s") else value.astype(np.int64) if bits < 64 else value


def _plain(function: Callable[..., Value]) -> Callable[..., Value]:
    return lambda parts, kind, bits, *values: _cut(function(*values), bits)


def _multiply(parts: list[str], kind: str, bits: int, a: Value, b: Value, c: Value = None) -> Value:
    product = _wide(a, kind, bits) * _wide(b, kind, bits)
    wide = 2 * bits if "wide" in parts else bits
    if "hi" in parts:
        product = product >> (np.int64(bits) if product.dtype == np.int64 else np.uint64(bits))
    result = _cut(product, wide)
    return result if c is None else _cut(result + c, wide)


def _shift_right(parts: list[str], kind: str, bits: int, a: Value, b: Value) -> Value:
    amount = np.minimum(b, np.uint64(63))
    return _cut(_signed(a, bits) >> amount.astype(np.int64) if kind.startswith("s") else a >> amount, bits)


def _field(parts: list[str], kind: str, bits: int, a: Value, start: Value, length: Value) -> Value:
    part = (a >> start) & ((np.uint64(1) << length) - np.uint64(1))
    return _cut(_signed(part, int(length)), bits) if kind.startswith("s") and int(length) else part


def _compare(parts: list[str], kind: str, bits: int, a: Value, b: Value) -> Value:
    compare = {
        "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
        "ge": np.greater_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
    }[parts[0]]  # fmt: skip
    return _cut(compare(*(_signed(v, bits) if kind.startswith("s") else v for v in (a, b))), 1)


def _convert(parts: list[str], kind: str, bits: int, a: Value) -> Value:
    to, source = parts[-2], parts[-1]
    return _cut(_signed(a, int(source[1:])) if source.startswith("s") else _cut(a, int(source[1:])), int(to[1:]))


def _shuffle(parts: list[str], kind: str, bits: int, a: Value, lane: Value, _clamp: Value, _mask: Value) -> Value:
    if np.ndim(a) == 0:
        return a
    lanes = np.broadcast_to(lane, a.shape).reshape(-1, WARP).astype(np.int64) % WARP
    if "bfly" in parts:
        lanes = lanes ^ np.arange(WARP)
    elif "idx" not in parts:
        raise NotComputable(f"shfl.{'.'.join(parts)} is not known")
    return np.take_along_axis(a.reshape(-1, WARP), lanes, 1).reshape(-1)


def _permute(parts: list[str], kind: str, bits: int, a: Value, b: Value, places: Value) -> Value:
    both, result = a | (b << np.uint64(32)), np.uint64(0)
    for i in range(4):
        place = places >> np.uint64(4 * i)
        if np.any(place & np.uint64(8)):
            raise NotComputable("prmt that repeats a sign")
        byte = (both >> (np.uint64(8) * (place & np.uint64(7)))) & np.uint64(255)
        result = result | (byte << np.uint64(8 * i))
    return result


def _extreme(function: Callable[..., Value]) -> Callable[..., Value]:
    return lambda parts, kind, bits, a, b: _cut(function(_wide(a, kind, bits), _wide(b, kind, bits)), bits)


_OPERATIONS: dict[str, Callable[..., Value]] = {
    "mov": _plain(lambda a: a),
    "add": _plain(lambda a, b: a + b),
    "sub": _plain(lambda a, b: a - b),
    "and": _plain(lambda a, b: a & b),
    "or": _plain(lambda a, b: a | b),
    "xor": _plain(lambda a, b: a ^ b),
    "not": _plain(lambda a: ~a),
    "neg": _plain(lambda a: np.uint64(0) - a),
    "shl": _plain(lambda a, b: np.where(b > 63, np.uint64(0), a << np.minimum(b, np.uint64(63)))),
    "shr": _shift_right,
    "mul": _multiply,
    "mad": _multiply,
    "bfe": _field,
    "setp": _compare,
    "selp": _plain(lambda a, b, p: np.where(p != 0, a, b)),
    "cvt": _convert,
    "shfl": _shuffle,
    "prmt": _permute,
    "min": _extreme(np.minimum),
    "max": _extreme(np.maximum),
}
