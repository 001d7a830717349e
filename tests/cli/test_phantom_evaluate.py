"""The commands phantom and evaluate, one after the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import refused, run


def test_phantom_then_evaluate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    code, out, err = run(capsys, "phantom", "-o", str(data), "--cases", "2", "--matrix", "96", "--workers", "1")
    # No progress bar in a pipe.
    assert (code, err) == (0, "")
    assert "2 cases, 20 slices" in out
    answers = tmp_path / "answers.csv"
    code, out, err = run(capsys, "evaluate", "demo", str(data), "--limit", "6", "--json", "--answers", str(answers))
    assert (code, err) == (0, "")
    assert json.loads(out)["sentences"] == 6
    assert len(answers.read_text().splitlines()) == 7
    refused(capsys, 2, "no rows of the split that was asked for", "evaluate", "demo", str(data), "--split", "none")
