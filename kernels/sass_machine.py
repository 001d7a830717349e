"""Run the integers of a kernel's machine code (SASS), for one thread, straight through: what its products are given.

Instructions are run in the order of the text, each once; branches are not followed.  What comes from memory, from
floating-point arithmetic or from an instruction that is not known here is UNKNOWN; a register that nothing has written
yet is UNWRITTEN, and so is what is computed from it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .ptx_integers import WARP
from .sass import Instruction

# A register's 32 bits, a predicate's truth, or one of the two below.
Value = int | str
UNKNOWN, UNWRITTEN = "unknown", "never written"
WORD, PAIR = (1 << 32) - 1, (1 << 64) - 1
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "GE": operator.ge, "GT": operator.gt, "LT": operator.lt, "LE": operator.le, "EQ": operator.eq, "NE": operator.ne,
}  # fmt: skip
# Instructions that may begin with a register, and write none.
_NO_RESULT = ("BAR", "BRA", "BRX", "NANOSLEEP", "RET", "WARPSYNC")
# Parts of names of forms that are not computed here.
_OTHER_FORMS = {"EX", "HI", "SX32", "U64", "S64", "64", "W", "WIDE", "X"}


@dataclass(frozen=True)
class Product:
    """A ``wgmma`` in machine code: its instruction, and the descriptors of those operands that are in shared memory."""

    instruction: Instruction
    descriptors: tuple[Value, ...]


def apply(function: Callable[..., int], *values: Value) -> Value:
    """Compute a number from others, unless one of them is none."""
    if UNWRITTEN in values:
        return UNWRITTEN
    return UNKNOWN if UNKNOWN in values else function(*values)


def products(instructions: Iterable[Instruction], warp: int) -> list[Product]:
    """Return the products that the first thread of a warp of program (0, 0, 0) starts."""
    machine = _Machine(warp)
    return [product for instruction in instructions if (product := machine.run(instruction))]


class _Machine:
    """The registers and predicates of one thread."""

    def __init__(self, warp: int) -> None:
        self.warp = warp
        self.values: dict[str, Value] = {}

    def run(self, instruction: Instruction) -> Product | None:
        """Run one instruction; return it with its descriptors if it is a product."""
        runs = self._truth(instruction.guard or "PT")
        if runs == 0:
            return None
        if instruction.op.endswith("GMMA"):
            return self._product(instruction)
        before = self.values.copy() if instruction.guard else {}
        method = getattr(self, f"_{instruction.op.lower()}", None)
        if method is None or not method(set(instruction.parts), *instruction.operands):
            self._forget(instruction)
        if runs in (UNKNOWN, UNWRITTEN):
            changed = [name for name, value in self.values.items() if before.get(name) != value]
            self.values.update(dict.fromkeys(changed, UNKNOWN))
        return None

    # Operands.

    def _word(self, text: str) -> Value:
        """Return the 32 bits of an operand: a register or a number, perhaps negated."""
        name = text.lstrip("-~")
        value: Value = UNKNOWN
        if name in ("RZ", "URZ"):
            value = 0
        elif re.fullmatch(r"0x[0-9a-f]+|\d+", name):
            value = int(name, 0)
        elif re.fullmatch(r"U?R\d+", name):
            value = self.values.get(name, UNWRITTEN)
        signs: dict[str, Callable[[int], int]] = {"-": operator.neg, "~": operator.invert}
        sign = signs.get(text[0], operator.pos)
        return apply(lambda number: sign(number) & WORD, value)

    def _pair(self, text: str) -> Value:
        """Return the 64 bits of an operand: a register and the next one, or a number."""
        name = text.lstrip("-").removesuffix(".64")
        if found := re.fullmatch(r"(U?R)(\d+)", name):
            value = apply(
                lambda low, high: high << 32 | low, self._word(name), self._word(f"{found[1]}{int(found[2]) + 1}")
            )
        else:
            value = self._word(name)
        return apply(lambda number: (-number if text.startswith("-") else number) & PAIR, value)

    def _truth(self, text: str) -> Value:
        """Return a predicate's truth, 0 or 1."""
        name = text.lstrip("!")
        value = 1 if name in ("PT", "UPT") else self.values.get(name, UNKNOWN)
        return apply(lambda truth: truth ^ text.startswith("!"), value)

    def _set(self, name: str, value: Value) -> bool:
        """Write a register or a predicate, and return True: this is known."""
        if name not in ("RZ", "URZ", "PT", "UPT"):
            self.values[name] = apply(lambda number: number & WORD, value)
        return True

    def _set_pair(self, name: str, value: Value) -> bool:
        for place, register in enumerate(_registers(name, 2)):
            self._set(register, apply(lambda number, shift=32 * place: number >> shift, value))
        return True

    def _forget(self, instruction: Instruction) -> None:
        """What an instruction that is not known here writes is unknown."""
        operands = list(instruction.operands)
        if instruction.op in _NO_RESULT:
            return
        while operands and re.fullmatch(r"U?P[\dT]", operands[0]):
            self._set(operands.pop(0), UNKNOWN)
        if operands:
            for register in _registers(operands[0], _width(instruction)):
                self._set(register, UNKNOWN)

    def _product(self, instruction: Instruction) -> Product:
        place = next(i for i, operand in enumerate(instruction.operands) if operand.startswith("gdesc"))
        first = int(re.findall(r"UR(\d+)", instruction.operands[place])[0])
        self._forget(instruction)
        # Two descriptors of two registers each; where A is in registers of the threads, the first one is not used.
        used = (first + 2,) if place == 2 else (first, first + 2)
        return Product(instruction, tuple(self._pair(f"UR{register}") for register in used))

    # Instructions: each gets all parts of the name and the operands, and returns whether it knew this form.

    def _mov(self, parts: set[str], target: str, source: str, *_: str) -> bool:
        return self._set(target, self._word(source))

    def _r2ur(self, parts: set[str], *operands: str) -> bool:
        return self._set(next(name for name in operands if name.startswith("UR")), self._word(operands[-1]))

    def _s2r(self, parts: set[str], target: str, source: str) -> bool:
        if "SR_TID.X" in source:
            return self._set(target, WARP * self.warp)
        return source.startswith(("SR_CTAID", "SR_CgaCtaId", "SR_LANEID")) and self._set(target, 0)

    _s2ur = _s2r

    def _cs2r(self, parts: set[str], target: str, source: str) -> bool:
        return source == "SRZ" and "32" not in parts and self._set_pair(target, 0)

    def _viadd(self, parts: set[str], target: str, a: str, b: str) -> bool:
        return self._set(target, apply(lambda x, y: x + y, self._word(a), self._word(b)))

    def _iadd3(self, parts: set[str], target: str, *operands: str) -> bool:
        if "64" in parts:
            return self._set_pair(target, apply(lambda *terms: sum(terms), *map(self._pair, operands[:3])))
        carries = [name for name in operands[:2] if re.fullmatch(r"U?P[\dT]", name)]
        terms, rest = operands[len(carries) :][:3], operands[len(carries) + 3 :]
        added = map(self._truth, rest if "X" in parts else ())
        total = apply(lambda *numbers: sum(numbers), *map(self._word, terms), *added)
        for name in carries:
            self._set(name, UNKNOWN)
        # What a negated register carries is not computed here.
        if carries and not any(re.match(r"-U?R", term) for term in terms):
            self._set(carries[0], UNKNOWN if isinstance(total, str) else int(total > WORD))
        return self._set(target, total)

    def _shf(self, parts: set[str], target: str, low: str, amount: str, high: str) -> bool:
        if "L" in parts and not parts & _OTHER_FORMS:
            return self._set(target, apply(lambda a, n: a << min(n, 32), self._word(low), self._word(amount)))
        if {"R", "HI"} <= parts and not parts & (_OTHER_FORMS - {"HI"}):
            number = apply(_signed, self._word(high)) if "S32" in parts else self._word(high)
            return self._set(target, apply(lambda a, n: a >> min(n, 32), number, self._word(amount)))
        return False

    def _sgxt(self, parts: set[str], target: str, source: str, bits: str) -> bool:
        def extend(a: int, n: int) -> int:
            a &= (1 << n) - 1
            return a if "U32" in parts or not a >> (n - 1) else a | WORD & ~((1 << n) - 1)

        return self._set(target, apply(extend, self._word(source), self._word(bits)))

    def _lop3(self, parts: set[str], *operands: str) -> bool:
        if re.fullmatch(r"U?P[\dT]", operands[0]):
            self._set(operands[0], UNKNOWN)
            operands = operands[1:]
        target, *sources, table = operands[:5]
        return self._set(target, apply(lambda *abc: _look_up(int(table, 0), *abc), *map(self._word, sources)))

    def _lea(self, parts: set[str], target: str, a: str, b: str, *rest: str) -> bool:
        if re.fullmatch(r"U?P\d", a) or parts & (_OTHER_FORMS - {"HI"}):
            return False
        first, second, *others = map(self._word, (a, b, *rest[: 1 + ("HI" in parts)]))
        if "HI" in parts:
            return self._set(target, apply(lambda x, y, z, n: ((z << 32 | x) << n >> 32) + y, first, second, *others))
        return self._set(target, apply(lambda x, y, n: (x << n) + y, first, second, *others))

    def _imad(self, parts: set[str], target: str, *operands: str) -> bool:
        if re.fullmatch(r"U?P\d", operands[0]) or parts & _OTHER_FORMS:
            return False
        return self._set(target, apply(lambda a, b, c: a * b + c, *map(self._word, operands[:3])))

    def _isetp(self, parts: set[str], target: str, second: str, a: str, b: str, other: str, *_: str) -> bool:
        compare = next((function for name, function in _COMPARISONS.items() if name in parts), None)
        if compare is None or parts & _OTHER_FORMS or second not in ("PT", "UPT") or not parts & {"AND", "OR"}:
            return False
        values = [self._word(text) if "U32" in parts else apply(_signed, self._word(text)) for text in (a, b)]
        join = operator.and_ if "AND" in parts else operator.or_
        truth = apply(lambda x, y, z: int(join(compare(x, y), bool(z))), *values, self._truth(other))
        return self._set(target, UNKNOWN if isinstance(truth, str) else truth)

    def _sel(self, parts: set[str], target: str, a: str, b: str, which: str) -> bool:
        truth = self._truth(which)
        return self._set(target, UNKNOWN if isinstance(truth, str) else self._word(a if truth else b))

    def _shfl(self, parts: set[str], predicate: str, target: str, source: str, lane: str, *_: str) -> bool:
        # From the first thread of the warp, which is the one that is run here.
        return "IDX" in parts and predicate == "PT" and self._word(lane) == 0 and self._set(target, self._word(source))


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number


def _look_up(table: int, a: int, b: int, c: int) -> int:
    """Return what a table of eight bits makes of every three bits."""
    result = 0
    for i in range(8):
        if table >> i & 1:
            result |= (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
    return result


def _registers(name: str, count: int) -> list[str]:
    """Return ``count`` consecutive registers, the first one by its name; an empty list if it names none."""
    found = re.fullmatch(r"(U?R)(\d+)", name)
    return [f"{found[1]}{int(found[2]) + i}" for i in range(count)] if found else []


def _width(instruction: Instruction) -> int:
    """Return how many registers an instruction writes that is not known here."""
    if sizes := re.search(r"GMMA\.64x(\d+)x", instruction.text):
        return int(sizes[1]) // 2
    if instruction.op == "LDSM":
        return int(instruction.parts[-1]) if instruction.parts[-1] in ("2", "4") else 1
    if instruction.op == "HMMA" or "128" in instruction.parts:
        return 4
    return 2 if {"64", "WIDE"} & set(instruction.parts) or instruction.op == "CS2R" else 1
