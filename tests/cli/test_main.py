"""Exit codes and error messages of the command line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import SLICE, TEXT, refused, run

from lsms_rt.cli import doctor
from lsms_rt.data import DATA


def test_refused_engines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    engine = Path(shutil.copytree(DATA / "demo.engine", tmp_path / "mine.engine"))
    refused(capsys, 4, "no such engine", "predict", str(tmp_path / "none"), SLICE, "--text", TEXT)
    refused(capsys, 4, "not the expected", "predict", str(engine), SLICE, "--text", TEXT, "--digest", "sha256:00")
    data = bytearray((engine / "image.onnx").read_bytes())
    data[1000] ^= 255
    (engine / "image.onnx").write_bytes(data)
    refused(capsys, 4, "has changed", "predict", str(engine), SLICE, "--text", TEXT)
    refused(capsys, 4, "has changed", "inspect", str(engine))
    (engine / "image.onnx").unlink()
    refused(capsys, 4, "image.onnx is missing in", "predict", str(engine), SLICE, "--text", TEXT)
    manifest = json.loads((engine / "manifest.json").read_text())
    (engine / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    refused(capsys, 4, "format 99", "predict", str(engine), SLICE, "--text", TEXT)


def test_bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "text.dcm").write_text("dear diary")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "cut.dcm").write_bytes(Path(SLICE).read_bytes()[:50_000])
    (tmp_path / "folder").mkdir()
    for name, words in (
        ("none.dcm", "no such file"),
        ("text.dcm", "not DICOM"),
        ("empty.dcm", "empty"),
        ("cut.dcm", "the file: damaged or truncated"),
        ("folder", "folder"),
    ):
        refused(capsys, 2, words, "predict", "demo", str(tmp_path / name), "--text", TEXT)
    refused(capsys, 2, "empty", "predict", "demo", SLICE, "--text", "")
    refused(capsys, 2, "characters", "predict", "demo", SLICE, "--text", "lesion " * 200)
    refused(capsys, 2, "tokens", "predict", "demo", SLICE, "--text", "big lesion " * 40)
    refused(capsys, 2, "annotations.csv", "evaluate", "demo", str(tmp_path))
    refused(capsys, 2, "not empty", "phantom", "-o", str(tmp_path))
    refused(capsys, 2, "exists", "build-engine", "-o", str(tmp_path / "folder"))
    large = ("--image-size", "1024", "--max-batch", "512")
    refused(capsys, 2, "give at most 256", "build-engine", *large, "-o", str(tmp_path / "large.engine"))


def test_an_unexpected_error_is_one_line_and_debug_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh\n\x1bno")

    monkeypatch.setattr(doctor, "examine", broken)
    refused(capsys, 1, "unexpected ZeroDivisionError: oh no", "doctor")
    code, _, err = run(capsys, "doctor", "--debug")
    assert code == 1
    assert "in broken" in err
    assert "ZeroDivisionError: oh" in err


def test_a_missing_extra_names_its_install_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in [n for n in sys.modules if n.startswith("lsms_rt.export")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = run(capsys, "build-engine", "-o", str(tmp_path / "x.engine"))
    assert code == 3
    assert err.splitlines()[-1].startswith("error: this command needs ")
    assert "pip install 'lsms-rt[build]'" in err


def test_the_installed_command_answers() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lsms_rt.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("lsms-rt 0.")
