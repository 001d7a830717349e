"""The build that is advised for a machine, by what it has and what is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import fake_cpus
import pytest

from lsms_rt.engine.advice import advise, default_of_openvino
from lsms_rt.engine.openvino import open_core
from lsms_rt.machine.cpu import Cpu, find
from lsms_rt.machine.gpu import Driver, Gpu

NO_GPU = Driver(problem="no NVIDIA driver (libcuda.so.1 was not found)")
A10 = Driver((13, 0), (Gpu("NVIDIA A10", (8, 6), 24 << 30, False),))
UNKNOWN = Cpu(name="a CPU", instructions=None)
HERE = {"version": "1", "builds": True, "runs": True}
ORT = {"onnxruntime": HERE | {"devices": ["cpu"]}}
FIXES = {
    "openvino": "pip install 'lsms-rt[openvino]'",
    "tensorrt": "pip install 'lsms-rt[tensorrt]'",
    "tensorrt-rtx": "pip install 'lsms-rt[rtx]'",
}


def installed(*names: str, **changed: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Reports of all backends, of which ONNX Runtime and ``names`` are installed."""
    absent = {"version": None, "builds": False, "runs": False}
    others = {name: HERE if name in names else absent | {"missing": fix} for name, fix in FIXES.items()}
    return ORT | others | changed


def cpu(folder: Path, text: str) -> Cpu:
    (folder / "cpuinfo").write_text(text)
    return find(folder / "cpuinfo")


@pytest.mark.parametrize(
    ("text", "precision", "words"),
    [
        (fake_cpus.ZEN5, "bf16", "multiplies bf16 (avx512_bf16)"),
        (fake_cpus.SAPPHIRE_RAPIDS, "bf16", "multiplies bf16 (amx_bf16)"),
        (fake_cpus.ICE_LAKE, "int8", "multiplies INT8 (avx512_vnni), but not bf16"),
        (fake_cpus.ALDER_LAKE, "int8", "multiplies INT8 (avx_vnni), but not bf16"),
    ],
    ids=["Zen 5", "Sapphire Rapids", "Ice Lake", "Alder Lake"],
)
def test_openvino_where_the_cpu_has_more_than_onnx_runtime_uses(
    tmp_path: Path, text: str, precision: str, words: str
) -> None:
    advice = advise(cpu(tmp_path, text), NO_GPU, installed("openvino"))
    assert (advice.best.backend, advice.best.precision, advice.install) == ("openvino", precision, None)
    assert advice.now == advice.best and words in advice.best.reason and "measured on" in advice.best.reason
    assert f" --backend openvino --precision {precision}" in advice.best.command
    assert ("--from ENGINE" in advice.best.command) == (precision != "int8")
    assert ("--calibration DIR" in advice.best.command) == (precision == "int8")
    missing = advise(cpu(tmp_path, text), NO_GPU, installed())
    assert (missing.best, missing.install) == (advice.best, FIXES["openvino"])
    assert missing.now is not None
    assert " --backend onnxruntime --precision fp32 " in missing.now.command


def test_a_small_gain_is_taken_but_not_worth_an_installation(tmp_path: Path) -> None:
    haswell = cpu(tmp_path, fake_cpus.HASWELL)
    there, not_there = (advise(haswell, NO_GPU, installed(*names)) for names in (("openvino",), ()))
    assert (there.best.backend, there.best.precision, there.install) == ("openvino", "fp32", None)
    assert (not_there.best.backend, not_there.install) == ("onnxruntime", None)
    assert not_there.now == not_there.best and "gains little" in not_there.best.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (fake_cpus.OLD, "neither bf16 nor INT8"),
        (fake_cpus.RASPBERRY_PI, "not measured on Arm"),
        (fake_cpus.GRAVITON3, "not measured on Arm"),
        ("", "if it multiplies bf16"),
    ],
    ids=["Atom", "Raspberry Pi", "Graviton 3", "unknown"],
)
def test_onnx_runtime_where_nothing_faster_is_known(tmp_path: Path, text: str, words: str) -> None:
    for names in ((), ("openvino",)):
        advice = advise(cpu(tmp_path, text), NO_GPU, installed(*names))
        assert (advice.best.backend, advice.best.precision, advice.install) == ("onnxruntime", "fp32", None)
        assert words in advice.best.reason


def test_a_gpu_comes_first(tmp_path: Path) -> None:
    zen5 = cpu(tmp_path, fake_cpus.ZEN5)
    advice = advise(zen5, A10, installed("tensorrt", "tensorrt-rtx", "openvino"))
    assert (advice.best.backend, advice.best.precision, advice.install) == ("tensorrt", "fp16", None)
    assert "NVIDIA A10" in advice.best.reason
    # The other TensorRT is as good where it is the one that is there.
    assert advise(zen5, A10, installed("tensorrt-rtx", "openvino")).best.backend == "tensorrt-rtx"
    nothing = advise(zen5, A10, installed("openvino"))
    assert (nothing.best.backend, nothing.install) == ("tensorrt", FIXES["tensorrt"])
    assert nothing.now is not None and (nothing.now.backend, nothing.now.precision) == ("openvino", "bf16")
    on_cuda = installed("openvino", onnxruntime=HERE | {"devices": ["cuda", "cpu"]})
    now = advise(zen5, A10, on_cuda).now
    assert now is not None and now.backend == "onnxruntime" and "NVIDIA A10" in now.reason


def test_what_builds_or_runs_elsewhere_only_is_not_taken(tmp_path: Path) -> None:
    """TensorRT for RTX builds on machines without a GPU; and a GPU's driver may be missing."""
    zen5 = cpu(tmp_path, fake_cpus.ZEN5)
    builds_only = HERE | {"runs": False, "missing": "a driver", "fix": "update the NVIDIA driver"}
    reports = installed("openvino") | {"tensorrt-rtx": builds_only, "tensorrt": builds_only}
    assert advise(zen5, NO_GPU, reports).best.backend == "openvino"
    with_gpu = advise(zen5, A10, reports)
    assert (with_gpu.best.backend, with_gpu.install) == ("tensorrt", "update the NVIDIA driver")
    assert with_gpu.now is not None and with_gpu.now.backend == "openvino"


def test_a_machine_without_the_build_side_runs_what_is_built_elsewhere(tmp_path: Path) -> None:
    runs_only = HERE | {"builds": False, "missing": "the build side", "fix": "pip install 'lsms-rt[build]'"}
    advice = advise(cpu(tmp_path, fake_cpus.ZEN5), NO_GPU, installed(onnxruntime=runs_only, openvino=runs_only))
    assert (advice.best.precision, advice.now) == ("bf16", None)
    assert advice.install == "pip install 'lsms-rt[build]'; or build it on another machine"


def test_openvino_has_the_last_word(tmp_path: Path) -> None:
    """It knows the CPU where the system does not tell; and what it cannot compute in is not advised."""
    with_bf16, without = (HERE | {"precisions": names} for names in (["fp32", "bf16", "int8"], ["fp32", "int8"]))
    best = advise(UNKNOWN, NO_GPU, installed(openvino=with_bf16)).best
    assert (best.backend, best.precision) == ("openvino", "bf16") and "OpenVINO finds" in best.reason
    assert advise(UNKNOWN, NO_GPU, installed(openvino=without)).best.backend == "onnxruntime"
    assert advise(cpu(tmp_path, fake_cpus.ZEN5), NO_GPU, installed(openvino=without)).best.precision == "int8"


def test_what_openvino_chooses_by_itself(tmp_path: Path) -> None:
    texts = (fake_cpus.ZEN5, fake_cpus.ICE_LAKE, fake_cpus.HASWELL)
    assert [default_of_openvino(cpu(tmp_path, text)) for text in texts] == ["bf16", "fp32", "fp32"]
    assert default_of_openvino(UNKNOWN) == "bf16 if this CPU multiplies it, else fp32"
    assert "not tried on Arm" in default_of_openvino(cpu(tmp_path, fake_cpus.GRAVITON3))


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
@pytest.mark.skipif(not find().known, reason="the system does not tell the instructions")
def test_openvino_agrees_about_this_cpu() -> None:
    core = open_core()
    chosen = core.get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()
    assert {"bf16": "bf16", "f32": "fp32"}.get(chosen, chosen) in default_of_openvino(find())
    assert ("BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")) == (find().bf16 is not None)
