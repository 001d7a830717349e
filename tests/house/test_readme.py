"""The README's code runs, and its figures are those of the committed result files."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from lsms_rt.bench.peers.side_by_side import GOALS
from lsms_rt.bench.records import digest, read
from lsms_rt.bench.report import filled
from lsms_rt.cli.main import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_blocks_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lsms_rt").symlink_to(ROOT / "lsms_rt")  # what the blocks write must not land in the checkout
    monkeypatch.chdir(tmp_path)
    found = blocks("python")
    assert found
    for block in found:
        exec(compile(block, "README.md", "exec"), {})


def test_the_prediction_lines_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("lsms-rt predict")]
    assert lines
    for line in lines:
        words = shlex.split(line.partition("#")[0])[1:]
        words[words.index("-o") + 1] = str(tmp_path / "out")
        assert main(words) == 0, capsys.readouterr().err


def test_the_figures_are_the_measured_ones() -> None:
    record = json.loads((ROOT / "bench/results/cpu/demo_accuracy.json").read_text())
    figures = record["accuracy"]
    for name in ("dice", "dice_other", "silence", "missed", "paraphrase_dice"):
        assert f"{figures[name]:.3f}" in README, name
    assert f"{record['parity_with_pytorch']['max_logit_difference']:.1e}" in README
    card = (ROOT / "lsms_rt/data/demo/README.md").read_text()
    assert f"{figures['dice']:.3f}" in card


def test_the_pictures_exist() -> None:
    for path in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / path).is_file(), path


def test_the_tree_names_no_machine() -> None:
    import subprocess

    words = "|".join(("/wor" + "k/", "py" + "pi[.]org", "pythonh" + "osted"))
    done = subprocess.run(["git", "grep", "-naE", words], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")  # 1: git looked, and found nothing


@pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md"])
def test_the_tables_of_measurements_are_those_of_the_files(name: str) -> None:
    """``make tables`` makes them anew."""
    text = (ROOT / name).read_text()
    assert "<!-- bench: " in text
    assert filled(text, ROOT) == text
    for file in re.findall(r"<!-- bench: (\S+\.json)", text):
        picture = (ROOT / name).with_name(f"{Path(file).stem}.png")
        if f"({picture.name})" in text:
            with Image.open(picture) as opened:
                assert opened.info["record"] == digest(read(ROOT / file)), picture.name


def test_two_runs_side_by_side_agree() -> None:
    """Medians of the ratios of two runs within 5 %."""
    first, second = (
        read(ROOT / f"bench/results/cpu/{name}.json") for name in ("peers_tiny_512", "peers_tiny_512_again")
    )
    again = {row["name"]: row["times_ours"]["value"] for row in second["rows"]}
    for row in first["rows"]:
        if row["name"] in GOALS:
            assert again[row["name"]] == pytest.approx(row["times_ours"]["value"], rel=0.05), row["name"]


def test_the_last_fuzzing_found_nothing() -> None:
    rows = json.loads((ROOT / "bench/results/cpu/fuzz.json").read_text())["counts"]
    assert sum(row["cases"] for name, row in rows.items() if name != "engine") >= 20_000
    assert rows["engine"]["cases"] >= 2_000
    assert all(row["ok"] + row["typed"] == row["cases"] for row in rows.values())
