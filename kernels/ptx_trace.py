"""Count what a program of every kernel does, from its PTX, without a GPU: ``python -m lsms_rt.kernels.ptx_trace``.

One line per kernel and stage: dependent rounds of loads, barriers, accesses to shared memory, products, bytes,
instructions, and what the latency model (``latency.py``) makes of them; then launches and time per block and model.
The counts are exact for the compiled code; the times are computed, not measured.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from lsms_rt.model.config import OWN_TOKENS, PRESETS

from . import registry
from .aot import TARGETS, Compiled, compile_launch
from .latency import H200, Timeline, launch_seconds, walk
from .launch import DTYPES, Launch
from .ptx_code import Code, Instruction, is_copy, parse
from .ptx_integers import WARP
from .ptx_machine import Machine
from .shape import TOKEN_COUNTS, Shape, image_side, stage_shapes
from .tensors import size_of

# Bytes that the L1 cache asks of the L2 cache at least.
SECTOR = 32


@dataclass(frozen=True)
class Trace:
    """What one program of a launch does, and the time of the launch.

    Attributes:
        kernel: name of the kernel.
        shape: key of the shape.
        programs: of the launch, for one slice.
        threads: of a program.
        registers: of a thread.
        shared: bytes of shared memory of a program.
        code: instructions of the kernel.
        instructions: that a warp runs.
        rounds: loads that depend on another load, on a barrier or on a loop behind it: the chain of latencies.
        barriers: of all warps of the program.
        shared_loads: instructions of a warp.
        shared_stores: instructions of a warp.
        products: mma and wgmma instructions of a warp.
        loaded: bytes of the program, in sectors of 32, from the L2 cache; what it loads twice is in the L1 cache.
        stored: bytes of the program, likewise.
        cycles: of the program, by the latency model.
        microseconds: of the launch for ``batch`` slices with the gap before it, on an H200, by the latency model.
    """

    kernel: str
    shape: str
    programs: int
    threads: int
    registers: int
    shared: int
    code: int
    instructions: int
    rounds: int
    barriers: int
    shared_loads: int
    shared_stores: int
    products: int
    loaded: int
    stored: int
    cycles: int
    microseconds: float


def trace(compiled: Compiled, shape: Shape, batch: int = 1) -> Trace:
    """Trace the middle program of a launch.

    Raises:
        NotComputable: control flow or addresses depend on data.
    """
    code = parse(compiled.ptx)
    run, loaded, stored = _run(code, (compiled.grid[0] // 2, compiled.grid[1] // 2, 0))
    line: Timeline = walk(run, code.threads // WARP)
    steps = [instruction for instruction, _ in run]
    programs = compiled.grid[0] * compiled.grid[1]
    traffic = sum(
        math.prod(size_of(name, shape, batch)) * DTYPES[dtype].itemsize for name, dtype in compiled.arguments.items()
    )
    seconds = launch_seconds(
        line, programs * batch, code.threads, compiled.registers, compiled.shared, traffic, H200,
    )  # fmt: skip
    return Trace(
        compiled.kernel, compiled.shape, programs, code.threads, compiled.registers, compiled.shared,
        len(code.instructions), len(steps), line.rounds,
        _count(steps, "bar", "barrier"), _count(steps, "ld.shared", "ldmatrix"), _count(steps, "st.shared", "stmatrix"),
        _count(steps, "mma", "wgmma.mma_async"), loaded, stored, round(line.cycles), round(seconds * 1e6, 2),
    )  # fmt: skip


def launches(module: ModuleType, shape: Shape) -> list[Launch]:
    """Return a module's launches at a shape; none if the kernel does not support the shape."""
    try:
        return registry.launches(module, shape)
    except ValueError:
        return []


def traces(module: ModuleType, shape: Shape, arch: str, batch: int = 1) -> Iterator[Trace]:
    """Compile and trace all launches of a module."""
    for launch in launches(module, shape):
        yield trace(compile_launch(launch, shape, arch), shape, batch)


def _run(code: Code, program: tuple[int, int, int]) -> tuple[list[tuple[Instruction, bool]], int, int]:
    """Return a program's instructions in order, whether each loads only what is there, and bytes loaded and stored."""
    machine = Machine(code, np.array([program]))
    steps: list[tuple[Instruction, bool]] = []
    loaded, stored = set[int](), set[int]()
    for instruction in machine.run():
        sectors = set[int]()
        if instruction.is_a("ld.global"):
            sectors = _sectors(machine, instruction, instruction.operands[1], instruction.width)
        elif is_copy(instruction):
            # A copy of 0 bytes reads nothing: it fills with zeros.
            size = machine.value(instruction.operands[3]) if len(instruction.operands) > 3 else None
            read = np.True_ if size is None else size > 0
            sectors = _sectors(machine, instruction, instruction.operands[1], int(instruction.operands[2], 0), read)
        elif instruction.is_a("st.global"):
            stored |= _sectors(machine, instruction, instruction.operands[0], instruction.width)
        steps.append((instruction, sectors <= loaded))
        loaded |= sectors
    return steps, len(loaded) * SECTOR, len(stored) * SECTOR


def _sectors(
    machine: Machine, instruction: Instruction, operand: str, width: int, read: np.ndarray | np.bool_ = np.True_
) -> set[int]:
    """Return the sectors that the active threads touch, of those that ``read``."""
    active = np.broadcast_to(machine.active(instruction) & read, (machine.threads,))
    address = machine.address(operand)[active]
    return set((address // SECTOR).tolist()) | set(((address + width - 1) // SECTOR).tolist())


def _count(steps: Sequence[Instruction], *names: str) -> int:
    return sum(1 for step in steps if step.is_a(*names) and not step.op.startswith("bar.warp"))


COLUMNS = {
    "kernel": -26, "shape": -25, "programs": 9, "instructions": 13, "rounds": 7, "barriers": 9,
    "shared_loads": 13, "shared_stores": 14, "products": 9, "loaded": 9, "stored": 8, "cycles": 8, "microseconds": 13,
}  # fmt: skip


def line_of(row: dict[str, object]) -> str:
    """Format one line of the table."""
    cells = [(str(row[name]), width) for name, width in COLUMNS.items()]
    return "".join(text.ljust(-width) if width < 0 else text.rjust(width) for text, width in cells)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=list(TARGETS), default="sm_90", help="(default: %(default)s)")
    parser.add_argument("--preset", choices=list(PRESETS), default="base", help="(default: %(default)s)")
    parser.add_argument("--image-size", type=image_side, default=512, help="(default: %(default)s)")
    parser.add_argument("--dtype", choices=["fp16", "fp32"], default="fp16", help="(default: %(default)s)")
    parser.add_argument("--tokens", type=int, choices=TOKEN_COUNTS, default=OWN_TOKENS, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="slices, for the times (default: %(default)s)")
    names = [registry.name(module) for module in registry.MODULES]
    parser.add_argument("--kernel", nargs="+", choices=names, default=names, help="(default: all)")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the lines (default: none)")
    options = parser.parse_args(argv)
    rows: list[Trace] = []
    print(line_of({name: name for name in COLUMNS}))
    shapes = stage_shapes(options.preset, options.image_size, options.dtype, options.tokens)
    for module in registry.MODULES:
        if registry.name(module) in options.kernel:
            for shape in shapes:
                for row in traces(module, shape, options.arch, options.batch):
                    rows.append(row)
                    print(line_of(asdict(row)), flush=True)
    if options.kernel == names:
        print(*totals(rows, shapes, PRESETS[options.preset].depths), sep="\n")
    if options.output:
        options.output.write_text("[\n" + ",\n".join(json.dumps(asdict(row)) for row in rows) + "\n]\n")


def totals(rows: Sequence[Trace], shapes: Sequence[Shape], depths: Sequence[int]) -> list[str]:
    """Return a line per stage and one for the model: launches, rounds, barriers and time of the chain as it is."""
    lines, all_launches, all_time = [], 0, 0.0
    for stage, (shape, depth) in enumerate(zip(shapes, depths, strict=True), 1):
        chain = {launch.kernel.__name__ for module in registry.chain(shape) for launch in launches(module, shape)}
        part = [row for row in rows if row.shape == shape.key and row.kernel in chain]
        time = sum(row.microseconds for row in part)
        lines.append(
            f"stage {stage}, {shape.key}: {len(part)} launches a block, {sum(row.rounds for row in part)} rounds, "
            f"{sum(row.barriers for row in part)} barriers, {time:.1f} us computed; {depth} blocks"
        )
        all_launches += depth * len(part)
        all_time += depth * time
    return [*lines, f"model: {all_launches} launches of the block, {all_time:.0f} us computed"]


if __name__ == "__main__":
    main()
