"""Compile kernels and prove what can be proved without a GPU: ``python -m lsms_rt.kernels.prove --arch sm_90``.

For every kernel and shape: no spills, no stack, little enough shared memory; no race in shared memory
(``ptx_checks.py``); all accesses in bounds, outputs written wholly, once (``ptx_bounds.py``); and the same resources
from all assemblers that are there (``toolchains.py``), because a driver assembles a plugin's PTX itself.  What each of
them makes of products on sm_90 is compared with the PTX (``sass_checks.py``).  The Triton that compiles is the one that
Python finds: with ``PYTHONPATH=FOLDER``, one installed there.  A kernel is proved, open (something could not be
computed) or wrong; fails if one is wrong, or open for another reason than ``NOT_COVERED``.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType

from lsms_rt.model.config import OWN_TOKENS, PRESETS

from . import registry
from .aot import TARGETS, Compiled, compile_launch, own_assembler, resource_violations, save
from .launch import Launch
from .ptx import assemble
from .ptx_bounds import out_of_bounds
from .ptx_checks import check
from .ptx_integers import NotComputable
from .ptx_trace import launches
from .sass_checks import wrong_descriptors
from .shape import TOKEN_COUNTS, Shape, image_side, is_svla, shapes_around, stage_shapes
from .toolchains import assemblers, version

# Architectures whose products use tensor memory and mbarriers, which the checks do not know.
NOT_COVERED = ("sm_100", "sm_110")


@dataclass
class Proof:
    """What was found about one launch for one architecture.

    Attributes:
        compiled: the code.
        wrong: what is wrong, in words; nothing if all is proved.
        open: what could not be proved, in words.
        resources: assembler -> registers and bytes of spills; the first is Triton's own.
    """

    compiled: Compiled
    wrong: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    resources: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Return "proved", "open" or "wrong"."""
        return "wrong" if self.wrong else "open" if self.open else "proved"

    @property
    def fails(self) -> bool:
        """Return whether something is wrong, or open that should be proved."""
        return bool(self.wrong) or (bool(self.open) and self.compiled.arch not in NOT_COVERED)

    def line(self) -> str:
        """Return the proof as a line of text."""
        name = f"{self.compiled.kernel} {self.compiled.shape} {self.compiled.arch}"
        found = ", ".join(f"{tool}: {registers} registers, {spills} B spilled"
                          for tool, (registers, spills) in self.resources.items())  # fmt: skip
        why = "; ".join([*self.wrong, *(f"not computable: {what}" for what in self.open)])
        return f"{name}: {': '.join(filter(None, (self.state, why)))} ({found})"


def prove(
    launch: Launch, shape: Shape, arch: str, ptxas: Mapping[str, Path] = MappingProxyType({}), bounds: bool = True
) -> Proof:  # fmt: skip
    """Compile one launch, and check it.

    Args:
        launch: the kernel and its tiles.
        shape: the shape.
        arch: the architecture.
        ptxas: other assemblers, by version.
        bounds: False to skip the accesses of all programs, which take the longest for large maps.
    """
    compiled = compile_launch(launch, shape, arch)
    proof = Proof(compiled)
    proof.resources["triton"] = compiled.registers, compiled.spills
    proof.wrong += resource_violations([compiled.row()])
    middle = compiled.grid[0] // 2, compiled.grid[1] // 2, 1
    last = compiled.grid[0] - 1, compiled.grid[1] - 1, 0
    try:
        proof.wrong += [f"line {fault.line}: {fault.what}"
                        for fault in check(compiled.ptx, compiled.shared, {(0, 0, 0), middle, last})]  # fmt: skip
    except NotComputable as reason:
        proof.open.append(f"shared memory ({reason})")
    if bounds:
        try:
            proof.wrong += out_of_bounds(compiled, shape)
        except NotComputable as reason:
            proof.open.append(f"bounds ({reason})")
    # One assembler's machine code twice is checked once, under its version.
    made = {compiled.cubin: version(own_assembler(arch))}
    for name, tool in ptxas.items():
        try:
            other = assemble(compiled.ptx, str(tool))
        except ValueError as reason:
            proof.wrong.append(f"{name}: {reason}")
        else:
            made.setdefault(other.cubin, name)
            proof.resources[name] = other.registers, other.spills
            if other.spills or other.stack:
                proof.wrong.append(f"{name} spills {other.spills} B, stack {other.stack} B")
    for cubin, name in made.items():
        _check_machine_code(proof, name, cubin)
    return proof


def _check_machine_code(proof: Proof, assembler: str, cubin: bytes) -> None:
    """Add what is wrong with the machine code that an assembler made: the first finding, and how many there are."""
    try:
        found = wrong_descriptors(proof.compiled.ptx, cubin)
    except NotComputable as reason:
        proof.open.append(f"machine code of {assembler} ({reason})")
    else:
        proof.wrong += [f"machine code of {assembler}: {what}; {len(found)} in all" for what in found[:1]]


def cases(
    shapes: Sequence[Shape], archs: Sequence[str], modules: Sequence[ModuleType] = registry.MODULES, sample: int = 1
) -> Iterator[tuple[Launch, Shape, str]]:
    """Yield launch, shape and architecture of kernels, also of those that no chain launches at a shape.

    ``sample`` takes every so many of them, others at every shape, so that several shapes have all kernels.
    """
    for arch in archs:
        for i, shape in enumerate(shapes):
            here = [
                module
                for module in modules
                if module in (registry.MODULES if is_svla(shape) else registry.chain(shape))
            ]
            found = [launch for module in here for launch in launches(module, shape)]
            for launch in found[i % sample :: sample]:
                yield launch, shape, arch


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", choices=list(TARGETS), default=["sm_90"], help="(default: %(default)s)")
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=["base"], help="(default: %(default)s)")
    parser.add_argument("--image-size", nargs="+", type=image_side, default=[512], help="(default: %(default)s)")
    parser.add_argument(
        "--stage", nargs="+", type=int, choices=range(1, 5), default=[1, 2, 3, 4], help="of the encoder (default: all)"
    )
    parser.add_argument("--dtype", nargs="+", choices=["fp16", "fp32"], default=["fp16"], help="(default: %(default)s)")
    parser.add_argument(
        "--tokens", nargs="+", type=int, choices=TOKEN_COUNTS, default=[OWN_TOKENS], help="(default: %(default)s)"
    )
    names = [registry.name(module) for module in (*registry.MODULES, *registry.AROUND)]
    parser.add_argument("--kernel", nargs="+", choices=names, default=names, help="(default: all)")
    parser.add_argument(
        "--sample", type=int, default=1, metavar="N", help="take every Nth kernel of a shape (default: %(default)s)"
    )
    parser.add_argument("--no-ptxas", action="store_true", help="leave out the other assemblers")
    parser.add_argument("--no-bounds", action="store_true", help="leave out the accesses of all programs")
    parser.add_argument("-o", "--output", type=Path, help="folder for PTX, cubin and metadata (default: none)")
    options = parser.parse_args(argv)
    shapes = list(dict.fromkeys(
        shape
        for dtype in options.dtype
        for tokens in options.tokens
        for preset in options.preset
        for size in options.image_size
        for stage, shape in enumerate(stage_shapes(preset, size, dtype, tokens), 1)
        if stage in options.stage
    ))  # fmt: skip
    if options.stage == parser.get_default("stage"):
        shapes += dict.fromkeys(
            shape
            for dtype in options.dtype
            for preset in options.preset
            for size in options.image_size
            for shape in shapes_around(preset, size, dtype)
        )
    states, failed = Counter[str](), 0
    tools = {} if options.no_ptxas else assemblers()
    every = (*registry.MODULES, *registry.AROUND)
    modules = [module for module in every if registry.name(module) in options.kernel]
    for launch, shape, arch in cases(shapes, options.arch, modules, options.sample):
        proof = prove(launch, shape, arch, tools, not options.no_bounds)
        print(proof.line(), flush=True)
        states[proof.state] += 1
        failed += proof.fails
        if options.output:
            save(options.output, proof.compiled)
    found = ", ".join(f"{states[state]} {state}" for state in ("proved", "open", "wrong"))
    left_out = "; bounds left out" if options.no_bounds else ""
    print(f"{found} of {states.total()} kernels, by Triton {_triton()}{left_out}")
    return 4 if failed else 0


def _triton() -> str:
    import triton

    return str(triton.__version__)


if __name__ == "__main__":
    sys.exit(main())
