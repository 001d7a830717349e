"""The command demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run


@pytest.mark.usefixtures("bundled_engine_opened_once")
def test_demo(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "demo", "-o", str(tmp_path / "d"))
    assert (code, err) == (0, "")
    assert "Dice" in out
    assert (tmp_path / "d" / "demo.png").stat().st_size > 10_000
    rows = json.loads((tmp_path / "d" / "demo.json").read_text())
    assert len(rows) == 10
    # The real slice has no true mask.
    assert rows[-1]["dice"] is None
