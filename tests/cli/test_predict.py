"""predict on series: what is written, what is done again, what happens when something fails in the middle."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import generate_uid

from lsms_rt.atomic import atomic_file
from lsms_rt.cli.main import main
from lsms_rt.cli.predict.journal import NAME, Journal
from lsms_rt.cli.predict.volume import summary, volume_ml
from lsms_rt.ct_slice import CtSlice
from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.errors import InputError
from lsms_rt.segmenter import Segmenter
from lsms_rt.writing.answer import Answer
from lsms_rt.writing.montage import MAX_TILES, save_montage

TEXT = "the lesion in the liver"
SLICES = 5


@pytest.fixture
def series(tmp_path: Path, phantom_case: Any) -> Path:
    folder = tmp_path / "series"
    folder.mkdir()
    for index in range(SLICES):
        write_slice(folder / f"{index}.dcm", phantom_case, index, "case")
    return folder


def predict(*arguments: object) -> int:
    return main(["predict", "demo", *map(str, arguments)])


def everything(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.suffix == ".png"}


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


class Counted:
    """Counts the slices that an engine is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slices = 0
        plain = Segmenter.predict_series

        def counted(segmenter: Segmenter, images: Any, *args: Any, **more: Any) -> Any:
            self.slices += len(images)
            return plain(segmenter, images, *args, **more)

        monkeypatch.setattr(Segmenter, "predict_series", counted)


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
    assert not list(out.glob(".*"))  # nothing half-written is left


def test_what_is_done_is_not_done_again(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out) == 0
    before, results = everything(out), (out / "results.json").read_bytes()
    (out / "0002_mask.png").unlink()
    lines = (out / NAME).read_text().splitlines(keepends=True)
    (out / NAME).write_text("".join(lines[:-1]) + lines[-1][:20])  # killed while the last line was written
    capsys.readouterr()
    asked = Counted(monkeypatch)
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert asked.slices == 2  # the mask that is gone, the line that was cut off
    assert f"{SLICES - 2} slices were done by a run before" in capsys.readouterr().err
    assert everything(out) == before
    again = json.loads((out / "results.json").read_text())
    assert without_times(again) == without_times(json.loads(results))
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert asked.slices == 2


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    return document | {"results": [{k: v for k, v in r.items() if k != "timings_ms"} for r in document["results"]]}


def test_a_changed_slice_is_computed_again(series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out) == 0
    ds = pydicom.dcmread(series / "1.dcm")
    ds.RescaleIntercept = float(ds.RescaleIntercept) + 3
    ds.save_as(series / "1.dcm")
    asked = Counted(monkeypatch)
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert asked.slices == 1


def test_pictures_of_slices_that_are_gone_are_taken_away(series: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out) == 0
    (out / "mine.png").write_bytes(b"not ours")
    (series / f"{SLICES - 1}.dcm").unlink()
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert len(list(out.glob("*_mask.png"))) == len(list(out.glob("*_overlay.png"))) == SLICES - 1
    assert (out / "mine.png").exists()


@pytest.mark.parametrize("other", [("--text", "the cyst in the liver"), ("--text", TEXT, "--window", "40", "400")])
def test_results_of_two_requests_are_not_mixed(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], other: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    assert predict(series / "0.dcm", "--text", TEXT, "-o", out) == 0
    assert predict(series / "0.dcm", *other, "-o", out) == 2
    assert "another input, sentence, engine, window" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    assert predict(series / "0.dcm", "--text", TEXT, "-o", tmp_path / "full") == 2
    assert "not empty" in capsys.readouterr().err


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
    assert predict(tmp_path / "bad.dcm", tmp_path / "none.dcm", "--text", TEXT) == 2  # nothing at all could be read


def test_a_full_disk_is_told_and_the_run_goes_on_later(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "DOE^JOHN"
    plain, saved = Image.Image.save, []

    def save(picture: Image.Image, path: Any, *args: Any, **more: Any) -> None:
        saved.append(path)
        if len(saved) == 6:  # the third slice's mask, half of it
            Path(path).write_bytes(b"\x89PNG")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        plain(picture, path, *args, **more)

    monkeypatch.setattr(Image.Image, "save", save)
    assert predict(series, "--text", TEXT, "-o", out, "--debug") == 2
    err = capsys.readouterr().err
    assert "No space left" in err and "DOE" not in err
    assert not list(out.glob(".*")) and not (out / "results.json").exists()
    assert len((out / NAME).read_text().splitlines()) == 1 + 2
    monkeypatch.setattr(Image.Image, "save", plain)
    asked = Counted(monkeypatch)
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert asked.slices == SLICES - 2


def test_masks_are_never_those_of_other_slices(series: Path, tmp_path: Path) -> None:
    """A file that is damaged for one run shifts all numbers, and back again."""
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    assert predict(series, "--text", TEXT, "-o", out) == 0
    file = sorted(series.iterdir())[2]
    data = file.read_bytes()
    file.write_bytes(data[:3000])
    assert predict(series, "--text", TEXT, "-o", out) == 5
    file.write_bytes(data)
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert predict(series, "--text", TEXT, "-o", fresh) == 0
    assert everything(out) == everything(fresh)
    records = [json.loads((folder / "results.json").read_text()) for folder in (out, fresh)]
    assert without_times(records[0]) == without_times(records[1])


def test_what_was_said_of_an_earlier_series_is_taken_away(series: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out, "--seg") == 0
    assert (out / "segmentation.dcm").exists() and (out / "montage.png").exists()
    for file in series.iterdir():
        ds = pydicom.dcmread(file)
        ds.PixelData = bytes(len(ds.PixelData))  # air: nothing is found
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


def test_a_killed_run_leaves_whole_files_and_goes_on(
    series: Path, tmp_path: Path, phantom_case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(SLICES, 40):
        write_slice(series / f"{index:02d}.dcm", phantom_case, index % SLICES, "case")
        ds = pydicom.dcmread(series / f"{index:02d}.dcm")
        ds.ImagePositionPatient[2], ds.SOPInstanceUID = 1000.0 + index, generate_uid()
        ds.save_as(series / f"{index:02d}.dcm")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "lsms_rt.cli", "predict", "demo", str(series), "--text", TEXT, "-o", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            if (out / NAME).exists() and len((out / NAME).read_text().splitlines()) > 3:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        assert process.wait() == -signal.SIGKILL
    for path in out.glob("[0-9]*.png"):
        opened(path)  # every one that is there is whole
    asked = Counted(monkeypatch)
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert 0 < asked.slices < 40
    assert len(json.loads((out / "results.json").read_text())["results"]) == 40
    assert not list(out.glob(".*"))


def test_nothing_found_writes_no_montage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.full((64, 64), -1000, np.int16))
    code = predict(tmp_path / "a.npy", tmp_path / "b.npy", "--text", "the cyst", "-o", tmp_path / "out")
    assert code == 0 and "nothing found" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*montage*"))


def answer(area: float | None, position: float | None, number: int = 0, pixels: int = 3) -> Answer:
    mask = np.zeros((20, 31), bool)
    mask.flat[:pixels] = True
    ct = CtSlice(np.zeros((20, 31), np.float32), position_mm=position)
    return Answer(ct, mask, "", {"area_mm2": area, "number": number, "score": 0.5, "pixels": pixels})


def test_volume_of_a_series() -> None:
    """A column of 100 mm2 over five slices 2 mm apart, each standing for 2 mm: 1 ml."""
    column = [answer(100.0, 2.0 * n) for n in range(5)]
    assert volume_ml(column) == pytest.approx(1.0)
    gap = [*column[:3], answer(100.0, 100.0), answer(100.0, 102.0)]  # nothing is made up for what is missing
    assert volume_ml(gap) == pytest.approx(1.0)
    two_spacings = [answer(100.0, z) for z in (0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 14.0, 19.0)]
    assert volume_ml(two_spacings) is None
    uneven = [answer(100.0, z) for z in (0.0, 1.0, 2.0, 3.2)]
    assert volume_ml(uneven) == pytest.approx(100 * (1 + 1 + 1.1 + 1.2) / 1000)
    assert volume_ml(column[:1]) is None
    assert volume_ml([answer(None, 0.0), answer(1.0, 1.0)]) is None
    assert volume_ml([answer(1.0, None), answer(1.0, 1.0)]) is None
    rows = summary(1, [answer(0.0, 0.0, 0, 0), answer(5.0, 1.0, 1, 9), answer(4.0, 2.0, 2, 5)])
    assert (rows["slices"], rows["found"], rows["largest"], rows["gaps"]) == (3, 2, 1, 0)
    assert summary(1, gap)["gaps"] == 1 and summary(1, [answer(1.0, None)])["gaps"] is None


def test_a_montage_of_many_slices_has_a_bound(tmp_path: Path) -> None:
    save_montage(tmp_path / "few.png", [answer(5.0, 1.0)], "x")
    save_montage(tmp_path / "many.png", [answer(5.0, float(n), n) for n in range(4 * MAX_TILES)], "x")
    few, many = (opened(tmp_path / name).shape for name in ("few.png", "many.png"))
    assert many[1] == 5 * few[1] and many[0] > 4 * few[0]


def test_a_journal_of_nonsense_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("\x00 nonsense")
    with pytest.raises(InputError, match="another input, sentence"):
        Journal(tmp_path, "digest")
    (tmp_path / NAME).write_text(json.dumps({"request": "digest", "format": 1}) + '\n[]\n{"key": 3}\nnull\n')
    ct = CtSlice(np.zeros((20, 20), np.float32))
    assert Journal(tmp_path, "digest").known(0, ct, "") is None


def test_seg_and_nifti_need_a_folder(series: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert predict(series, "--text", TEXT, "--seg") == 2
    assert "say where with -o" in capsys.readouterr().err


def test_a_progress_bar_counts_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lsms_rt.cli.main import _bar

    assert list(_bar(iter("abc"), 3)) == list("abc")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(_bar(iter("abc"), 3)) == list("abc")
    assert "/3 [" in capsys.readouterr().err
