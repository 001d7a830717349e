"""What is proved without a GPU: races in shared memory, bounds of global memory, and each check of a planted fault.

The compilers run in other processes, since the kernels of this one are interpreted.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from lsms_rt.kernels import ptx_checks, toolchains
from lsms_rt.kernels.aot import Compiled
from lsms_rt.kernels.prove import Proof
from lsms_rt.kernels.ptx_bounds import out_of_bounds
from lsms_rt.kernels.ptx_checks import _bytes, _matrix_registers, _product_bytes
from lsms_rt.kernels.ptx_code import parse
from lsms_rt.kernels.ptx_machine import Machine
from lsms_rt.kernels.ptx_trace import trace
from lsms_rt.kernels.shape import Shape

# gate_mix has two groups of four warps; mix has copies and products in a pipelined loop at stage 3.
STAGE1, STAGE3 = Shape(64, 64, 64), Shape(320, 16, 16)
SHAPES = {"depthwise_kernel": STAGE1, "gate_mix_kernel": STAGE1, "mix_kernel": STAGE3}
# Several tests check the same code.
check = functools.cache(ptx_checks.check)
KERNELS = ("--kernel", "depthwise", "gate_mix", "mix")
ARGUMENTS = (*KERNELS, "--image-size", "256", "--stage", "1", "3", "--no-ptxas", "--no-bounds")


def prove(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``lsms_rt.kernels.prove`` in another process, with the Triton in ``path``."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "lsms_rt.kernels.prove", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Compiled]:
    """Three kernels for sm_90, compiled now."""
    folder = tmp_path_factory.mktemp("proofs")
    done = prove(*ARGUMENTS, "-o", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for kernel, shape in SHAPES.items():
        path = folder / "sm_90" / shape.key / f"{kernel}.ptx"
        data = json.loads(path.with_suffix(".json").read_text())
        found[kernel] = Compiled(**data, ptx=path.read_text(), cubin=b"")
    return found


def removals(ptx: str, pattern: str) -> dict[int, str]:
    """Return the PTX without each instruction that a pattern matches: its line -> the rest."""
    places = [match.span() for match in re.finditer(rf"^[^\S\n]*{pattern}.*$", ptx, re.MULTILINE)]
    return {ptx.count("\n", 0, start) + 1: ptx[:start] + ptx[end:] for start, end in places}


BARRIER = "without a barrier after another warp's access"
PRODUCT = "written while a product reads it|used before the product was waited for"
FAULTS = [
    ("depthwise_kernel", r"bar\.sync", BARRIER),
    ("gate_mix_kernel", r"wgmma\.wait_group", PRODUCT),
    ("gate_mix_kernel", r"wgmma\.commit_group", PRODUCT),
    ("gate_mix_kernel", r"fence\.proxy\.async", "without a proxy fence"),
    ("mix_kernel", r"cp\.async\.wait_group", "read while a copy to it is under way"),
    ("mix_kernel", r"wgmma\.wait_group", PRODUCT),
    ("mix_kernel", r"wgmma\.commit_group", PRODUCT),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "pattern", "expected"), FAULTS)
def test_a_planted_race_is_found(compiled: dict[str, Compiled], kernel: str, pattern: str, expected: str) -> None:
    """These kernels need each of these instructions."""
    code = compiled[kernel]
    assert check(code.ptx, code.shared) == []
    spoiled = removals(code.ptx, pattern)
    assert spoiled
    for line, ptx in spoiled.items():
        found = check(ptx, code.shared)
        assert any(re.search(expected, fault.what) for fault in found), f"line {line}: {found}"


@pytest.mark.slow
def test_a_barrier_after_the_wait_is_needed_when_there_are_two_warpgroups(compiled: dict[str, Compiled]) -> None:
    """Each waits for its own products, and rewrites what the other one may still read."""
    code = compiled["gate_mix_kernel"]
    assert code.block == 256
    barriers = removals(code.ptx, r"bar\.sync")
    waits = removals(code.ptx, r"wgmma\.wait_group")
    after = [min(barrier for barrier in barriers if barrier > wait) for wait in waits]
    for barrier in after:
        assert any("written without a barrier" in fault.what for fault in check(barriers[barrier], code.shared))


@pytest.mark.slow
def test_a_barrier_that_is_not_missed_is_between_accesses_of_single_warps(compiled: dict[str, Compiled]) -> None:
    """mix: Triton sets one where every warp goes back to its own bytes; all others are missed."""
    code = compiled["mix_kernel"]
    spoiled = removals(code.ptx, r"bar\.sync")
    harmless = [line for line, ptx in spoiled.items() if not check(ptx, code.shared)]
    assert harmless == [max(spoiled)]
    since = max(line for line in spoiled if line not in harmless)
    machine = Machine(parse(code.ptx), np.array([(0, 0, 0)]))
    owners: dict[int, set[int]] = {}
    for instruction in machine.run():
        if instruction.line > since and re.match(r"(st|ld)(\.shared|matrix)", instruction.op):
            operand = instruction.operands[0 if instruction.op.startswith("st") else 1]
            for place, warp in zip(*_bytes(machine, instruction, operand), strict=True):
                owners.setdefault(int(place), set()).add(int(warp))
    assert len(owners) == 2048
    assert all(len(warps) == 1 for warps in owners.values())


@pytest.mark.slow
def test_a_wait_that_is_not_missed_has_another_behind_it(compiled: dict[str, Compiled]) -> None:
    """depthwise: until the next wait nobody uses the product's registers or writes what it reads."""
    code = compiled["depthwise_kernel"]
    spoiled = removals(code.ptx, r"wgmma\.wait_group")
    harmless = [line for line, ptx in spoiled.items() if not check(ptx, code.shared)]
    assert 0 < len(harmless) < len(spoiled)
    for line in harmless:
        start, end = max((0, *(at for at in spoiled if at < line))), min(at for at in spoiled if at > line)
        machine = Machine(parse(code.ptx), np.array([(0, 0, 0)]))
        registers, read, written = set[str](), set[int](), set[int]()
        for instruction in machine.run():
            if start < instruction.line < line and instruction.is_a("wgmma.mma_async"):
                registers |= _matrix_registers(instruction)
                read |= {int(place) for part in _product_bytes(machine, instruction) for place in part}
            if line < instruction.line < end and re.match(r"st(\.shared|matrix)", instruction.op):
                written |= set(_bytes(machine, instruction, instruction.operands[0])[0].tolist())
            if line < instruction.line < end and not instruction.is_a("wgmma.mma_async"):
                assert registers.isdisjoint((*instruction.reads, *instruction.writes))
        assert read and read.isdisjoint(written)


@pytest.mark.slow
def test_shared_memory_is_as_large_as_declared(compiled: dict[str, Compiled]) -> None:
    for code in compiled.values():
        assert any("shared memory at byte" in fault.what for fault in check(code.ptx, code.shared - 16))


@pytest.mark.slow
def test_bounds_are_proved_and_planted_faults_are_found(compiled: dict[str, Compiled]) -> None:
    code = compiled["mix_kernel"]
    shape = SHAPES["mix_kernel"]
    assert out_of_bounds(code, shape, 2) == []
    # A program too few, a tile that two programs write, an input that is written, and a map that is smaller.
    fewer = replace(code, grid=(code.grid[0] - 1, code.grid[1]))
    assert any("bytes of y are not written" in what for what in out_of_bounds(fewer, shape, 1))
    shifted = replace(code, ptx=re.sub(r"(shl\.b32 \t%r\d+, %r\d+, )6(?=;)", r"\g<1>5", code.ptx, count=1))
    assert any("written by two programs" in what for what in out_of_bounds(shifted, shape, 1))
    swapped = replace(code, ptx=code.ptx.replace("mix_kernel_param_4]", "mix_kernel_param_1]"))
    assert any("the input x is written" in what for what in out_of_bounds(swapped, shape, 1))
    assert any("outside of all tensors" in what for what in out_of_bounds(code, Shape(320, 16, 8), 1))
    # Addresses of a load, a copy and a store of 16 bytes, moved by 8.
    for access in (r"ld\.global\.v4.*", r"cp\.async\.cg.*", r"st\.global\.v4.*?"):
        moved = re.sub(rf"({access}\[ %rd\d+ \+ )0", r"\g<1>8", code.ptx, count=1)
        assert moved != code.ptx
        assert any(
            "16 bytes at an address that is no multiple" in w for w in out_of_bounds(replace(code, ptx=moved), shape, 1)
        )


@pytest.mark.slow
def test_counts_are_of_the_compiled_code(compiled: dict[str, Compiled]) -> None:
    """mix: its loop is a chain of loads; every byte of a tile of y is stored once, all of its operands loaded once."""
    shape = SHAPES["mix_kernel"]
    row = trace(compiled["mix_kernel"], shape)
    assert 2 <= row.rounds <= 10
    map_bytes = 320 * 16 * 16 * 2
    assert row.stored * row.programs == map_bytes
    rows, columns = 64, row.stored // 2 // 64
    operands = 2 * 320 * (rows + columns) + row.stored
    assert operands <= row.loaded <= operands + 2048
    assert trace(compiled["mix_kernel"], shape, batch=64).microseconds > row.microseconds


@pytest.mark.slow
def test_a_sample_of_all_kernels_is_right_by_this_triton() -> None:
    """Sentences of 16 and 64 tokens; by all assemblers that are there.  ``make prove`` takes all of them."""
    done = prove("--tokens", "16", "64", "--sample", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ptxas 12.9" in done.stdout
    assert " 0 open, 0 wrong of " in done.stdout


@pytest.mark.slow
def test_a_sample_of_all_kernels_is_right_by_the_older_triton() -> None:
    """Triton 3.6.0, which PyTorch 2.11 brings."""
    if not toolchains.is_installed("triton"):
        pytest.skip("Triton 3.6.0 is not there; python -m lsms_rt.kernels.toolchains installs it")
    done = prove("--tokens", "16", "32", "64", "--sample", "16", "--no-ptxas", path=toolchains.folder("triton"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "by Triton 3.6.0" in done.stdout
    assert " 0 open, 0 wrong of " in done.stdout


@pytest.mark.parametrize(("arch", "wrong", "open_", "state", "fails"), [
    ("sm_90", [], [], "proved", False), ("sm_90", ["a race"], [], "wrong", True), ("sm_90", [], ["?"], "open", True),
    ("sm_100", [], ["?"], "open", False), ("sm_100", ["a race"], ["?"], "wrong", True),
])  # fmt: skip
def test_what_is_not_proved_fails(arch: str, wrong: list[str], open_: list[str], state: str, fails: bool) -> None:
    """Except for architectures that are named as not covered."""
    code = Compiled(**{one.name: "" for one in fields(Compiled)} | {"arch": arch, "kernel": "mix"})  # type: ignore[arg-type]
    proof = Proof(code, wrong, open_)
    assert (proof.state, proof.fails) == (state, fails)
    assert f": {state}" in proof.line()
