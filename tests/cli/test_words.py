"""What may be said to an engine, and how a sentence is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run


def test_the_words_of_an_engine_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "words", "demo")
    assert (code, err) == (0, "")
    assert "what may be said to this engine, in English, in at most 32 tokens" in out
    assert "cyst, cysts" in out and "hemangioma = haemangioma" in out
    assert "left-sided" in out and "segments II to IV: left lobe" in out
    assert "refused: negation     no," in out
    assert max(map(len, out.splitlines())) <= 110


def test_words_for_others_stand_in_columns(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "words", "demo")
    rows = out.splitlines()
    assert rows[rows.index("by a broader term") + 1] == "  tumor               cancer, malignancy"
    assert "  focus               spot" in rows
    assert any(row.startswith("left out, with a note ") for row in rows)


def test_the_words_are_listed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "words", "demo", "--json")
    words = json.loads(out)
    assert (code, words["max_tokens"], words["language"], words["open"]) == (0, 32, "English", False)
    assert {"known": ["mass", "tumor", "tumour"], "also": ["neoplasm", "growth", "lump"]} in words["groups"]["lesion"]
    assert "spleen" in words["refused"]["organ"]
    assert "well defined" in words["left_out"] and len(words["left_out"]) > 200


def test_a_sentence_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "words", "demo", "the leison on the left")
    assert (code, err) == (0, "")
    rows = [line.split(maxsplit=1) for line in out.splitlines()]
    assert rows[:3] == [["understood", "no"], ["read", "as               the in the left lobe"], ["side", "left"]]
    assert rows[3] == ["tokens", "7 of 32"]
    assert "leison -> lesion?" in out


def test_a_reading_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "words", "demo", "no leison in segment VII", "--json")
    reading = json.loads(out)
    assert (code, reading["understood"], reading["side"]) == (0, "no", "right")
    assert reading["nearest"] == {"leison": "lesion"}
    assert {reason["kind"] for reason in reading["reasons"]} == {"segment", "negation", "no lesion"}
    assert reading["tokens"] <= reading["max_tokens"] == 32


def test_a_sentence_of_too_many_tokens_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "words", "demo", "the lesion " * 20)
    assert "42 of 32, too many" in out


def test_no_engine_and_no_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "words", str(tmp_path / "none"))[0] == 4
    assert run(capsys, "words", "demo", " ")[0] == 2
