"""The command inspect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "inspect", "demo")
    assert code == 0
    assert "synthetic CT" in out
    code, out, _ = run(capsys, "inspect", "demo", "--json")
    assert json.loads(out)["manifest"]["preset"] == "tiny"


def test_a_folder_called_demo_does_not_hide_the_bundled_engine(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert run(capsys, "inspect", "demo")[0] == 0
