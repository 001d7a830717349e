"""The commands phantom and evaluate, one after the other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import refused, run

TRAINED = (
    "warning: sentences of the split train are among those asked; of weights that were trained on them the figures are "
    "too good: see --split\n"
)


@pytest.mark.slow
def test_phantom_then_evaluate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    code, out, err = run(capsys, "phantom", "-o", str(data), "--cases", "2", "--matrix", "96", "--workers", "1")
    # No progress bar in a pipe.
    assert (code, err) == (0, "")
    assert "2 cases, 20 slices" in out
    answers = tmp_path / "answers.csv"
    code, out, err = run(capsys, "evaluate", "demo", str(data), "--limit", "6", "--json", "--answers", str(answers))
    assert (code, err) == (0, TRAINED)
    found = json.loads(out)
    assert found["sentences"] == 6
    assert found["lesions"]["meant"] > 0
    assert found["surface"]["tolerance_mm"] == 2
    assert len(answers.read_text().splitlines()) == 7
    # A line for every figure, and the tolerance that was asked for.
    code, out, err = run(capsys, "evaluate", "demo", str(data), "--limit", "3", "--tolerance", "4.5")
    assert (code, err) == (0, TRAINED)
    assert re.search(r"tolerance in mm +4\.500", out)
    assert re.search(r"\n  F1 +\d\.\d", out)
    refused(capsys, 2, "give 0 to 100 mm", "evaluate", "demo", str(data), "--tolerance", "nan")
    with pytest.raises(SystemExit):
        run(capsys, "evaluate", "demo", str(data), "--tolerance", "Smith")
    assert "Smith" not in capsys.readouterr().err
    refused(capsys, 2, "no rows of the split that was asked for", "evaluate", "demo", str(data), "--split", "none")
    record = tmp_path / "probes.json"
    probe = ("evaluate", "demo", str(data), "--limit", "6", "--probe-words")
    code, out, err = run(capsys, *probe, "-o", str(record))
    assert (code, err) == (0, TRAINED)
    assert re.search(r"true meanings, each probed in its first wording +[3-6]\n", out)
    written = json.loads(record.read_text())
    assert (written["kind"], written["sentences"]) == ("probes", 6)
    assert "its first 6 sentences" in written["what"]
    refused(capsys, 2, "omit --answers and --tolerance", *probe, "--answers", str(answers))
