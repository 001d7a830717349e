"""The command doctor, here and on machines that are not here: recorded files of Jetsons, drivers of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_cpus
import pytest

from lsms_rt.cli import doctor
from lsms_rt.cli.doctor import backend_line
from lsms_rt.cli.main import main
from lsms_rt.engine.advice import advise
from lsms_rt.engine.registry import BACKENDS
from lsms_rt.engine.tensorrt import entry
from lsms_rt.engine.tensorrt.variant import RTX, TENSORRT
from lsms_rt.errors import MachineError
from lsms_rt.machine import cpu, jetson
from lsms_rt.machine.cpu import Cpu
from lsms_rt.machine.gpu import Driver, Gpu

ORIN = Gpu("Orin", (8, 7), 32 << 30, True)
A10 = Gpu("NVIDIA A10", (8, 6), 24 << 30, False)
NONE = Driver(problem="no NVIDIA driver (libcuda.so.1 was not found)")
# Texts as JetPack 6.2 and 7 write them; recorded by hand from public logs of an AGX Orin and a Thor.
BOARDS = {
    "orin": (
        "NVIDIA Jetson AGX Orin Developer Kit\0",
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n",
        "Package: nvidia-jetpack-runtime\nVersion: 6.2+b77\n\nPackage: nvidia-jetpack\nStatus: install ok installed\n"
        "Version: 6.2+b77\nDescription: NVIDIA Jetpack Meta Package\n",
        "NV Power Mode: MAXN\n0\n",
    ),
    "thor": (
        "NVIDIA Jetson AGX Thor Developer Kit\0",
        "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64, DATE: Fri Aug 22 2025\n",
        "",
        "",
    ),
}


def board(folder: Path, name: str) -> jetson.Jetson | None:
    texts = dict(zip((jetson.MODEL, jetson.RELEASE, jetson.PACKAGES), BOARDS[name], strict=False))
    for path, text in texts.items():
        if text:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    return jetson.find(folder, lambda command: BOARDS[name][3] if command == ["nvpmodel", "-q"] else "")


def test_jetsons(tmp_path: Path) -> None:
    assert board(tmp_path / "a", "orin") == jetson.Jetson(
        "NVIDIA Jetson AGX Orin Developer Kit", "36.4.3", "6.2+b77", "MAXN"
    )
    assert board(tmp_path / "b", "thor") == jetson.Jetson("NVIDIA Jetson AGX Thor Developer Kit", "38.2.0", None, None)
    (tmp_path / "c/proc/device-tree").mkdir(parents=True)
    (tmp_path / "c" / jetson.MODEL).write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    assert jetson.find(tmp_path / "c") is None
    assert jetson.find(tmp_path / "nowhere") is None
    assert jetson._run(["a-command-that-is-not-there"]) == ""


def test_doctor_on_a_jetson(tmp_path: Path) -> None:
    found = board(tmp_path, "orin")
    driver = Driver((12, 6), (ORIN,))
    machine = doctor._machine(Cpu(name="Cortex-A78AE", instructions=("asimd",)), driver, found)
    assert machine["cpu"] == "Cortex-A78AE; asimd"
    assert machine["jetson"] == "NVIDIA Jetson AGX Orin Developer Kit, L4T 36.4.3, JetPack 6.2+b77"
    assert (machine["power mode"], machine["gpu 0"]) == ("MAXN", "Orin, sm_87, 32 GiB shared with the CPU")
    assert machine["nvidia driver"] == "runs CUDA up to 12.6"
    backends = doctor._backends(driver, found)
    assert "sudo apt install nvidia-jetpack" in backends["tensorrt"]["fix"]
    assert "--system-site-packages" in backend_line(backends["tensorrt"])
    assert backends["tensorrt-rtx"] | {"fix": ""} == {
        "version": None, "builds": False, "runs": False, "missing": "Jetson support", "fix": ""
    }  # fmt: skip


@pytest.mark.parametrize(
    ("driver", "installed", "builds", "runs", "words"),
    [
        (NONE, True, True, False, "no NVIDIA driver"),
        (Driver((13, 0), (A10,)), False, True, False, "pycuda: pip install pycuda"),
        (Driver((12, 8), (A10,)), True, True, False, "a driver for CUDA 13.0"),
        (Driver((13, 0), (Gpu("NVIDIA H100", (9, 0), 80 << 30, False),)), True, True, False, "NVIDIA H100 (sm_90)"),
        (Driver((13, 0), (A10,)), True, True, True, None),
    ],
)
def test_doctor_on_tensorrt_for_rtx(
    monkeypatch: pytest.MonkeyPatch, driver: Driver, installed: bool, builds: bool, runs: bool, words: str | None
) -> None:
    library = type("module", (), {"__version__": "1.7.1.116"})
    monkeypatch.setattr(entry, "load", lambda _: library)
    real = entry.importlib.util.find_spec
    monkeypatch.setattr(
        entry.importlib.util,
        "find_spec",
        lambda n: (object() if installed else None) if n in ("pycuda", "cuda") else real(n),
    )
    found: dict[str, Any] = entry.diagnose(RTX.name, driver, None)
    assert (found["version"], found["builds"], found["runs"]) == ("1.7.1.116", builds, runs)
    line = backend_line(found)
    assert line.startswith(f"1.7.1.116, builds here: yes, runs here: {'yes' if runs else 'no'}")
    assert words is None or words in line


def test_tensorrt_builds_on_its_own_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "load", lambda _: type("module", (), {"__version__": "11.4.0.106"}))
    assert entry.diagnose(TENSORRT.name, NONE, None)["builds"] is False
    assert entry.diagnose(TENSORRT.name, Driver((13, 0), (A10,)), None)["builds"] is True


def test_doctor_advises(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(fake_cpus.ZEN5)
    zen5 = cpu.find(tmp_path / "cpuinfo")
    ort = {"version": "1", "builds": True, "runs": True, "devices": ["cpu"]}
    openvino = {"version": None, "builds": False, "runs": False, "missing": "OpenVINO", "fix": "pip install it"}
    reports = {"onnxruntime": ort, "openvino": openvino}
    found = doctor._advice(zen5, advise(zen5, NONE, reports))
    assert found == {
        "fastest build": "lsms-rt build-engine --from ENGINE --backend openvino --precision bf16 -o NAME.engine",
        "because": found["because"],
        "install": "pip install it",
        "until then": "lsms-rt build-engine --checkpoint DIR --backend onnxruntime --precision fp32 -o NAME.engine",
        "openvino alone": "would compute in bf16; our engines state their precision",
    }
    reports["openvino"] = ort
    assert list(doctor._advice(zen5, advise(zen5, NONE, reports))) == ["fastest build", "because", "openvino alone"]


def test_an_engine_that_does_not_run_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "demo_engine", lambda: Path("no.engine"))
    assert main(["doctor"]) == MachineError.exit_code
    out, err = capsys.readouterr()
    assert "why not" in out
    assert "the bundled engine does not run on this machine (Engine" in err


def test_doctor_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["backends"]) == [*BACKENDS, "pytorch"]
    assert report["backends"]["onnxruntime"]["runs"] is True
    assert report["runtime"]["works"] is True
    assert report["machine"]["cpu"] == str(cpu.find())
    assert report["advice"]["fastest build"].startswith("lsms-rt build-engine --")
    assert "cpu" in report["backends"]["onnxruntime"]["devices"]
    assert main(["doctor"]) == 0
    assert "onnxruntime          1." in capsys.readouterr().out
