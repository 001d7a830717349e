"""Cross-compile the kernels ahead of time: ``python -m lsms_rt.kernels.aot --arch sm_87 -o DIR``; no GPU is needed.

Prints the registers, spills and shared memory of every kernel at every shape of a model; -o writes PTX, cubin and
launch metadata.  ``--report FILE`` writes the table as JSON.  ``make aot`` makes the committed table,
bench/results/aot/kernels.json; a test compiles a part of it again and compares.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from lsms_rt.machine.cpu import cpu_count
from lsms_rt.model.config import MAX_TOKENS, OWN_TOKENS, PRESETS

from .launch import Launch
from .registry import launches, modules_at
from .shape import TOKEN_COUNTS, Shape, image_side, shapes_around, stage_shapes

# Bytes of shared memory, at most, by element type.  fp16: what a kernel gets without asking the driver for more, which
# TensorRT never does.  fp32 kernels are not plugins: Triton's launcher asks, and every architecture has 99 KiB.
SHARED_LIMITS = {"fp16": 48 * 1024, "fp32": 99 * 1024}


@dataclass(frozen=True)
class Target:
    """An architecture; ``ptx`` is the PTX version that its oldest supported driver reads."""

    arch: int
    ptx: int
    devices: str


TARGETS = {
    "sm_80": Target(80, 85, "A100, A30"),
    "sm_86": Target(86, 85, "A10, A40, RTX 30"),
    "sm_87": Target(87, 85, "Jetson Orin"),
    "sm_89": Target(89, 85, "L4, L40, RTX 40"),
    "sm_90": Target(90, 85, "H100, H200, GH200"),
    "sm_100": Target(100, 87, "B200, GB200"),
    "sm_110": Target(110, 90, "Jetson Thor"),
    "sm_120": Target(120, 87, "RTX 50, RTX PRO Blackwell"),
}


@dataclass(frozen=True)
class Compiled:
    """One kernel for one target: all that a loader needs, and the resources it uses.

    Attributes:
        kernel: name of the kernel.
        shape: key of the shape.
        arch: the architecture, a key of TARGETS.
        target: the PTX's own target; one that ends in "a" loads on no other architecture.
        entry: name of the entry point.
        arguments: name -> element type of the pointers, in order.
        outputs: number of pointers, the last ones, that are written.
        grid: (x, y); z is the batch.
        block: threads per block.
        shared: dynamic shared memory in bytes.
        registers: registers per thread.
        spills: spilled bytes, stores and loads.
        stack: bytes of stack.
        ptx: the code, without Triton's hidden parameters.
        cubin: the assembled code.
    """

    kernel: str
    shape: str
    arch: str
    target: str
    entry: str
    arguments: dict[str, str]
    outputs: int
    grid: tuple[int, int]
    block: int
    shared: int
    registers: int
    spills: int
    stack: int
    ptx: str
    cubin: bytes

    def metadata(self) -> dict[str, Any]:
        """Everything but the code."""
        return {name: value for name, value in asdict(self).items() if name not in ("ptx", "cubin")}

    def row(self) -> dict[str, Any]:
        """The columns of the table."""
        names = ("kernel", "shape", "arch", "target", "grid", "block", "registers", "spills", "stack", "shared")
        return {name: self.metadata()[name] for name in names}


def compile_launch(launch: Launch, shape: Shape, arch: str) -> Compiled:
    """Compile one launch for ``arch``, remove Triton's hidden parameters from the PTX, and assemble it.

    Raises:
        RuntimeError: TRITON_INTERPRET is set, so there is nothing to compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from .ptx import assemble, strip_hidden_parameters, target_of

    if not hasattr(launch.kernel, "arg_names") or not isinstance(launch.kernel, triton.JITFunction):
        raise RuntimeError("the kernels are interpreted in this process; unset TRITON_INTERPRET to compile them")
    target = TARGETS[arch]
    names, pointers = launch.kernel.arg_names, list(launch.arguments.values())
    signature = dict(zip(names, (f"*{dtype}" for dtype in pointers), strict=False))
    signature |= dict.fromkeys(launch.constants, "constexpr")
    # Buffers of PyTorch, TensorRT and CUDA are aligned to 256 bytes; without this hint, loads are not vectorized.
    attributes = {(i,): [["tt.divisibility", 16]] for i in range(len(pointers))}
    source = ASTSource(launch.kernel, signature, dict(launch.constants), attributes)
    options = {
        "num_warps": launch.warps, "num_stages": launch.stages, "ptx_version": target.ptx, "enable_fp_fusion": True,
    }  # fmt: skip
    binary = triton.compile(source, target=GPUTarget("cuda", target.arch, 32), options=options)
    ptx = strip_hidden_parameters(binary.asm["ptx"], len(pointers))
    code = assemble(ptx, str(own_assembler(arch)))
    return Compiled(
        kernel=launch.kernel.__name__, shape=shape.key, arch=arch, target=target_of(ptx), entry=binary.metadata.name,
        arguments=dict(launch.arguments), outputs=launch.outputs, grid=launch.grid, block=launch.warps * 32,
        shared=binary.metadata.shared, registers=code.registers, spills=code.spills, stack=code.stack, ptx=ptx,
        cubin=code.cubin,
    )  # fmt: skip


def own_assembler(arch: str) -> Path:
    """Return the path of the assembler that Triton uses for an architecture, a key of TARGETS."""
    from triton.backends.nvidia import compiler

    tool = compiler.get_ptxas(TARGETS[arch].arch)
    return Path(tool.path if hasattr(tool, "path") else tool[0])


def _rows(task: tuple[Shape, str]) -> list[Compiled]:
    shape, arch = task
    return [compile_launch(launch, shape, arch) for module in modules_at(shape) for launch in launches(module, shape)]


def compile_all(shapes: Iterable[Shape], archs: Iterable[str], jobs: int) -> Iterator[list[Compiled]]:
    """Compile all kernels in ``jobs`` processes; yield one list per pair of architecture and shape."""
    tasks = [(shape, arch) for arch in archs for shape in shapes]
    if jobs <= 1:
        yield from map(_rows, tasks)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_rows, tasks)


def save(folder: Path, compiled: Compiled) -> None:
    """Write ``folder/ARCH/SHAPE/KERNEL.{ptx,cubin,json}``."""
    target = folder / compiled.arch / compiled.shape
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{compiled.kernel}.ptx").write_text(compiled.ptx)
    (target / f"{compiled.kernel}.cubin").write_bytes(compiled.cubin)
    (target / f"{compiled.kernel}.json").write_text(json.dumps(compiled.metadata(), indent=1) + "\n")


def resource_violations(rows: Iterable[dict[str, Any]]) -> list[str]:
    """List kernels with spilled registers, a stack, or more shared memory than a launch gets."""
    return [
        f"{row['kernel']} {row['shape']} {row['arch']}: spills {row['spills']} B, stack {row['stack']} B, "
        f"shared {row['shared']} B (limit {shared_limit(row)})"
        for row in rows
        if row["spills"] or row["stack"] or row["shared"] > shared_limit(row)
    ]


def shared_limit(row: dict[str, Any]) -> int:
    """Return the bytes of shared memory that the kernel of a row may need."""
    return SHARED_LIMITS[row["shape"].rpartition("_")[2]]


# Column widths; negative ones are aligned left.
COLUMNS = {"kernel": -26, "shape": -28, "arch": -8, "target": -9, "grid": 10, "block": 7, "registers": 11, "spills": 8}
COLUMNS |= {"shared": 8}


def line(row: dict[str, Any]) -> str:
    """Format one line of the table."""
    cells = row | {"grid": "x".join(map(str, row["grid"]))} if isinstance(row["grid"], (tuple, list)) else row
    texts = [(str(cells[name]), width) for name, width in COLUMNS.items()]
    return "".join(text.ljust(-width) if width < 0 else text.rjust(width) for text, width in texts)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--arch", nargs="+", choices=list(TARGETS), default=list(TARGETS), help="architectures to compile for"
    )
    parser.add_argument(
        "--preset",
        nargs="+",
        choices=list(PRESETS),
        default=["tiny", "base"],
        help="small and large have base's shapes",
    )
    parser.add_argument(
        "--image-size", nargs="+", type=image_side, default=[512], help="side of the input, a multiple of 32"
    )
    parser.add_argument("--dtype", nargs="+", choices=["fp16", "fp32"], default=["fp16"], help="of the maps")
    parser.add_argument(
        "--tokens", nargs="+", type=int, choices=TOKEN_COUNTS, default=[OWN_TOKENS, MAX_TOKENS],
        help="of a sentence, padded",
    )  # fmt: skip
    # Not all of the machine's: a process takes two seconds to import PyTorch and Triton.
    parser.add_argument(
        "--jobs", type=int, default=cpu_count(), help="processes (default: the CPUs that this one may use, %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, help="folder for PTX, cubin and metadata")
    parser.add_argument("--report", type=Path, help="JSON file for the table")
    options = parser.parse_args(argv)
    shapes = dict.fromkeys(
        shape
        for dtype in options.dtype
        for tokens in options.tokens
        for preset in options.preset
        for size in options.image_size
        for shape in (*stage_shapes(preset, size, dtype, tokens), *shapes_around(preset, size, dtype))
    )
    rows: list[dict[str, Any]] = []
    print(line({name: name for name in COLUMNS}))
    if options.output:
        # Fail before the expensive steps.
        options.output.mkdir(parents=True, exist_ok=True)
    for part in compile_all(shapes, options.arch, options.jobs):
        for compiled in part:
            rows.append(compiled.row())
            print(line(rows[-1]), flush=True)
            if options.output:
                save(options.output, compiled)
    if options.report:
        write_report(options.report, rows)
    violations = resource_violations(rows)
    for violation in violations:
        print(f"error: {violation}", file=sys.stderr)
    return 4 if violations else 0


def write_report(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table as a record; one row is one line."""
    import triton

    from lsms_rt.bench.records import AOT, record_of, write

    what = "kernels compiled ahead of time"
    write(path, record_of(AOT, ("triton",), what=what, triton=triton.__version__, rows=rows))


if __name__ == "__main__":
    sys.exit(main())
