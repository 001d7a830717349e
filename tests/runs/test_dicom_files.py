"""DICOM objects that predict writes beside each other: a Segmentation, its report, key images, a structure set."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from fake_results import DIGEST, along_z, answers
from predictions import TEXT, predict

from lsms_rt.errors import InputError
from lsms_rt.runs import outputs
from lsms_rt.runs.folder import OutputFolder
from lsms_rt.runs.request import Request
from lsms_rt.writing import nifti
from lsms_rt.writing.answer import Answer

pytestmark = pytest.mark.usefixtures("engines_are_fake")
WHEN = datetime(2026, 3, 4, 5, 6, 7)


def test_all_of_them_refer_to_the_series(series: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out, "--sr", "--sc", "--rtstruct") == 0
    found = {path.stem: pydicom.dcmread(path) for path in out.glob("*.dcm")}
    assert sorted(found) == ["key", "report", "rtstruct", "segmentation"]
    image = pydicom.dcmread(next(series.iterdir()))
    assert {ds.StudyInstanceUID for ds in found.values()} == {image.StudyInstanceUID}
    assert len({ds.SeriesInstanceUID for ds in found.values()} | {image.SeriesInstanceUID}) == 5
    assert found["segmentation"].SOPInstanceUID in str(found["report"])
    assert TEXT not in str(found["report"])
    assert json.loads((out / "results.json").read_text())["not_written"] == []
    # Without the options, they are no longer part of the results.
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert not list(out.glob("*.dcm"))


def test_a_report_is_written_if_nothing_was_found(series: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    for file in series.iterdir():
        ds = pydicom.dcmread(file)
        ds.PixelData = bytes(len(ds.PixelData))
        ds.save_as(file)
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out, "--sr", "--sc", "--rtstruct") == 0
    assert [path.name for path in out.glob("*.dcm")] == ["report.dcm"]
    assert "without findings" in str(pydicom.dcmread(out / "report.dcm"))


def test_a_report_without_its_segmentation_is_not_written(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom")
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out, "--seg") == 0

    def broken(*_: object, **__: object) -> None:
        raise InputError("no")

    monkeypatch.setattr("lsms_rt.writing.seg.write_seg", broken)
    assert predict(series, "--text", TEXT, "-o", out, "--sr") == 5
    err = capsys.readouterr().err
    assert (
        "not written: segmentation.dcm: no" in err
        and "not written: report.dcm: its Segmentation, to which it refers, was not written" in err
    )
    assert not (out / "report.dcm").exists()


def test_each_sentence_has_its_own_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be written costs no other its volume."""
    plain = nifti.write_nifti

    def broken(results: Any, path: Path, **options: Any) -> None:
        if results[0].text == "one":
            raise InputError("no")
        plain(results, path, **options)

    pytest.importorskip("nibabel")
    monkeypatch.setattr(nifti, "write_nifti", broken)
    with OutputFolder(tmp_path / "out", []) as folder:
        request = Request(output=tmp_path / "out", nifti=True)
        _, failed = outputs.write_outputs(of_three_sentences(), request, folder, "", DIGEST, 0)
        assert failed == ["mask_1.nii.gz: no"]
        assert folder.written("mask_2.nii.gz") and folder.written("mask_3.nii.gz")


def kept(text: str, found: tuple[bool, ...]) -> list[Answer]:
    """Answers as a run keeps them, of one series."""
    results, corner = answers(along_z(0, 3)), np.zeros((37, 101), bool)
    corner[3:8, 5:12] = True
    return [
        Answer(result.ct, corner & there, text, {"number": n, "area_mm2": 1.0, "pixels": 1})
        for n, (result, there) in enumerate(zip(results, found, strict=True))
    ]


def of_three_sentences() -> list[Answer]:
    first = kept("one", (True, True))
    others = [
        Answer(a.ct, b.mask, b.text, b.record)
        for text, found in (("two", (False, False)), ("three", (False, True)))
        for a, b in zip(first, kept(text, found), strict=True)
    ]
    return [*first, *others]


@pytest.mark.parametrize("prefix", ["", "input2_"])
def test_files_of_several_sentences(tmp_path: Path, prefix: str) -> None:
    for module in ("highdicom", "nibabel"):
        pytest.importorskip(module)
    request = Request(sr=True, sc=True, rtstruct=True, nifti=True)
    with OutputFolder(tmp_path / "out", []) as folder:
        assert outputs.write_outputs(of_three_sentences(), request, folder, prefix, DIGEST, 0, WHEN)[1] == []
    names = {path.name for path in (tmp_path / "out").iterdir() if path.name != "progress.jsonl"}
    expected = {
        "montage.png", "segmentation.dcm", "report.dcm", "rtstruct.dcm", "key_1.dcm", "key_3.dcm",
        "mask_1.nii.gz", "mask_2.nii.gz", "mask_3.nii.gz",
    }  # fmt: skip
    assert names == {f"{prefix}{name}" for name in expected}
    assert all(outputs.is_series_file(name, prefix) for name in names)
    seg = pydicom.dcmread(tmp_path / "out" / f"{prefix}segmentation.dcm")
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Lesion 1", "Lesion 3"]
    assert (seg.ContentDate, seg.ContentTime) == ("20260304", "050607")


@pytest.mark.parametrize("name", ["0003_mask.png", "mask_x.nii.gz", "key_0.dcm", "report_1.dcm", "input1_key.dcm"])
def test_other_files_are_no_files_of_a_series(name: str) -> None:
    assert not outputs.is_series_file(name, "") and not outputs.is_series_file(name, "input2_")


def test_a_label_map_on_request(series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("highdicom")
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out, "--seg", "--seg-type", "labelmap") == 0
    assert pydicom.dcmread(out / "segmentation.dcm").SegmentationType == "LABELMAP"
    assert predict(series, "--text", TEXT, "-o", out, "--seg-type", "labelmap") == 2
    assert "--seg-type labelmap is of a DICOM SEG, which is not asked for; add --seg" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--sr", "--sc", "--rtstruct"])
def test_files_need_a_folder(series: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert predict(series, "--text", TEXT, option) == 2
    assert f"error: {option} writes files; add -o DIR" in capsys.readouterr().err


def test_an_input_that_is_not_dicom_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], abdomen: Any) -> None:
    np.save(tmp_path / "a.npy", abdomen)
    code = predict(tmp_path / "a.npy", "--text", TEXT, "-o", tmp_path / "out", "--sc", "--rtstruct", "--seg", "--sr")
    err = capsys.readouterr().err
    assert code == 5 and err.count("not a DICOM image, so a DICOM object cannot refer to it") == 3
    assert "report.dcm: its Segmentation, to which it refers, was not written" in err


@pytest.mark.slow
def test_results_json_names_the_files_and_what_an_archive_calls_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], series: Path
) -> None:
    pytest.importorskip("highdicom")
    out = tmp_path / "out"
    asked = ("--text", "the lesion in the liver", "--text", "the largest lesion in the liver", "-o", out)
    assert predict(series, *asked, "--sr", "--sc") == 0
    files = json.loads((out / "results.json").read_text())["files"]
    names = {row["file"] for row in files}
    assert {"montage.png", "segmentation.dcm", "report.dcm"} <= names
    for row in files:
        assert row["input"] == 1 and (out / row["file"]).is_file()
        assert row["sentence"] == (int(row["file"][4]) if row["file"].startswith("key_") else None)
        if row["file"].endswith(".dcm"):
            ds = pydicom.dcmread(out / row["file"])
            assert (row["sop_class_uid"], row["sop_instance_uid"], row["series_uid"]) == (
                ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID,
            )  # fmt: skip
    capsys.readouterr()
    assert predict(series, *asked, "--sc") == 0
    gone = "deleted, as they are no longer part of the results: report.dcm, segmentation.dcm"
    assert gone in capsys.readouterr().err.splitlines()
    # the same files, in a finished folder
    assert predict(series, *asked, "--sr", "--sc") == 0
    assert json.loads((out / "results.json").read_text())["files"] == files
