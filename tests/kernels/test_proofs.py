"""What is proved without a GPU: races in shared memory, bounds of global memory, and each check of a planted fault.

The compilers run in other processes, since the kernels of this one are interpreted.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lsms_rt.kernels import toolchains
from lsms_rt.kernels.aot import Compiled
from lsms_rt.kernels.ptx_bounds import out_of_bounds
from lsms_rt.kernels.ptx_checks import check
from lsms_rt.kernels.ptx_trace import trace
from lsms_rt.kernels.shape import Shape

# depthwise has two groups of four warps at stage 1; mix has copies and products in a pipelined loop at stage 3.
SHAPES = {"depthwise_kernel": Shape(64, 64, 64), "mix_kernel": Shape(320, 16, 16)}
ARGUMENTS = ("--kernel", "depthwise", "mix", "--image-size", "256", "--stage", "1", "3", "--no-ptxas", "--no-bounds")


def prove(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``lsms_rt.kernels.prove`` in another process, with the Triton in ``path``."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "lsms_rt.kernels.prove", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Compiled]:
    """depthwise and mix for sm_90, compiled now."""
    folder = tmp_path_factory.mktemp("proofs")
    done = prove(*ARGUMENTS, "-o", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for kernel, shape in SHAPES.items():
        path = folder / "sm_90" / shape.key / f"{kernel}.ptx"
        data = json.loads(path.with_suffix(".json").read_text())
        found[kernel] = Compiled(**data, ptx=path.read_text(), cubin=b"")
    return found


def without(pattern: str, which: int = 0) -> Callable[[str], str]:
    """Return what removes the instruction at the ``which``-th place where a pattern matches."""

    def remove(ptx: str) -> str:
        place = [match.span() for match in re.finditer(rf"^\s*{pattern}.*$", ptx, re.MULTILINE)][which]
        return ptx[: place[0]] + ptx[place[1] :]

    return remove


FAULTS = [
    ("mix_kernel", without(r"bar\.sync"), "without a barrier after another warp's access"),
    ("mix_kernel", without(r"bar\.sync", 1), "written while a product reads it|without a barrier"),
    ("mix_kernel", without(r"bar\.sync", -1), "without a barrier after another warp's access"),
    ("mix_kernel", without(r"cp\.async\.wait_group"), "read while a copy to it is under way"),
    ("mix_kernel", without(r"wgmma\.wait_group", -1), "used before the product was waited for"),
    ("depthwise_kernel", without(r"bar\.sync", 3), "without a barrier"),
    ("depthwise_kernel", without(r"fence\.proxy\.async"), "without a proxy fence"),
    ("depthwise_kernel", without(r"wgmma\.wait_group"), "written while a product reads it|used before the product"),
    ("depthwise_kernel", without(r"wgmma\.commit_group"), "written while a product reads it"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "spoil", "expected"), FAULTS)
def test_a_planted_race_is_found(
    compiled: dict[str, Compiled], kernel: str, spoil: Callable[[str], str], expected: str
) -> None:
    code = compiled[kernel]
    assert check(code.ptx, code.shared) == []
    found = check(spoil(code.ptx), code.shared)
    assert any(re.search(expected, fault.what) for fault in found), found


@pytest.mark.slow
def test_a_barrier_after_the_wait_is_needed_when_there_are_two_warpgroups(compiled: dict[str, Compiled]) -> None:
    """Each waits for its own products, and rewrites what the other one may still read."""
    code = compiled["depthwise_kernel"]
    assert code.block == 256
    waits = [match.end() for match in re.finditer(r"wgmma\.wait_group.*$", code.ptx, re.MULTILINE)]
    barriers = [code.ptx.count("bar.sync", 0, place) for place in waits[:4]]
    found = [check(without(r"bar\.sync", barrier)(code.ptx), code.shared) for barrier in barriers]
    assert all(any("written without a barrier" in fault.what for fault in faults) for faults in found)


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


@pytest.mark.slow
def test_a_sample_of_all_kernels_is_right_by_the_older_triton() -> None:
    """Triton 3.6.0, which PyTorch 2.11 brings."""
    if not toolchains.is_installed("triton"):
        pytest.skip("Triton 3.6.0 is not there; python -m lsms_rt.kernels.toolchains installs it")
    done = prove("--tokens", "16", "32", "64", "--sample", "16", "--no-ptxas", path=toolchains.folder("triton"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "by Triton 3.6.0" in done.stdout
