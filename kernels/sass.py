"""A kernel's machine code (SASS) as instructions, and what its integers are: by nvdisasm, which comes with Triton."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .ptx_integers import NotComputable
from .toolchains import disassembler


@dataclass(frozen=True)
class Instruction:
    """One instruction of machine code.

    Attributes:
        address: its place in the kernel.
        text: all of it, without the guard.
        parts: its name, split at the points; without the U of a uniform one.
        operands: their texts.
        guard: the predicate, with a "!" where it is negated, or "".
    """

    address: int
    text: str
    parts: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str = ""

    @property
    def op(self) -> str:
        """Its name, without suffixes."""
        return self.parts[0]


def disassemble(cubin: bytes) -> str:
    """Return the machine code as text; raises NotComputable if nvdisasm is missing or cannot read it."""
    tool = disassembler()
    if tool is None:
        raise NotComputable("nvdisasm, which comes with Triton, is not there")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        done = subprocess.run([str(tool), "-c", file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotComputable(f"nvdisasm cannot read the machine code: {done.stderr.strip()}")
    return done.stdout


def parse(text: str) -> list[Instruction]:
    """Read what nvdisasm printed."""
    lines = re.finditer(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?\w+)\s+)?(.*?)\s*;", text, re.MULTILINE)
    return [_instruction(int(line[1], 16), line[2] or "", line[3]) for line in lines]


def _instruction(address: int, guard: str, text: str) -> Instruction:
    name, _, rest = text.partition(" ")
    operands = (part.strip().replace(".reuse", "") for part in rest.split(","))
    return Instruction(address, text, tuple(name.removeprefix("U").split(".")), tuple(filter(None, operands)), guard)
