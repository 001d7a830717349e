"""A folder of slices, as folders are: several series, copies, damaged files, files that are no slices."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_dicom import STANDARD, dataset, save, series, shown_names

from lsms_rt import privacy as labels
from lsms_rt.ct_slice import wide_steps
from lsms_rt.errors import InputError, MachineError
from lsms_rt.reading import limits
from lsms_rt.reading.dicom import series as series_module
from lsms_rt.reading.dicom.series import read_series
from lsms_rt.reading.dicom.source import sources_of_folder
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slice, load_slices


@pytest.mark.parametrize("orientation", [STANDARD, [1, 0, 0, 0, -1, 0], [-1, 0, 0, 0, 1, 0]])
def test_series_runs_from_feet_to_head(tmp_path: Path, orientation: list[int]) -> None:
    series(tmp_path / "s", [5, -5, 10, 0], ImageOrientationPatient=orientation)
    slices = load_slices(tmp_path / "s")
    assert [ct.position_mm for ct in slices] == [-5, 0, 5, 10]
    assert [ct.header.InstanceNumber for ct in slices] == [1, 3, 0, 2]
    assert [float(ct.hu[0, 0]) for ct in slices] == [-29, -24, -19, -14]


def test_a_tilted_gantry_is_seen_in_the_positions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Slices tilted by 22 degrees, each shifted along z alone: their distance is less than the table's feed."""
    tilted = [1, 0, 0, 0, 0.9272, -0.3746]
    series(tmp_path, [10, 0, 5], ImageOrientationPatient=tilted, GantryDetectorTilt=-45)
    places = [ct.position_mm or 0.0 for ct in read_series(tmp_path)]
    np.testing.assert_allclose(np.diff(places), 5 * 0.9272, rtol=1e-3)
    assert not caplog.records


def test_series_skips_what_is_no_slice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series(tmp_path, [0, 1, 2])
    series(tmp_path, [0], "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesInstanceUID="1.9")
    series(tmp_path, [0], "mr", Modality="MR", SeriesInstanceUID="1.8")
    (tmp_path / "notes.txt").write_text("hello")
    assert len(read_series(tmp_path)) == 3
    assert [r.message for r in caplog.records] == [
        "skipped 1 files that are not DICOM images and 2 that are not CT slices"
    ]


def candidates(folder: Path, wanted: Any = None) -> list[str]:
    """What an error lists, as --series wants it."""
    with pytest.raises(InputError) as caught:
        read_series(folder, wanted)
    assert "\n" not in str(caught.value) and "--series" in str(caught.value)
    return re.findall(r"[^ ]+ \(\d+ slices [^)]*\)", str(caught.value))


def test_series_must_be_one(tmp_path: Path) -> None:
    series(tmp_path, [0, 1, 2], PatientName="Secret", SeriesDescription="Secret")
    series(tmp_path, [0, 1], "b", SeriesNumber=17, SeriesInstanceUID="1.2.987654")
    listed = ["3 (3 slices 20x24)", "17 (2 slices 20x24)"]
    assert candidates(tmp_path) == listed
    assert len(read_series(tmp_path, 17)) == len(read_series(tmp_path, "987654")) == 2
    assert len(load_slices(tmp_path, series="3")) == len(load_slices(tmp_path, series="003")) == 3
    assert len(read_series(tmp_path, "17:1")) == 2
    for absent in (8, "8", "7", "654", "x987654", "17:2", "3:0", "none", ""):
        assert candidates(tmp_path, absent) == listed
    with shown_names():
        assert candidates(tmp_path)[1] == "17 (2 slices 20x24, UID ...987654)"


def test_stacks_of_one_number_are_chosen_by_their_place(tmp_path: Path) -> None:
    series(tmp_path, [0, 1, 2], SeriesNumber=3)
    series(tmp_path, [20, 21], "b", SeriesNumber=3, ImageOrientationPatient=[1, 0, 0, 0, -1, 0])
    series(tmp_path, [30], "c", SeriesNumber=3, SeriesInstanceUID="1.2.7777")
    series(tmp_path, [40, 41, 42, 43], "d", SeriesNumber=None, SeriesInstanceUID="1.2.8888")
    listed = ["3:1 (3 slices 20x24)", "3:2 (2 slices 20x24)", "3:3 (1 slices 20x24)", "none (4 slices 20x24)"]
    assert candidates(tmp_path) == listed
    assert candidates(tmp_path, 3) == listed[:3]
    # One UID, two orientations.
    assert candidates(tmp_path, "1.2.3.4") == listed[:2]
    for wanted, count in (("3:1", 3), ("3:2", 2), ("3:3", 1), ("7777", 1), ("none", 4), ("8888", 4)):
        assert len(read_series(tmp_path, wanted)) == count


def test_a_number_goes_before_the_end_of_a_uid(tmp_path: Path) -> None:
    series(tmp_path, [0, 1], SeriesNumber=1234, SeriesInstanceUID="1.2.5")
    series(tmp_path, [0], "b", SeriesNumber=5, SeriesInstanceUID="1.2.1234")
    assert len(read_series(tmp_path, 1234)) == 2


def test_one_slice_of_another_size_is_a_stack_of_its_own(tmp_path: Path) -> None:
    series(tmp_path, [0, 1, 2])
    save(dataset(np.zeros((32, 24), np.uint16), ImagePositionPatient=[1, 2, 3]), tmp_path / "9.dcm")
    assert candidates(tmp_path) == ["3:1 (3 slices 20x24)", "3:2 (1 slices 32x24)"]
    assert len(read_series(tmp_path, "3:1")) == 3


def test_a_series_number_of_words_is_not_repeated(tmp_path: Path) -> None:
    series(tmp_path, [0, 1])
    series(tmp_path, [0], "b", SeriesInstanceUID="1.2.9")
    # The value is an IS of two characters.
    for path in tmp_path.glob("b*"):
        path.write_bytes(path.read_bytes().replace(b"IS\x02\x003 ", b"IS\x02\x00Jo"))
    assert candidates(tmp_path) == ["3 (2 slices 20x24)", "none (1 slices 20x24)"]


def test_series_places(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series(tmp_path / "twice", [0, 1, 1], AcquisitionNumber=4)
    with pytest.raises(InputError, match=r"phases.*AcquisitionNumber 4: 3 files"):
        read_series(tmp_path / "twice")
    series(tmp_path / "gap", [0, 1, 2, 4])
    assert len(read_series(tmp_path / "gap")) == 4
    assert "gaps: 1 steps" in caplog.text
    (tmp_path / "nowhere").mkdir()
    for n in range(2):
        save(dataset(ImagePositionPatient=None), tmp_path / "nowhere" / str(n))
    with pytest.raises(InputError, match="2 of 2 slices have no ImagePositionPatient"):
        read_series(tmp_path / "nowhere")
    (tmp_path / "nowhere" / "1").unlink()
    assert len(read_series(tmp_path / "nowhere")) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no CT slice in 0 files"):
        read_series(tmp_path / "empty")


def test_files_are_numbered_as_they_are_sorted(tmp_path: Path) -> None:
    """Hidden files do not count, files of other kinds do."""
    series(tmp_path / "b", [0, 1])
    series(tmp_path / "a", [2])
    (tmp_path / "B.txt").write_text("capitals come first")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_text("x")
    slices = load_slices(tmp_path)
    assert [(ct.source, ct.position_mm) for ct in slices] == [
        ("file 3 of 4", 0), ("file 4 of 4", 1), ("file 2 of 4", 2),
    ]  # fmt: skip
    with shown_names():
        assert [ct.source for ct in load_slices(tmp_path)] == ["0.dcm", "1.dcm", "0.dcm"]
    with pytest.raises(InputError, match="^the input: contains 3 slices"):
        load_slice(tmp_path)


def test_the_documented_command_finds_a_file(tmp_path: Path) -> None:
    for name in ("a/z", "a-b/c", "a.b", "B", "ä", "a/.x/y", ".z", "a/b/c", "a b"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "B")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / ".link").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "fifo")
    command = r"find . '(' -type f -o -type l ')' -not -path '*/.*' | LC_ALL=C sort"
    assert labels.__doc__ is not None and command in labels.__doc__
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = sources_of_folder(tmp_path, "the folder")
    assert [f"./{s.path.relative_to(tmp_path)}" for s in found] == done.stdout.splitlines()
    assert [s.label for s in found] == [f"file {n} of 10" for n in range(1, 11)]


def test_identical_copies_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    series(tmp_path, [0, 1, 2])
    for n in range(2):
        (tmp_path / f"copy{n}.dcm").write_bytes((tmp_path / "1.dcm").read_bytes())
    slices = load_slices(tmp_path)
    assert [len(ct.notes) for ct in slices] == [0, 1, 0] and "identical copies" in slices[1].notes[0]
    assert [r.message for r in caplog.records] == [f"{slices[1].notes[0]} (1 of 3 slices)"]


@pytest.mark.parametrize("change", [{"RescaleIntercept": -1000}, {"SOPInstanceUID": "1.2.3"}])
def test_what_is_no_identical_copy_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    first = dataset(SOPInstanceUID="1.2.9")
    save(first, tmp_path / "a")
    for name, value in change.items():
        setattr(first, name, value)
    save(first, tmp_path / "b")
    with pytest.raises(InputError, match="1 of 2 slices have duplicate positions"):
        read_series(tmp_path)


def test_slices_with_one_uid_are_all_kept(tmp_path: Path) -> None:
    """Careless anonymizers write one SOPInstanceUID into all files."""
    # The files differ only in their positions.
    for z in range(3):
        save(dataset(SOPInstanceUID="1.2.3", ImagePositionPatient=[0, 0, z]), tmp_path / f"{z}")
    assert len(read_series(tmp_path)) == 3


def damaged_series(folder: Path) -> Path:
    """Seven files of a series: whole ones at 0, 1, 4, 5 mm; a truncated header, truncated pixels, another unit."""
    # A header that was cut off lacks it, too.
    series(folder, range(6), SeriesNumber=None)
    data = (folder / "2.dcm").read_bytes()
    (folder / "2.dcm").write_bytes(data[:500])
    (folder / "3.dcm").write_bytes(data[:-300])
    save(dataset(np.zeros((20, 24), np.uint16), RescaleType="US", SeriesNumber=None), folder / "9.dcm")
    return folder


def test_damaged_files_end_a_series_or_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = damaged_series(tmp_path / "s")
    with pytest.raises(InputError, match=r"^file 3 of 7: .*--names shows file names"):
        load_slices(folder)
    told: list[str] = []
    slices = load_slices(folder, left_out=LeftOut(damaged=told))
    assert [ct.position_mm for ct in slices] == [0, 1, 4, 5]
    assert [line.split(": ")[0] for line in told] == ["file 3 of 7", "file 4 of 7", "file 7 of 7"]
    assert "damaged or truncated pixels" in told[1] and "RescaleType is US" in told[2]
    assert "gaps: 1 steps" in caplog.text
    with shown_names():
        load_slices(folder, left_out=LeftOut(damaged=told))
    assert told[3].startswith("2.dcm: ") and "--names" not in told[3]


@pytest.mark.slow
def test_a_file_is_damage_wherever_it_was_cut_off(tmp_path: Path) -> None:
    """It never counts as another kind of file, nor as a series of its own."""
    series(tmp_path, [0, 1])
    path = tmp_path / "1.dcm"
    whole = path.read_bytes()
    for cut in (*range(132, 300), *range(300, len(whole) - 1, 31), len(whole) - 2):
        path.write_bytes(whole[:cut])
        told: list[str] = []
        assert len(read_series(tmp_path, left_out=LeftOut(damaged=told))) == 1
        assert len(told) == 1 and told[0].startswith("file 2 of 2: "), cut


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    series(tmp_path, [0])
    path = tmp_path / "0.dcm"
    whole = path.read_bytes()
    for cut, words in ((500, "no CT slice in 1 files"), (-300, "none of 1 files could be read")):
        path.write_bytes(whole[:cut])
        told: list[str] = []
        with pytest.raises(InputError, match=f"^the folder: {words} .the last: file 1 of 1: .*--names"):
            read_series(tmp_path, left_out=LeftOut(damaged=told))
        assert len(told) == 1


def test_places_are_judged_after_damage(tmp_path: Path) -> None:
    folder = damaged_series(tmp_path / "s")
    save(dataset(np.zeros((20, 24), np.uint16), SeriesNumber=None), folder / "10.dcm")
    with pytest.raises(InputError, match="1 of 5 slices have duplicate positions"):
        read_series(folder, left_out=LeftOut())


def test_a_missing_decoder_is_not_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder

    series(tmp_path, [0, 1])
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"))
    monkeypatch.setattr(Decoder, "is_available", False)
    monkeypatch.setattr("lsms_rt.reading.dicom.read._DECODERS", {"1.2.840.10008.1.2.5": "a-decoder"})
    with pytest.raises(MachineError, match="pip install a-decoder"):
        read_series(tmp_path, left_out=LeftOut())


def test_a_file_that_cannot_be_opened_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path, [0, 1, 2])
    open_path = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "2.dcm":
            raise PermissionError(13, "Permission denied", str(path))
        return open_path(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    told: list[str] = []
    assert len(read_series(tmp_path, left_out=LeftOut(damaged=told))) == 2
    assert told == ["file 3 of 3: cannot be opened (Permission denied); check the path"]
    with pytest.raises(InputError, match="file 3 of 3: cannot be opened"):
        read_series(tmp_path)


@pytest.mark.parametrize("frames", [-1, 4097, 2**40])
def test_frames_out_of_range_are_damage_of_their_file(tmp_path: Path, frames: int) -> None:
    series(tmp_path, [0, 1])
    save(dataset(NumberOfFrames=1), tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    (tmp_path / "x").unlink()
    value = str(frames).encode()
    value += b" " * (len(value) % 2)
    (tmp_path / "9.dcm").write_bytes(data.replace(b"IS\x02\x001 ", b"IS" + bytes([len(value), 0]) + value))
    told: list[str] = []
    assert len(read_series(tmp_path, left_out=LeftOut(damaged=told))) == 2
    assert len(told) == 1 and told[0].startswith("file 3 of 3: ")


def test_limits_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series(tmp_path, [0, 1, 2])
    monkeypatch.setattr(series_module, "MAX_SLICES", 2)
    with pytest.raises(InputError, match="3 slices, 1440 pixels; the limits are 2 slices"):
        read_series(tmp_path)
    monkeypatch.setattr(limits, "MAX_FILES", 2)
    with pytest.raises(InputError, match="^the folder: 3 files, over the limit of 2"):
        read_series(tmp_path)


@pytest.mark.parametrize("left", [b"", bytes(70_000)])
def test_what_a_failed_copy_leaves_is_reported(tmp_path: Path, left: bytes) -> None:
    for n in range(3):
        save(dataset(ImagePositionPatient=[0, 0, 5 * n]), tmp_path / f"{n}.dcm")
    (tmp_path / "1.dcm").write_bytes(left)
    told: list[str] = []
    assert len(read_series(tmp_path, left_out=LeftOut(damaged=told))) == 2
    assert told == ["file 2 of 3: empty, or nothing but zeros; copy it again"]
    with pytest.raises(InputError, match="nothing but zeros"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("positions", "gaps"), [([0, 8, 24], 1), ([0, 8, 32], 1), ([0, 8, 16, 32], 1), ([0, 8, 16], 0), ([0, 8, 18], 0)]
)
def test_a_gap_is_seen_in_a_short_series_too(positions: list[int], gaps: int) -> None:
    assert np.count_nonzero(wide_steps(np.diff(np.array(positions, float)))) == gaps


def test_a_single_file_of_another_series_is_refused(tmp_path: Path) -> None:
    path = save(dataset(SeriesNumber=1), tmp_path / "a.dcm")
    assert len(load_slices(path, series=1)) == 1
    with pytest.raises(InputError, match="no such series; choose one"):
        load_slices(path, series=9)
    np.save(tmp_path / "a.npy", np.zeros((32, 32)))
    with pytest.raises(InputError, match="no DICOM file, so it has no series to choose"):
        load_slices(tmp_path / "a.npy", series=9)
