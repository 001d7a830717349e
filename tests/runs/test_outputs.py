"""Files that predict writes, and inputs that it cannot read."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from predictions import SLICES, TEXT, answer, opened, predict

from lsms_rt.atomic import atomic_file
from lsms_rt.errors import InputError
from lsms_rt.runs import outputs
from lsms_rt.runs.request import Request
from lsms_rt.writing.montage import MAX_TILES, save_montage

pytestmark = pytest.mark.usefixtures("engines_are_fake")


def test_a_series_leaves_all_that_was_promised(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out, "--batch", 2) == 0
    document = json.loads((out / "results.json").read_text())
    assert document["engine"].startswith("sha256:") and len(document["results"]) == SLICES
    (row,) = document["series"]
    found = [record for record in document["results"] if record["found"]]
    assert row["slices"] == SLICES and row["found"] == len(found) > 0
    assert f"found in {len(found)} of {SLICES} slices" in capsys.readouterr().out
    assert row["volume_ml"] > 0
    for record in document["results"]:
        mask = opened(out / record["mask"]) > 127
        assert int(mask.sum()) == record["pixels"] and mask.shape == tuple(record["shape"])
        assert (out / record["overlay"]).stat().st_size > 1000
    assert opened(out / "montage.png").shape[1] > 200
    # No partial file is left.
    assert not list(out.glob(".*"))


def test_a_damaged_file_in_the_middle_does_not_stop_the_rest(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = series / "2.dcm"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    assert predict(series, "--text", TEXT, "-o", tmp_path / "out") == 5
    err = capsys.readouterr().err
    assert "not read: file 3 of 5" in err and "2.dcm" not in err
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(document["results"]) == SLICES - 1 and len(document["not_read"]) == 1


def test_an_input_that_cannot_be_read_does_not_stop_the_others(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.dcm").write_text("dear diary")
    out = tmp_path / "out"
    assert predict(series / "0.dcm", tmp_path / "bad.dcm", series / "1.dcm", "--text", TEXT, "-o", out) == 5
    assert "not read: input 2: " in capsys.readouterr().err
    document = json.loads((out / "results.json").read_text())
    assert [row["input"] for row in document["series"]] == [1, 3] and len(document["results"]) == 2
    # Nothing at all could be read.
    assert predict(tmp_path / "bad.dcm", tmp_path / "none.dcm", "--text", TEXT) == 2


def test_what_was_said_of_an_earlier_series_is_taken_away(series: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out, "--seg") == 0
    assert (out / "segmentation.dcm").exists() and (out / "montage.png").exists()
    for file in series.iterdir():
        ds = pydicom.dcmread(file)
        # Air: nothing is found.
        ds.PixelData = bytes(len(ds.PixelData))
        ds.save_as(file)
    assert predict(series, "--text", TEXT, "-o", out, "--seg") == 0
    assert json.loads((out / "results.json").read_text())["series"][0]["found"] == 0
    assert not (out / "segmentation.dcm").exists() and not (out / "montage.png").exists()


def test_what_cannot_be_written_as_a_whole_does_not_stop_the_rest(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gap: one affine cannot hold it, all else can."""
    pytest.importorskip("nibabel")
    pytest.importorskip("highdicom")
    sorted(series.iterdir())[1].unlink()
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out, "--nifti", "--seg") == 5
    assert "not written: mask.nii.gz: " in capsys.readouterr().err
    assert {"results.json", "segmentation.dcm", "montage.png"} <= {path.name for path in out.iterdir()}
    assert len(json.loads((out / "results.json").read_text())["not_written"]) == 1


def test_a_missing_library_is_told_before_a_series_is_computed(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert predict(series, "--text", TEXT, "-o", tmp_path / "out", "--seg") == 3
    assert "pip install 'lsms-rt[seg]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    with contextlib.suppress(ZeroDivisionError), atomic_file(target) as part:
        part.write_text("half")
        _ = 1 / 0
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]
    with atomic_file(target) as part:
        part.write_text("new")
    assert target.read_text() == "new" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="cannot be written") as caught, atomic_file(tmp_path / "none" / "a") as part:
        part.write_text("x")
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    assert predict(series, "--text", TEXT, "-o", tmp_path / "locked" / "out") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("x")
    assert predict(series, "--text", TEXT, "-o", tmp_path / "out") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_nothing_found_writes_no_montage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.full((64, 64), -1000, np.int16))
    code = predict(tmp_path / "a.npy", tmp_path / "b.npy", "--text", "the cyst", "-o", tmp_path / "out")
    assert code == 0 and "nothing found" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*montage*"))


def test_a_montage_of_many_slices_has_a_bound(tmp_path: Path) -> None:
    save_montage(tmp_path / "few.png", [answer(5.0, 1.0)], "x")
    save_montage(tmp_path / "many.png", [answer(5.0, float(n), n) for n in range(4 * MAX_TILES)], "x")
    few, many = (opened(tmp_path / name).shape for name in ("few.png", "many.png"))
    assert many[1] == 5 * few[1] and many[0] > 4 * few[0]


def test_seg_and_nifti_need_a_folder(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--seg", "--empty-seg", "--nifti"):
        assert predict(series, "--text", TEXT, option) == 2
        assert f"error: {option} writes files; add -o DIR" in capsys.readouterr().err
    assert predict(series, "--text", TEXT, "--seg", "--nifti") == 2
    assert "error: --nifti and --seg write files; add -o DIR" in capsys.readouterr().err


def test_a_format_that_needs_no_library_needs_a_folder_too(monkeypatch: pytest.MonkeyPatch) -> None:
    row = outputs.SeriesOutput(
        file="rtstruct.dcm", requested=lambda request: True, option=lambda request: "--rtstruct", write=lambda *_: None
    )
    monkeypatch.setattr(outputs, "OUTPUTS", (row,))
    with pytest.raises(InputError, match="--rtstruct writes files; add -o DIR"):
        outputs.check_outputs(Request())
    outputs.check_outputs(Request(output=Path("out")))
