"""One series or several: what scanners write is read, what interleaves is refused and listed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_dicom import dataset, enhanced, save
from pydicom.dataset import Dataset

from lsms_rt.errors import InputError
from lsms_rt.reading.dicom.series import read_series
from lsms_rt.reading.load import load_slices
from lsms_rt.reading.quiet import quiet_pydicom

SCAN = [5.0 * n for n in range(8)]
OFFSETS = (0.1, 0.5, 1.7, 2.5, 4.9)
PIXELS = np.zeros((20, 24), np.uint16)


def write(folder: Path, places: list[float], prefix: str = "a", **tags: Any) -> None:
    """Files of a series; a tag may be a function of the file's number and place."""
    folder.mkdir(exist_ok=True)
    for n, z in enumerate(places):
        values = {name: value(n, z) if callable(value) else value for name, value in tags.items()}
        values = {"ImagePositionPatient": [0, 0, z], "InstanceNumber": n} | values
        with quiet_pydicom():
            save(dataset(PIXELS, **values), folder / f"{prefix}{n:02d}")


def clock(start: float, step: float) -> Callable[[int, float], str]:
    return lambda n, z: f"1010{start + n * step:09.6f}"


PHASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "AcquisitionNumber": ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
    "AcquisitionNumber of one": ({}, {"AcquisitionNumber": 2}),
    "AcquisitionNumber of each slice": (
        {"AcquisitionNumber": lambda n, z: n + 1},
        {"AcquisitionNumber": lambda n, z: n + 9},
    ),
    "AcquisitionNumber of each rotation": (
        {"AcquisitionNumber": lambda n, z: n // 2},
        {"AcquisitionNumber": lambda n, z: 5 + n // 2},
    ),
    "AcquisitionTime": ({"AcquisitionTime": "101010"}, {"AcquisitionTime": "101050.5"}),
    "AcquisitionTime of each slice": ({"AcquisitionTime": clock(0, 0.5)}, {"AcquisitionTime": clock(30, 0.5)}),
    "AcquisitionDateTime": ({"AcquisitionDateTime": "20200101101010"}, {"AcquisitionDateTime": "20200101101110"}),
    "TriggerTime": ({"TriggerTime": 100.0}, {"TriggerTime": 400.0}),
    "TemporalPositionIdentifier": ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}),
    "ContrastBolusAgent": ({}, {"ContrastBolusAgent": "Doe"}),
    "ContrastBolusAgentPhase": ({}, {"ContrastBolusAgentPhase": "IMMEDIATE"}),
    "NominalPercentageOfCardiacPhase": (
        {"NominalPercentageOfCardiacPhase": 40.0},
        {"NominalPercentageOfCardiacPhase": 75.0},
    ),
    "ImageType": ({}, {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "DOE"]}),
    "KVP": ({"KVP": 80}, {"KVP": 140}),
    "ConvolutionKernel": ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}),
    "SliceThickness": ({"SliceThickness": 5}, {"SliceThickness": 1.25}),
    "ReconstructionDiameter": ({"ReconstructionDiameter": 350}, {"ReconstructionDiameter": 180}),
    "PixelSpacing": ({}, {"PixelSpacing": [0.35, 0.35]}),
    "SeriesDescription": ({"SeriesDescription": "Doe"}, {"SeriesDescription": "Doe2"}),
}


@pytest.mark.parametrize("what", PHASES)
def test_phases_are_listed_and_one_is_chosen(tmp_path: Path, what: str) -> None:
    # As many as two phases need to interleave.
    scan, folder, (first, second) = SCAN[:4], tmp_path / "series", PHASES[what]
    write(folder, scan, "a", **first)
    for offset in OFFSETS:
        # over those with the offset before
        write(folder, [z + offset for z in scan], "b", **second)
        with pytest.raises(InputError, match=r"2 series or stacks; .*3:1 \(4 slices .*; 3:2 \(4 slices") as caught:
            read_series(folder)
        name = re.split("[ ,]", what)[0].replace("AcquisitionDateTime", "AcquisitionTime")
        assert str(caught.value).endswith(f"; those of one number differ in {name}")
        assert "Doe" not in str(caught.value)
        for n, shift in ((1, 0), (2, offset)):
            assert [ct.position_mm for ct in read_series(folder, f"3:{n}")] == [z + shift for z in scan]


def test_phases_may_overlap_in_part_and_differ_in_several_ways(tmp_path: Path) -> None:
    write(tmp_path, SCAN, "a", AcquisitionNumber=1)
    write(tmp_path, [z + 32.5 for z in SCAN], "b", AcquisitionNumber=2)
    write(tmp_path, [z + 33.5 for z in SCAN], "c", AcquisitionNumber=2, ConvolutionKernel="B70f")
    with pytest.raises(InputError, match=r"3 series or stacks.* differ in AcquisitionNumber, ConvolutionKernel$"):
        read_series(tmp_path)
    assert read_series(tmp_path, "3:3")[0].position_mm == 33.5


@pytest.mark.parametrize("offset", OFFSETS)
def test_where_the_table_turned_no_slice_gets_into_the_other_phase(tmp_path: Path, offset: float) -> None:
    """The slice at the turn may be of either phase: it is neither's."""
    write(tmp_path, SCAN, "a", AcquisitionTime=clock(0, 0.5))
    write(tmp_path, [z + offset for z in SCAN], "b", AcquisitionTime=clock(7.5, -0.5))
    with pytest.raises(InputError, match=r"3 series or stacks.*3:1 \(8 slices.*3:2 \(7 slices.*3:3 \(1 slices"):
        read_series(tmp_path)
    assert [ct.position_mm for ct in read_series(tmp_path, "3:1")] == SCAN


def test_a_single_slice_within_a_scan_is_another_acquisition(tmp_path: Path) -> None:
    """The slice at which the contrast agent was watched."""
    write(tmp_path, SCAN, "a", AcquisitionNumber=2)
    write(tmp_path, [17.0], "b", AcquisitionNumber=1)
    with pytest.raises(InputError, match=r"3:1 \(8 slices 20x24\); 3:2 \(1 slices"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    "tags",
    [
        *({"AcquisitionNumber": 2}, {"ConvolutionKernel": "B70f"}, {"PixelSpacing": [0.4, 0.25]}),
        *({"SeriesDescription": "Doe"}, {"ContrastBolusAgentPhase": "VENOUS"}),
    ],
)
def test_a_slice_of_another_phase_does_not_fill_a_hole(tmp_path: Path, tags: dict[str, Any]) -> None:
    write(tmp_path, [z for z in SCAN if z != 15], "a")
    write(tmp_path, [15.0], "b", **tags)
    with pytest.raises(InputError, match=r"3:1 \(7 slices 20x24\); 3:2 \(1 slices"):
        read_series(tmp_path)


def test_a_file_without_a_position_hides_no_phases(tmp_path: Path) -> None:
    write(tmp_path, SCAN, "a", AcquisitionNumber=1)
    write(tmp_path, [z + 1.7 for z in SCAN], "b", AcquisitionNumber=2)
    save(dataset(PIXELS, ImagePositionPatient=None), tmp_path / "c")
    with pytest.raises(InputError, match="2 series or stacks.*AcquisitionNumber$"):
        read_series(tmp_path)


@pytest.mark.parametrize("late", [0, 6])
def test_times_tell_phases_apart_though_one_is_out_of_order(tmp_path: Path, late: int) -> None:
    times = [10 + 0.5 * n + (n == late) for n in range(8)]
    write(tmp_path, SCAN, "a", AcquisitionTime=lambda n, z: f"1010{times[n]:09.6f}")
    write(tmp_path, [z + 2.5 for z in SCAN], "b", AcquisitionTime=clock(30, 0.5))
    with pytest.raises(InputError, match=r"3:1 \(8 slices.*3:2 \(8 slices.*AcquisitionTime$"):
        read_series(tmp_path)


def test_a_slice_that_was_taken_again_later_leaves_the_others_readable(tmp_path: Path) -> None:
    write(tmp_path, SCAN, "a", AcquisitionTime=lambda n, z: f"1010{10 + n / 2 + 25 * (n == 3):09.6f}")
    with pytest.raises(InputError, match=r"3:1 \(7 slices 20x24\); 3:2 \(1 slices"):
        read_series(tmp_path)
    assert len(read_series(tmp_path, "3:1")) == 7


ONE_SERIES: dict[str, dict[str, Any]] = {
    "an acquisition for each slice": {"AcquisitionNumber": lambda n, z: n + 1},
    "an acquisition for each rotation": {"AcquisitionNumber": lambda n, z: n // 4 + 1},
    "rotations of two slices": {
        "AcquisitionNumber": lambda n, z: n // 2,
        "AcquisitionTime": lambda n, z: str(101010 + n // 2),
    },
    "times of a spiral": {"AcquisitionTime": clock(0, 0.37), "ContentTime": clock(40, 0.2), "AcquisitionNumber": 4},
    "times from head to feet": {"AcquisitionTime": clock(50, -0.37)},
    "times of whole seconds": {"AcquisitionTime": lambda n, z: str(101010 + n // 3)},
    "times over midnight": {"AcquisitionTime": lambda n, z: f"{(235955 + n) if n < 4 else n:06d}"},
    "times of the reconstruction": {"AcquisitionTime": lambda n, z: str(101010 + (n * 5) % 16)},
    "two scans, one after the other": {
        "AcquisitionNumber": lambda n, z: 1 + (n > 7),
        "AcquisitionTime": lambda n, z: str(101010 + 500 * (n > 7)),
        "ContrastBolusAgent": lambda n, z: "x" if n > 7 else "",
    },
    "thin slices in the middle": {"SliceThickness": lambda n, z: 2 if 4 < n < 9 else 5},
    "thickness with rounding": {"SliceThickness": lambda n, z: 1.25 + 0.01 * (n % 3)},
    "kVp with rounding": {"KVP": lambda n, z: 120 + n % 2},
    "a current that follows the body": {"XRayTubeCurrent": lambda n, z: 100 + n % 3, "Exposure": lambda n, z: n % 2},
    "a pixel spacing with rounding": {"PixelSpacing": lambda n, z: [0.6835 + 1e-6 * (n % 2)] * 2},
    "a diameter of no number": {"ReconstructionDiameter": "nan"},
    "a trigger that follows the heart": {"TriggerTime": lambda n, z: (700, 910, 705, 690)[n // 4] + n % 2},
    "numbers of odd slices before those of even ones": {"InstanceNumber": lambda n, z: n // 2 + 8 * (n % 2)},
    "image comments": {"ImageComments": lambda n, z: str(n % 2)},
}


@pytest.mark.parametrize("what", ONE_SERIES)
@pytest.mark.parametrize("direction", [1, -1])
def test_what_scanners_write_is_one_series(tmp_path: Path, what: str, direction: int) -> None:
    middle = what == "thin slices in the middle"
    steps = [2.0 if middle and 3 < n < 9 else 5.0 for n in range(15)]
    write(tmp_path, [direction * sum(steps[:n]) for n in range(16)], **ONE_SERIES[what])
    assert len(read_series(tmp_path)) == 16


def test_pairs_of_slices_at_intervals_are_one_series(tmp_path: Path) -> None:
    """High-resolution CT: two thin slices for each rotation, every 10 mm."""
    write(tmp_path, [10 * (n // 2) + 1.25 * (n % 2) for n in range(12)], AcquisitionNumber=lambda n, z: n // 2)
    assert len(read_series(tmp_path)) == 12


def test_frames_of_one_file_may_be_phases_too(tmp_path: Path) -> None:
    ds = enhanced(8)
    for n, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 5 * (n % 4) + 0.5 * (n > 3)]
        content = Dataset()
        content.TemporalPositionIndex = 1 + (n > 3)
        group.FrameContentSequence = [content]
    (tmp_path / "s").mkdir()
    save(ds, tmp_path / "s" / "one")
    words = "its frames are 2 phases or reconstructions between each other's slices, which differ in Temporal"
    for image in (tmp_path / "s" / "one", ds, tmp_path / "s"):
        with pytest.raises(InputError, match=words):
            load_slices(image)
    # The same frames, one after the other.
    for n, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 5 * n]
    assert len(load_slices(save(ds, tmp_path / "two"))) == 8


def test_stacks_of_one_file_are_told_apart(tmp_path: Path) -> None:
    ds = enhanced(8)
    for n, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 5 * (n % 4) + 1.7 * (n > 3)]
        content = Dataset()
        content.StackID = str(1 + (n > 3))
        group.FrameContentSequence = [content]
    with pytest.raises(InputError, match="differ in StackID"):
        load_slices(save(ds, tmp_path / "one"))


def test_two_files_of_many_frames_may_be_phases(tmp_path: Path) -> None:
    for phase in range(2):
        ds = enhanced(4)
        for n, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
            group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 5 * n + 1.5 * phase]
            content = Dataset()
            content.FrameAcquisitionNumber = phase
            group.FrameContentSequence = [content]
        save(ds, tmp_path / str(phase))
    with pytest.raises(InputError, match=r"3:1 \(4 slices 20x24\); 3:2 \(4 slices 20x24\).*AcquisitionNumber$"):
        read_series(tmp_path)
    assert [ct.position_mm for ct in read_series(tmp_path, "3:2")] == [1.5, 6.5, 11.5, 16.5]
