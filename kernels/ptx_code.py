"""A kernel's PTX as instructions: operands, guards, and which registers each reads and writes."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

_NAME = re.compile(r"%[a-z]+\d+|\bcomplete\b")
# Instructions that write no register.
_NO_RESULT = (
    "st", "stmatrix", "red", "bar", "barrier", "bra", "ret", "fence", "membar", "mbarrier", "griddepcontrol", "tcgen05",
)  # fmt: skip


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
        return _is_a(self.op, names)

    @property
    def width(self) -> int:
        """Bytes per thread of a load or store."""
        return _width(self.op)


# Asked again whenever an instruction runs; kernels have few different names of instructions.
@functools.cache
def _is_a(op: str, names: tuple[str, ...]) -> bool:
    return any(op == name or op.startswith(name + ".") for name in names)


@functools.cache
def _width(op: str) -> int:
    vector = next((int(part[1:]) for part in op.split(".") if re.fullmatch(r"v\d", part)), 1)
    return vector * bits_of(op) // 8


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


@functools.cache
def bits_of(op: str) -> int:
    """Return the bits of an instruction's last type."""
    if op.endswith(("pred", "tid")):
        return 1
    found = re.findall(r"\.[a-z]+(\d+)(?:x2)?\b", op)
    return int(found[-1]) if found else 32
