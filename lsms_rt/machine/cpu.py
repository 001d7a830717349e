"""The CPU of this machine: its name, and the instructions that decide which precision is fast on it."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# What a container may use: microseconds of all its threads together, or "max", in so many microseconds.
QUOTA = Path("/sys/fs/cgroup/cpu.max")
# Instructions that multiply bf16 and INT8, by the names that Linux gives them; the widest first.
BF16 = ("amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16")
INT8 = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm")
# All that matter, in the order in which they are listed; asimd and those after it are Arm's.
INSTRUCTIONS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx_ne_convert", "avx512_bf16", "avx512_fp16", "amx_int8",
    "amx_bf16", "asimd", "sve", "i8mm", "bf16",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """A CPU.

    Attributes:
        name: the manufacturer's name of it, as far as the system knows it.
        instructions: those of ``INSTRUCTIONS`` that every core has, in that order; None if the system does not tell.
    """

    name: str
    instructions: tuple[str, ...] | None

    @property
    def known(self) -> bool:
        """Whether the system tells which instructions it has."""
        return self.instructions is not None

    @property
    def arm(self) -> bool:
        """Whether it is known to be a 64-bit Arm CPU."""
        return self.has("asimd")

    @property
    def bf16(self) -> str | None:
        """The instructions that multiply bf16; None if it has none, or the system does not tell."""
        return next(filter(self.has, BF16), None)

    @property
    def int8(self) -> str | None:
        """The instructions that multiply INT8; None if it has none, or the system does not tell."""
        return next(filter(self.has, INT8), None)

    def has(self, instruction: str) -> bool:
        """Return whether it is known to have an instruction."""
        return instruction in (self.instructions or ())

    def __str__(self) -> str:
        if self.instructions is None:
            return f"{self.name}; instructions: unknown on this system"
        return f"{self.name}; {', '.join(self.instructions) or 'none of ' + ', '.join(INSTRUCTIONS)}"


def find(path: Path = CPUINFO) -> Cpu:
    """Return this CPU; never raises.  Only Linux tells the instructions.

    Args:
        path: Linux's list of processors; injectable for tests.
    """
    try:
        processors = _processors(path.read_text(errors="replace"))
    except OSError:
        processors = []
    # x86 names them flags, Arm Features.
    sets = [set(words.split()) for fields in processors if (words := fields.get("flags") or fields.get("Features"))]
    # The cores of one CPU may differ; a thread may run on any of them.
    common = set.intersection(*sets) if sets else None
    known = None if common is None else tuple(name for name in INSTRUCTIONS if name in common)
    return Cpu(name=_name(processors), instructions=known)


def cpu_count(quota: Path = QUOTA) -> int:
    """Return the number of CPUs that this process may use: logical ones, in a container below the machine's.

    Args:
        quota: Linux's file of a container's share; injectable for tests.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        share, period = map(int, quota.read_text().split())
        return min(count, max(1, math.ceil(share / period)))
    except (OSError, ValueError, ZeroDivisionError):
        # There is no such limit.
        return count


def _processors(text: str) -> list[dict[str, str]]:
    """Split the list into one record per paragraph: the processors, and on Arm one of the board."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        parts = (line.partition(":") for line in paragraph.splitlines())
        paragraphs.append({name.strip(): value.strip() for name, _, value in parts})
    return paragraphs


def _name(processors: list[dict[str, str]]) -> str:
    """Return x86's name of the processor, else Arm's of the board, else what there is to look it up."""
    fields: Mapping[str, str] = {name: value for paragraph in reversed(processors) for name, value in paragraph.items()}
    for name in ("model name", "Model"):
        if fields.get(name):
            return fields[name]
    if "CPU part" in fields:
        return f"Arm, implementer {fields.get('CPU implementer', 'unknown')}, part {fields['CPU part']}"
    return platform.processor() or platform.machine() or "unknown"
