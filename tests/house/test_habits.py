"""House rules that no other test belongs to: pinned tools, clean texts, committed results that keep their promises."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from lsms_rt.bench.peers.side_by_side import GOALS
from lsms_rt.bench.records import read

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "kernels/README.md")]
TEXTS += sorted((ROOT / "docs").glob("*.md"))


def text_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors_of(text: str) -> set[str]:
    """The anchors that a Markdown page gets from its headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("tool", ["ruff", "codespell"])
def test_pre_commit_uses_the_versions_of_the_dev_extra(tool: str) -> None:
    pinned = re.search(rf'"{tool}==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    hooked = re.search(rf"/{tool}(?:-pre-commit)?\n    rev: v([\d.]+)\n", hooks)
    assert pinned is not None
    assert hooked is not None
    assert pinned[1] == hooked[1]


@pytest.mark.parametrize("path", TEXTS, ids=text_id)
def test_lines_of_texts_are_at_most_120_characters(path: Path) -> None:
    """Tables and generated blocks are exempt: they cannot be wrapped."""
    text = re.sub(r"<!-- (bench|api): .*?<!-- \1:? end -->", "", path.read_text(), flags=re.DOTALL)
    long = [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")]
    assert long == []


@pytest.mark.parametrize("path", TEXTS, ids=text_id)
def test_links_of_texts_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target.read_text()), link


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    missing = [page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in index]
    assert [name for name in missing if name != "README.md"] == []


def test_every_make_target_has_a_help_text() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    helped = re.findall(r"^([a-z-]+):.*  ## \S", makefile, re.MULTILINE)
    assert sorted(phony.split()) == sorted(helped)


def test_the_tree_names_no_machine() -> None:
    """No path of one computer, no host of a package index; each pattern is written so that it does not match itself."""
    patterns = "|".join(("/wor[k]/", "py[p]i[.]org", "python[h]osted"))
    done = subprocess.run(["git", "grep", "-naE", patterns], cwd=ROOT, capture_output=True, check=False)
    # 1: git searched, and found nothing
    assert (done.returncode, done.stdout) == (1, b"")


def test_two_runs_side_by_side_agree() -> None:
    """The medians of the ratios of two committed runs of few launches differ by at most 10 %; both reach the goals."""
    first, second = (
        read(ROOT / f"bench/results/cpu/{name}.json") for name in ("peers_tiny_512", "peers_tiny_512_again")
    )
    again = {row["name"]: row["times_ours"]["value"] for row in second["rows"]}
    for row in first["rows"]:
        if row["name"] in GOALS:
            assert again[row["name"]] == pytest.approx(row["times_ours"]["value"], rel=0.1), row["name"]
    for row in (*first["rows"], *second["rows"]):
        assert "goal_best" not in row or row["times_best"]["value"] >= row["goal_best"], row["name"]


def test_the_last_fuzzing_run_found_nothing() -> None:
    rows = json.loads((ROOT / "bench/results/cpu/fuzz.json").read_text())["counts"]
    assert sum(row["cases"] for name, row in rows.items() if name != "engine") >= 20_000
    assert rows["engine"]["cases"] >= 2_000
    assert all(row["ok"] + row["typed"] == row["cases"] for row in rows.values())


def test_every_place_that_contributing_names_exists() -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    named = {name for name in re.findall(r"`([\w./]+)`", text) if "/" in name and "..." not in name}
    # Some are named relative to a folder.
    folders = (ROOT, ROOT / "lsms_rt", ROOT / "lsms_rt/datasets/phantom")
    assert sorted(name for name in named if not any((folder / name).exists() for folder in folders)) == []
