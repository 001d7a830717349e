"""RT Structure Sets: contours enclose exactly the pixels of the masks, where the images are in the patient."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import dciodvfy
import numpy as np
import pydicom
import pytest
from fake_results import DIGEST, EMPTY_ALLOWED, ORIENTATIONS, TEXT, TILTED, UIDS, along_z, answer, answer_with, answers

from lsms_rt.writing import write_rtstruct

WHEN = datetime(2026, 3, 4, 5, 6, 7)


def small(results: list[Any]) -> list[Any]:
    """The masks in a corner only: a contour for each part of the noise would be thousands."""
    kept = np.zeros(results[0].mask.shape, bool)
    kept[4:16, 10:30] = kept[60:72, 4:20] = True
    return [answer_with(result.ct, result.mask & kept, result.text) for result in results]


def written(results: list[Any], path: Path, **options: Any) -> pydicom.Dataset:
    assert write_rtstruct(results, path, **{"engine_digest": DIGEST, "when": WHEN} | options)
    dciodvfy.check(path, "RTStructureSet")
    return pydicom.dcmread(path)


def pixels_in(contours: list[Any], header: Any, shape: tuple[int, int]) -> np.ndarray:
    """The pixels of an image whose centers are inside of its contours, by the even-odd rule."""
    axes = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    inside = np.zeros(shape, bool)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for contour in contours:
        points = np.reshape(contour.ContourData, (-1, 3)).astype(float) - np.array(header.ImagePositionPatient, float)
        x, y = (points @ axes.T / [float(header.PixelSpacing[1]), float(header.PixelSpacing[0])]).T
        for x0, y0, x1, y1 in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
            if abs(x0 - x1) < 0.01:
                inside ^= (min(y0, y1) < rows) & (rows < max(y0, y1)) & (columns < x0)
    return inside


@pytest.mark.parametrize("orientation", [*ORIENTATIONS[:3], TILTED])
def test_contours_enclose_the_mask(tmp_path: Path, orientation: list[float]) -> None:
    """The masks are noise: parts, holes, and parts in holes."""
    results = small(answers(along_z(5, 1), ImageOrientationPatient=orientation))
    ds = written(results, tmp_path / "a.dcm")
    (roi,) = ds.ROIContourSequence
    for result in results:
        uid = result.ct.sop_instance_uid
        contours = [
            contour
            for contour in roi.ContourSequence
            if contour.ContourImageSequence[0].ReferencedSOPInstanceUID == uid
        ]
        assert {contour.ContourGeometricType for contour in contours} == {"CLOSED_PLANAR"}
        np.testing.assert_array_equal(pixels_in(contours, result.ct.header, result.mask.shape), result.mask)


def test_each_sentence_with_a_finding_has_its_structure(tmp_path: Path) -> None:
    first = answers(along_z(0, 3))
    results = first + [
        answer(result.ct, n, found=found, text=text)
        for text, found in (("two", False), ("three", True))
        for n, result in enumerate(first, 7)
    ]
    results = small(results)
    ds = written(results, tmp_path / "a.dcm")
    assert [(roi.ROINumber, roi.ROIName) for roi in ds.StructureSetROISequence] == [(1, "Lesion 1"), (2, "Lesion 3")]
    assert len({tuple(roi.ROIDisplayColor) for roi in ds.ROIContourSequence}) == 2
    assert (ds.Modality, ds.ApprovalStatus, ds.StructureSetDate) == ("RTSTRUCT", "UNAPPROVED", "20260304")
    assert ds.StructureSetName == "research, not for diagnosis"
    assert {name: str(ds[name].value) for name in EMPTY_ALLOWED} == EMPTY_ALLOWED
    (frame,) = ds.ReferencedFrameOfReferenceSequence
    (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == UIDS["FrameOfReferenceUID"]
    assert series.SeriesInstanceUID == UIDS["SeriesInstanceUID"] and len(series.ContourImageSequence) == 2
    assert TEXT.encode() not in (tmp_path / "a.dcm").read_bytes()
    ds = written(results, tmp_path / "a.dcm", include_text=True, not_read=3)
    assert [roi.ROIDescription for roi in ds.StructureSetROISequence] == [
        f"{text}; incomplete: 3 images without an answer" for text in (TEXT, "three")
    ]
    assert ds.StructureSetName == "incomplete: 3 images without an answer; not for diagnosis"


def test_nothing_found_writes_no_file(tmp_path: Path) -> None:
    results = answers(along_z(0, 3), empty=(0, 1))
    assert not write_rtstruct(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    assert list(tmp_path.iterdir()) == []


def test_written_again_it_is_the_same(tmp_path: Path) -> None:
    results, files = small(answers(along_z(0))), []
    for options in ({}, {}, {"when": None}, {"include_text": True}):
        ds = written(results, tmp_path / "a.dcm", **options)
        files.append((ds.SOPInstanceUID, (tmp_path / "a.dcm").read_bytes()))
    assert files[0] == files[1] and files[0][0] == files[2][0] and len({uid for uid, _ in files}) == 2
