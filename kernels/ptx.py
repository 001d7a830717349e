"""Make PTX from Triton loadable by others: remove its hidden parameters, and assemble it to check the result."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

# Triton appends a global and a profile scratch pointer to every kernel's parameters.
HIDDEN = 2


@dataclass(frozen=True)
class Assembled:
    """The output of ptxas: registers per thread, bytes of spills (stores and loads) and of stack, and the cubin."""

    registers: int
    spills: int
    stack: int
    cubin: bytes


def strip_hidden_parameters(ptx: str, declared: int) -> str:
    """Return the kernel with its ``declared`` parameters only.

    Raises:
        ValueError: there are others than Triton's two hidden ones, or the kernel uses those: it would need scratch
            memory that a plugin cannot pass.
    """
    entry = re.search(r"(\.visible \.entry \w+\()(.*?)(\n\))", ptx, re.DOTALL)
    if entry is None:
        raise ValueError("the PTX has no .visible .entry; only PTX from Triton can be used")
    lines = [line.strip().rstrip(",") for line in entry.group(2).splitlines() if line.strip()]
    names = [line.split()[-1] for line in lines]
    if len(names) != declared + HIDDEN:
        raise ValueError(f"the kernel has {len(names)} parameters, not {declared} and {HIDDEN} hidden ones: {names}")
    for name in names[declared:]:
        if len(re.findall(rf"\b{name}\b", ptx)) != 1:
            raise ValueError(f"the kernel uses its hidden parameter {name} (scratch memory); it cannot be a plugin")
    parameters = "\n" + ",\n".join(f"\t{line}" for line in lines[:declared])
    return ptx[: entry.start(2)] + parameters + ptx[entry.end(2) :]


def target_of(ptx: str) -> str:
    """Return the target of PTX, e.g. ``sm_90a``."""
    found = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)
    if found is None:
        raise ValueError("the PTX has no .target line; only PTX from Triton can be used")
    return found.group(1)


def assemble(ptx: str, ptxas: str) -> Assembled:
    """Assemble with ``ptxas`` for the PTX's own target; raises ValueError with the output of ptxas if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        source.write_text(ptx)
        command = [ptxas, "-v", "-arch", target_of(ptx), str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"ptxas rejected the PTX: {done.stderr.strip()}")
        cubin = target.read_bytes()
    registers, stores, loads, stack = (
        int(_find(pattern, done.stderr))
        for pattern in (
            r"Used (\d+) registers",
            r"(\d+) bytes spill stores",
            r"(\d+) bytes spill loads",
            r"(\d+) bytes stack",
        )
    )
    return Assembled(registers, stores + loads, stack, cubin)


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"the output of ptxas has no {pattern!r}: {text}")
    return found.group(1)
