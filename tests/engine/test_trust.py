"""Code that an engine brings runs only where somebody vouches for the engine; what its gate said is told."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from fake_cuda import FakeDevice
from fake_engines import CUDA13, engine_directory
from fake_tensorrt import FakeLibrary

import lsms_rt
from lsms_rt.cli.main import COMMANDS
from lsms_rt.cli.parser import make_parser
from lsms_rt.engine import EngineDirectory, open_directory
from lsms_rt.engine.manifest import write_manifest
from lsms_rt.engine.tensorrt.backend import TensorRtBackend
from lsms_rt.engine.tensorrt.variant import TENSORRT
from lsms_rt.errors import EngineDigestError, EngineTrustError
from lsms_rt.export.directory import Draft


def opened(directory: EngineDirectory, plans: dict[bytes, Any]) -> FakeLibrary:
    device = FakeDevice()
    library = FakeLibrary(device, plans, directory.manifest.backend_version)
    TensorRtBackend(directory, driver=lambda: CUDA13, device=lambda *_: device, library=library)
    return library


def test_host_code_runs_only_for_an_engine_that_is_vouched_for(tmp_path: Path, demo_engine: Path) -> None:
    directory, plans = engine_directory(
        tmp_path / "a.engine", demo_engine, TENSORRT, plan_options={"version_compatible": True}
    )
    with pytest.raises(EngineTrustError, match=f"bring code .*--digest {directory.digest} .*--trust") as caught:
        opened(open_directory(directory.path), plans)
    assert caught.value.exit_code == 4
    assert opened(open_directory(directory.path, directory.digest), plans).runtime.engine_host_code_allowed is True
    trusted = open_directory(directory.path, trust_host_code=True)
    assert opened(trusted, plans).runtime.engine_host_code_allowed is True
    with pytest.raises(EngineDigestError):
        open_directory(directory.path, "sha256:" + "0" * 64, trust_host_code=True)
    # What is being built here is ours.
    assert Draft(directory.path, directory.manifest).open().trusted


def test_other_plans_need_no_trust_and_never_get_it(tmp_path: Path, demo_engine: Path) -> None:
    directory, plans = engine_directory(tmp_path / "a.engine", demo_engine, TENSORRT)
    assert opened(directory, plans).runtime.engine_host_code_allowed is False
    pinned = open_directory(directory.path, directory.digest)
    assert opened(pinned, plans).runtime.engine_host_code_allowed is False


# ------------------------------------------------------------------------------------------- the gate's verdict

BASE = {"passed": True, "failures": [], "unjudged": None, "accepted": False, "max_dice_drop": 0.01, "cases": 8}
VERDICTS = [
    ("fp32", {}, "not needed", None),
    ("int8", BASE, "passed", None),
    ("int8", BASE | {"of": "the graphs; the plans were not run: no GPU"}, "passed by its graphs", "not asked"),
    ("fp16", BASE | {"passed": False, "failures": ["mean Dice fell"], "accepted": True}, "accepted", "failed its"),
    ("fp16", {"passed": False, "skipped": True, "accepted": False}, "skipped", "without an accuracy gate"),
    ("fp16", BASE | {"passed": False, "unjudged": "too few"}, "no verdict", "was not judged"),
    ("int8", BASE | {"max_dice_drop": 0.2}, "passed a wider budget", "wider budget than the default"),
    ("int8", {"passed": True, "failures": []}, "incomplete", "lacks its budget or its cases"),
    ("int8", BASE | {"cases": 0}, "incomplete", "lacks its budget or its cases"),
    ("int8", {}, "none", "no record of an accuracy gate"),
    # Whoever writes "passed" beside failures did not pass.
    ("int8", BASE | {"failures": ["mean Dice fell"]}, "accepted", "failed its"),
]


@pytest.mark.usefixtures("engines_are_fake")
@pytest.mark.parametrize(("precision", "gate", "verdict", "warning"), VERDICTS)
def test_an_engine_says_what_its_gate_said(
    precision: str, gate: dict[str, Any], verdict: str, warning: str | None, demo_engine: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    engine = Path(shutil.copytree(demo_engine, tmp_path / "a.engine"))
    write_manifest(engine, replace(open_directory(engine).manifest, precision=precision, gate=gate))
    with caplog.at_level(logging.WARNING, "lsms_rt"), lsms_rt.Segmenter(engine) as segmenter:
        assert (segmenter.precision, segmenter.gate) == (precision, verdict)
    assert (f"this {precision} engine" in caplog.text) == (warning is not None)
    assert (warning or "") in caplog.text


def test_results_hold_precision_and_verdict(
    demo_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    np.save(tmp_path / "a.npy", np.full((64, 64), -1000.0, np.float32))
    code, out, _ = run(capsys, "predict", "demo", str(tmp_path / "a.npy"), "--text", "the cyst", "--json")
    assert code == 0
    assert (json.loads(out)["precision"], json.loads(out)["gate"]) == ("fp32", "not needed")


# ---------------------------------------------------------------------------------------------- the command line


def test_demo_is_the_bundled_engine_whatever_lies_here(
    demo_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_engine, "demo")
    write_manifest(Path("demo"), replace(open_directory("demo").manifest, weights_note="somebody else's"))
    (tmp_path / "demo" / "recipe.json").write_text("{}")
    code, out, said = run(capsys, "inspect", "demo")
    assert (code, "somebody else's" in out) == (0, False)
    assert "for the folder of that name, write ./demo" in said
    code, out, said = run(capsys, "inspect", "./demo")
    assert (code, "somebody else's" in out, said) == (0, True, "")
    options = make_parser(COMMANDS).parse_args(["build-engine", "-o", "x", "--calibration", "demo"])
    assert options.calibration == lsms_rt.data.demo_calibration()


def test_every_command_that_opens_an_engine_takes_its_digest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong, right = ["--digest", "sha256:00"], ["--digest", open_directory(lsms_rt.demo_engine()).digest]
    calls = (
        ["inspect", "demo"],
        ["predict", "demo", "x.npy", "--text", "the cyst"],
        ["bench", "demo", "--quick"],
        ["build-engine", "--from", "demo", "--backend", "tensorrt-rtx", "-o", str(tmp_path / "b.engine")],
    )
    for call in calls:
        code, _, said = run(capsys, *call, *wrong)
        assert (code, "not the expected sha256:00" in said) == (4, True) or "pip install" in said, said
    assert run(capsys, "inspect", "demo", *right)[0] == 0
    code, _, said = run(capsys, "bench", "demo", *right, *right)
    assert (code, "2 --digest for 1 engines" in said) == (2, True)
    code, _, said = run(capsys, "build-engine", "-o", str(tmp_path / "c.engine"), *right)
    assert (code, "add --from" in said) == (2, True)
    for call in (["evaluate", "demo", "data"], ["calibrate", "demo", "data", "-o", "x"]):
        assert make_parser(COMMANDS).parse_args([*call, *wrong]).digest == "sha256:00"
    assert make_parser(COMMANDS).parse_args(["evaluate", "demo", "data", "--trust"]).trust is True
