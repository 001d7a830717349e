"""Overlapping launches: where they happen, what the launcher is told, and that a kernel waits before it loads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from lsms_rt.kernels import mix, overlap
from lsms_rt.kernels.shape import Shape

SHAPE = Shape(64, 16, 16)
COMPILE = """
import json, sys
from dataclasses import replace
from lsms_rt.kernels import merge_scales, mix
from lsms_rt.kernels.aot import compile_launch
from lsms_rt.kernels.shape import DecoderShape, Shape
found = {}
for module, shape in ((mix, Shape(64, 16, 16)), (merge_scales, DecoderShape(32, 8, 16))):
    for arch in ("sm_90", "sm_120"):
        launch = module.launch(shape)
        for on in (True, False):
            how = replace(launch, constants=dict(launch.constants) | {"OVERLAP": on})
            found[f"{launch.kernel.__name__} {arch} {on}"] = compile_launch(how, shape, arch).ptx
print(json.dumps(found))
"""


class Compiler:
    """In place of Triton's own: kernels of this process are interpreted."""

    arg_names = ("OVERLAP",)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Fake a GPU and a process whose kernels are compiled; its compute capability can be changed."""
    found = {"major": 9, "count": 1}
    monkeypatch.setattr(overlap.triton, "JITFunction", Compiler)
    monkeypatch.setattr(overlap, "after_previous", Compiler())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(found["count"]))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (found["major"], 0))
    monkeypatch.delenv(overlap.VARIABLE, raising=False)
    overlap._can.cache_clear()
    return found


@pytest.mark.parametrize(("major", "expected"), [(8, False), (9, True), (12, True)])
def test_kernels_overlap_from_capability_9_on(gpu: dict[str, int], major: int, expected: bool) -> None:
    gpu["major"] = major
    assert overlap.overlaps() is expected
    options = mix.launch(SHAPE).options()
    assert (options["OVERLAP"], options.get("launch_pdl", False)) == (expected, expected)


def test_the_environment_switches_it_off(gpu: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after it was on."""
    assert overlap.overlaps()
    monkeypatch.setenv(overlap.VARIABLE, "0")
    assert not overlap.overlaps()
    options = mix.launch(SHAPE).options()
    assert options["OVERLAP"] is False
    assert "launch_pdl" not in options


def test_there_is_no_overlap_without_a_gpu(gpu: dict[str, int]) -> None:
    gpu["count"] = 0
    assert not overlap.overlaps()


def test_the_interpreter_does_not_overlap(gpu: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where there is a GPU that could."""
    monkeypatch.setattr(overlap, "after_previous", mix.mix_kernel)
    assert not isinstance(mix.mix_kernel, Compiler)
    assert not overlap.overlaps()
    assert mix.launch(SHAPE).options()["OVERLAP"] is False


@pytest.mark.slow
def test_a_kernel_waits_before_it_uses_memory() -> None:
    """Compiled code of two kernels; an access before the wait is found, and so is a wait that is not there."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=environment, check=True)
    codes = json.loads(done.stdout)
    assert len(codes) == 8
    for name, ptx in codes.items():
        if name.endswith("False"):
            assert "griddepcontrol" not in ptx
            assert overlap.waits_late(ptx) == ["it does not wait for the kernel before it"]
            continue
        assert "griddepcontrol.launch_dependents" in ptx
        assert overlap.waits_late(ptx) == []
        first = re.search(r"\n\s*(?:@!?%p\d+ )?(?:ld\.global|cp\.async\.c).*", ptx)
        assert first is not None
        early = ptx.replace(first.group(), "").replace(
            "griddepcontrol.wait", f"{first.group()}\n\tgriddepcontrol.wait", 1
        )
        (fault,) = overlap.waits_late(early)
        assert fault == f"before the wait for the kernel before it: {first.group().strip()}"
