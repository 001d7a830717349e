"""Several inputs: whose each result is, and that a bad one does not end the others."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_segmenter import LEFT, Halves, fake_run, write_arrays
from predictions import SLICES, TEXT, predict

from lsms_rt.cli.predict.lines import lines
from lsms_rt.errors import EngineError, InputError, LsmsError, MachineError
from lsms_rt.runs import asking as asking_module
from lsms_rt.runs import run as run_module
from lsms_rt.runs import slices as slices_module
from lsms_rt.segmentation import Segmentation

pytestmark = pytest.mark.usefixtures("engines_are_fake")


def test_every_result_names_its_input(tmp_path: Path) -> None:
    paths, out = write_arrays(tmp_path / "in", 3), tmp_path / "out"
    paths[0].write_bytes(b"")
    report = fake_run(paths, output=out)
    document = json.loads((out / "results.json").read_text())
    assert document["inputs"] == 3 and document["not_read"][0].startswith("input 1: ")
    assert [record["input"] for record in document["results"]] == [2, 3]
    assert [row["input"] for row in document["series"]] == [2, 3]
    assert [record["mask"] for record in document["results"]] == ["input2_0000_mask.png", "input3_0001_mask.png"]
    text = lines(report.results, report.series, report.sentences, True)
    assert [line.partition(":")[0] for line in text] == ["input 2", "input 3"]
    # also where one is left, and where what was done is not done again
    report = fake_run(paths[:2], output=tmp_path / "two")
    assert [record["input"] for record in fake_run(paths[:2], output=tmp_path / "two").results] == [2]
    assert report.inputs == 2 and lines(report.results, report.series, report.sentences, True)[0].startswith(
        "input 2: the file: "
    )


def test_lines_name_their_input_if_only_one_could_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write_arrays(tmp_path / "in", 2)
    paths[0].write_bytes(b"")
    assert predict(*paths, "--text", TEXT) == 5
    out, _ = capsys.readouterr()
    assert all(line.startswith("input 2: ") for line in out.splitlines())


def test_equal_warnings_of_two_inputs_are_both_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.full((64, 64), 40, np.int16))
    assert predict(tmp_path / "a.npy", tmp_path / "b.npy", "--text", TEXT) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "below -50 HU" in line]
    assert [line.partition(": hardly")[0] for line in warnings] == ["warning: input 1", "warning: input 2"]


def volumes(folder: Path, monkeypatch: pytest.MonkeyPatch, bad: int | None, count: int = 5) -> list[Path]:
    """Two inputs, the first of ``count`` slices, of which the engine cannot compute the one with number ``bad``."""
    load = run_module.load_slices

    def several(path: Path, **options: object) -> object:
        (ct,) = load(path)
        if path.name != "0.npy":
            return [ct]
        slices = []
        for n in range(count):
            hu = ct.hu.copy()
            if n == bad or bad is None:
                hu[:] = 3000
            slices.append(type(ct)(hu, (1.0, 1.0), source=f"file {n + 1} of {count}", position_mm=float(n)))
        return slices

    monkeypatch.setattr(run_module, "load_slices", several)
    return write_arrays(folder, 2)


@pytest.mark.parametrize(("text", "warned"), [("the largest lesion in the left lobe", True), (LEFT, False)])
def test_a_rank_in_a_series_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str, warned: bool
) -> None:
    """Every slice has a largest lesion; of a single slice there is nothing to say."""
    paths = volumes(tmp_path / "in", monkeypatch, 9)
    fake_run(paths[1:], text)
    assert "not of the series" not in caplog.text
    fake_run(paths[:1], text)
    assert ("not of the series" in caplog.text) == warned


@pytest.mark.parametrize("bad", range(5))
def test_a_bad_slice_does_not_end_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: int) -> None:
    paths, out = volumes(tmp_path / "in", monkeypatch, bad), tmp_path / "out"
    report = fake_run(paths, output=out, broken=0.9)
    first = [record for record in report.results if record["input"] == 1]
    assert [record["source"] for record in first] == [f"file {n + 1} of 5" for n in range(5) if n != bad]
    assert [record["number"] for record in first] == [n for n in range(5) if n != bad]
    assert report.not_computed == [f"input 1: file {bad + 1} of 5: the engine returned NaN; build it again"]
    row = json.loads((out / "results.json").read_text())["series"][0]
    assert (row["slices"], row["not_computed"], row["incomplete"], row["volume_ml"]) == (4, 1, 1, None)
    assert [record["input"] for record in report.results][-1] == 2


def test_an_input_of_bad_slices_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = volumes(tmp_path / "in", monkeypatch, None, 40)
    report = fake_run(paths, output=tmp_path / "out", broken=0.9)
    assert [record["input"] for record in report.results] == [2]
    assert len(report.not_computed) == asking_module.MAX_FAILED + 1 and "not tried" in report.not_computed[-1]
    with pytest.raises(EngineError, match="nothing could be computed"):
        fake_run(paths[:1], output=tmp_path / "none", broken=0.9)
    assert not (tmp_path / "none" / "results.json").exists()


def test_no_memory_for_one_input_does_not_end_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, load = write_arrays(tmp_path / "in", 2), run_module.load_slices

    def large(path: Path, **options: object) -> object:
        if path.name == "0.npy":
            raise MemoryError
        return load(path)

    monkeypatch.setattr(run_module, "load_slices", large)
    report = fake_run(paths, output=tmp_path / "out")
    assert [record["input"] for record in report.results] == [2]
    assert report.not_read == [f"input 1: {slices_module.OUT_OF_MEMORY}"]
    with pytest.raises(MachineError, match="memory"):
        fake_run(paths[:1])


def test_a_report_says_whether_the_machine_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, segment, left = write_arrays(tmp_path / "in", 2), Halves.segment, [1, 1]

    def large(halves: Halves, *given: Any) -> Any:
        # together, then alone
        if left:
            left.pop()
            raise MemoryError
        return segment(halves, *given)

    monkeypatch.setattr(Halves, "segment", large)
    report = fake_run(paths)
    assert [record["input"] for record in report.results] == [2]
    assert isinstance(report.machine_error, MachineError)
    assert fake_run(paths).machine_error is None


@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, MachineError), (errno.EACCES, InputError)])
def test_a_disk_that_fails_for_one_input_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[LsmsError]
) -> None:
    paths, load = write_arrays(tmp_path / "in", 2), run_module.load_slices

    def fails(path: Path, **options: object) -> object:
        if path.name == "0.npy":
            raise OSError(code, os.strerror(code), "DOE^JOHN")
        return load(path)

    monkeypatch.setattr(run_module, "load_slices", fails)
    report = fake_run(paths)
    assert [record["input"] for record in report.results] == [2] and "DOE" not in report.not_read[0]
    assert report.not_read[0].startswith(f"input 1: the input cannot be read ({os.strerror(code)})")
    with pytest.raises(kind, match="cannot be read"):
        fake_run(paths[:1])


def test_no_memory_for_one_file_does_not_end_the_others(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("highdicom")

    def large(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("lsms_rt.writing.seg.write_seg", large)
    assert predict(series, "--text", TEXT, "-o", tmp_path / "out", "--seg") == 5
    assert "not written: segmentation.dcm: it needs more memory" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["results"]) == SLICES


def test_a_measure_that_is_no_number_is_an_error_of_its_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, plain = write_arrays(tmp_path / "in", 2), Segmentation.to_dict

    def infinite(result: Segmentation, **options: bool) -> dict[str, object]:
        area = {"area_mm2": float("inf")} if result.mask.sum() == 10 * 24 else {}
        return plain(result, **options) | area

    monkeypatch.setattr(Segmentation, "to_dict", infinite)
    report = fake_run(paths, output=tmp_path / "out")
    assert [record["input"] for record in report.results] == [2]
    assert "a measure is infinite or no number" in report.not_computed[0]
    assert "Infinity" not in (tmp_path / "out" / "results.json").read_text()


def test_an_incomplete_series_says_so_wherever_it_goes(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nibabel, pydicom = pytest.importorskip("nibabel"), pytest.importorskip("pydicom")
    pytest.importorskip("highdicom")
    footers = []
    monkeypatch.setattr(
        "lsms_rt.runs.outputs.save_montage", lambda path, answers, footer, names: footers.append(footer)
    )
    # At the end: no gap tells.
    last = sorted(series.iterdir())[-1]
    data = last.read_bytes()
    last.write_bytes(data[:3000])
    (series / "notes.txt").write_text("no image")
    out = tmp_path / "out"
    for complete in (False, True):
        if complete:
            last.write_bytes(data)
        assert predict(series, "--text", TEXT, "-o", out, "--seg", "--nifti") == (0 if complete else 5)
        (row,) = json.loads((out / "results.json").read_text())["series"]
        seg = pydicom.dcmread(out / "segmentation.dcm")
        texts = (
            capsys.readouterr().out, footers[-1], seg.ContentDescription, seg.SeriesDescription,
            str(nibabel.load(out / "mask.nii.gz").header["descrip"]),
        )  # fmt: skip
        assert all(("incomplete" in text) is not complete for text in texts), texts
        assert (row["volume_ml"] is None) is not complete
        assert row["not_read"] == row["incomplete"] == int(not complete) and row["not_dicom"] == 1
        if not complete:
            assert (
                "incomplete: 1 image without an answer" in texts[0]
                and "incomplete: 1 image without an answer" in texts[2]
            )


def test_a_fault_of_ours_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, load = write_arrays(tmp_path / "in", 3), run_module.load_slices

    def broken(path: Path, **options: object) -> object:
        if path.name == "1.npy":
            raise ZeroDivisionError("DOE^JOHN")
        return load(path)

    monkeypatch.setattr(run_module, "load_slices", broken)
    assert predict(*paths, "--text", TEXT, "-o", tmp_path / "out") == 1
    out, err = capsys.readouterr()
    assert "input 3: " in out and "not computed: input 2: unexpected ZeroDivisionError" in err and "DOE" not in err
    document = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(record["input"], record["number"]) for record in document["results"]] == [(1, 0), (3, 1)]
    assert predict(paths[1], "--text", TEXT) == 1


def test_an_answer_without_a_folder_needs_no_files(tmp_path: Path) -> None:
    report = fake_run(write_arrays(tmp_path / "in", 1))
    assert "mask" not in report.results[0] and report.is_complete
