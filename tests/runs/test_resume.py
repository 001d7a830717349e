"""Interrupted and repeated runs: what is computed again, and what is not."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image
from predictions import SLICES, TEXT, CountedSlices, opened, pictures, predict, without_times
from pydicom.uid import generate_uid

from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.runs.journal import NAME

pytestmark = pytest.mark.usefixtures("engines_are_fake")


def test_what_is_done_is_not_done_again(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out) == 0
    before, results = pictures(out), (out / "results.json").read_bytes()
    (out / "0002_mask.png").unlink()
    lines = (out / NAME).read_text().splitlines(keepends=True)[: 1 + SLICES]
    for name in ("results.json", "montage.png"):
        (out / name).unlink()
    # Killed while the last slice's line was written.
    (out / NAME).write_text("".join(lines[:-1]) + lines[-1][:20])
    capsys.readouterr()
    asked = CountedSlices(monkeypatch)
    assert predict(series, "--text", TEXT, "-o", out) == 0
    # The mask that is gone, and the line that was cut off.
    assert asked.slices == 2
    assert f"{SLICES - 2} slices already done, skipped" in capsys.readouterr().err
    assert pictures(out) == before
    again = json.loads((out / "results.json").read_text())
    assert without_times(again) == without_times(json.loads(results))
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert asked.slices == 2


def test_a_changed_slice_is_computed_again(series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert predict(series, "--text", TEXT, "-o", out) == 0
    ds = pydicom.dcmread(series / "1.dcm")
    ds.RescaleIntercept = float(ds.RescaleIntercept) + 3
    ds.save_as(series / "1.dcm")
    asked = CountedSlices(monkeypatch)
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert asked.slices == 1


def test_notes_are_those_of_this_run(series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pixels, from files that say more than before."""
    out, text = tmp_path / "out", f"{TEXT}, oval"

    def written(**tags: Any) -> list[list[str]]:
        for file in series.iterdir():
            ds = pydicom.dcmread(file)
            ds.update(tags)
            ds.save_as(file)
        assert predict(series, "--text", text, "-o", out) == 0
        return [result["notes"] for result in json.loads((out / "results.json").read_text())["results"]]

    unknown = "words not in this engine's vocabulary: word 6"
    notes = written(ImageType=["DERIVED", "SECONDARY", "MPR"])
    assert all(len(of_slice) == 2 and of_slice[1] == unknown for of_slice in notes)
    asked = CountedSlices(monkeypatch)
    assert written(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"]) == [[unknown]] * SLICES
    assert asked.slices == 0


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


@pytest.mark.slow
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
    assert pictures(out) == pictures(fresh)
    records = [json.loads((folder / "results.json").read_text()) for folder in (out, fresh)]
    assert without_times(records[0]) == without_times(records[1])


@pytest.mark.parametrize("full", [False, True], ids=["for a moment", "for good"])
def test_a_full_disk_is_told_and_the_run_goes_on_later(
    series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    out = tmp_path / "DOE^JOHN"
    plain, saved = Image.Image.save, []

    def save(picture: Image.Image, path: Any, *args: Any, **more: Any) -> None:
        saved.append(path)
        # The third slice's mask, half of it.
        if len(saved) == 6 or (full and len(saved) > 6):
            Path(path).write_bytes(b"\x89PNG")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        plain(picture, path, *args, **more)

    def write(path: Path, text: str, **options: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    write_text = Path.write_text
    monkeypatch.setattr(Image.Image, "save", save)
    if full:
        monkeypatch.setattr(Path, "write_text", write)
    assert predict(series, "--text", TEXT, "-o", out, "--debug") == (3 if full else 5)
    err = capsys.readouterr().err
    assert "No space left" in err and "DOE" not in err
    assert not list(out.glob(".*")) and (out / "results.json").exists() is not full
    assert sum("record" in json.loads(line) for line in (out / NAME).read_text().splitlines()) == 2
    monkeypatch.setattr(Image.Image, "save", plain)
    monkeypatch.setattr(Path, "write_text", write_text)
    asked = CountedSlices(monkeypatch)
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert asked.slices == SLICES - 2


@pytest.mark.slow
# The run that is killed is another process, whose digests are the product's.
@pytest.mark.usefixtures("nothing_is_small")
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
        # Every picture that is there is complete.
        opened(path)
    asked = CountedSlices(monkeypatch)
    assert predict(series, "--text", TEXT, "-o", out) == 0
    assert 0 < asked.slices < 40
    assert len(json.loads((out / "results.json").read_text())["results"]) == 40
    assert not list(out.glob(".*"))
