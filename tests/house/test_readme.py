"""The README's code runs, its tables are those of the committed results, and it stays short."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from lsms_rt.bench.records import digest, read
from lsms_rt.bench.report import filled
from lsms_rt.cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
WITH_PYTHON = ("README.md", "docs/gpu.md")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.usefixtures("bundled_engine_opened_once")
@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_python_blocks_run(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # What the blocks write must not land in the checkout.
    (tmp_path / "lsms_rt").symlink_to(ROOT / "lsms_rt")
    monkeypatch.chdir(tmp_path)
    found = blocks((ROOT / name).read_text(), "python")
    assert found
    for block in found:
        exec(compile(block, name, "exec"), {})


@pytest.mark.usefixtures("bundled_engine_opened_once")
def test_the_prediction_lines_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    lines = [line for block in blocks(README, "bash") for line in block.splitlines()]
    lines = [line for line in lines if line.startswith("lsms-rt predict")]
    assert lines
    for number, line in enumerate(lines):
        words = shlex.split(line.partition("#")[0])[1:]
        words[words.index("-o") + 1] = str(tmp_path / f"out{number}")
        assert main(words) == 0, capsys.readouterr().err


def test_the_model_card_has_the_measured_dice() -> None:
    record = json.loads((ROOT / "bench/results/cpu/demo_accuracy.json").read_text())
    card = (ROOT / "lsms_rt/data/demo/README.md").read_text()
    assert f"{record['accuracy']['dice']:.3f}" in card


@pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md", "docs/int8.md", "docs/training.md"])
def test_the_tables_of_measurements_are_those_of_the_files(name: str) -> None:
    """``make tables`` writes them anew."""
    text = (ROOT / name).read_text()
    assert "<!-- bench: " in text
    assert filled(text, ROOT) == text
    for file in re.findall(r"<!-- bench: (\S+\.json)", text):
        picture = (ROOT / name).with_name(f"{Path(file).stem}.png")
        if f"({picture.name})" in text:
            with Image.open(picture) as opened:
                assert opened.info["record"] == digest(read(ROOT / file)), picture.name
