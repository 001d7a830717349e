"""predict as a user meets it: printed lines, JSON, notes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import SLICE, TEXT, refused, run
from PIL import Image

from lsms_rt.datasets.phantom.dicom import write_slice


def test_predict_prints_a_line_and_writes_pictures(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "predict", "demo", SLICE, "--text", TEXT, "-o", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    assert out.startswith("the file: ")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "0000_mask.png", "0000_overlay.png", "progress.jsonl", "results.json",
    ]  # fmt: skip


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "predict", "demo", SLICE, SLICE, "--text", TEXT, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["engine"].startswith("sha256:")
    assert len(document["results"]) == 2
    assert {"found", "score", "area_mm2", "bbox", "mean_hu", "timings_ms", "weights"} <= set(document["results"][0])


def test_not_found_is_no_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.save(tmp_path / "air.npy", np.full((64, 64), -1000, np.int16))
    code, out, _ = run(capsys, "predict", "demo", str(tmp_path / "air.npy"), "--text", "the cyst")
    assert code == 0
    assert "nothing found" in out


def test_words_that_the_engine_does_not_know_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    text = "the spiculated lesion of the liver"
    code, out, err = run(capsys, "predict", "demo", SLICE, "--text", text)
    assert (code, out[:8]) == (0, "the file")
    partly = "warning: the sentence is partly understood\nwarning: words not in this engine's vocabulary: "
    assert err == f"{partly}word 2\n"
    code, out, err = run(capsys, "predict", "demo", SLICE, "--text", text, "--names")
    assert (code, out[:13]) == (0, "phantom_1.dcm")
    assert err == f"{partly}spiculated\nthe sentence is read as: the lesion of the liver\n"


def test_a_sentence_that_is_not_understood_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("predict", "demo", SLICE, "--text", "no leison in segment 7")
    code, out, err = run(capsys, *asked)
    assert (code, out) == (2, "")
    assert 'a mask cannot show what is negated, past or hypothetical: "no"' in err
    assert "word 2 -> lesion?" in err and "leison" not in err
    code, _, err = run(capsys, *asked, "--names")
    assert code == 2 and "leison -> lesion?" in err


def test_a_lenient_answer_says_what_it_is_worth(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = ("predict", "demo", SLICE, "--text", "not the Meyer lesion in segment II", "--lenient", "-o", str(tmp_path))
    code, _, err = run(capsys, *asked)
    assert code == 0
    assert "the sentence is not understood, and the answer may be another lesion's" in err
    report = json.loads((tmp_path / "results.json").read_text())
    (record,) = report["results"]
    for part in (record, *report["sentences"]):
        assert (part["understood"], part["unknown_words"], part["side"]) == ("no", 2, "left")
        assert any('"segment 2" is read as the left lobe' in note for note in part["notes"])
        assert "read_as" not in part and "text" not in part
    assert "Meyer" not in json.dumps(report)


def test_names_show_how_a_sentence_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "predict", "demo", SLICE, "--text", "the left-sided oval cyst", "--names", "--json")
    report = json.loads(out)
    for part in (report["results"][0], *report["sentences"]):
        assert (part["understood"], part["read_as"]) == ("partly", "the left-lobe cyst")
        assert (code, part["unknown_words"]) == (0, ["oval"])


def test_a_folder_is_a_series(capsys: pytest.CaptureFixture[str], tmp_path: Path, phantom_case) -> None:

    for index in range(3):
        write_slice(tmp_path / f"{index}.dcm", phantom_case, index, "case")
    code, out, _ = run(capsys, "predict", "demo", str(tmp_path), "--text", TEXT)
    assert code == 0
    assert "of 3 slices" in out


def test_a_result_is_saved_before_a_later_input_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "bad.dcm").write_text("dear diary")
    out = tmp_path / "out"
    code, _, err = run(capsys, "predict", "demo", SLICE, str(tmp_path / "bad.dcm"), "--text", TEXT, "-o", str(out))
    assert code == 5
    assert "not read: input 2: the file: not DICOM" in err
    assert (out / "input1_0000_mask.png").is_file()
    assert len(json.loads((out / "results.json").read_text())["results"]) == 1


def test_a_picture_says_what_it_is_taken_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:

    Image.fromarray(np.full((64, 64), 128, np.uint8)).save(tmp_path / "gray.png")
    arguments = ("predict", "demo", str(tmp_path / "gray.png"), "--text", TEXT, "--json")
    refused(capsys, 2, "--window", *arguments)
    code, out, err = run(capsys, *arguments, "--window", "40", "400")
    assert code == 0
    assert "level 40, width 400" in err
    assert "level 40, width 400" in json.loads(out)["results"][0]["notes"][0]


def test_a_name_that_is_no_text_is_written_all_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"odd\xff.dcm")
    try:
        shutil.copyfile(SLICE, name)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    code, _, _ = run(capsys, "predict", "demo", str(name), "--text", TEXT, "-o", str(tmp_path / "out"))
    assert code == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["results"][0]["source"]
