"""Key images: the right slice, the right way round, with what must stand in them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import dciodvfy
import numpy as np
import pydicom
import pytest
from fake_results import DIGEST, EMPTY_ALLOWED, ORIENTATIONS, TEXT, UIDS, along_z, answer_with, answers
from PIL import ImageFont

from lsms_rt.errors import InputError
from lsms_rt.reading.load import load_slice
from lsms_rt.segmentation import Segmentation
from lsms_rt.writing import secondary_capture as sc
from lsms_rt.writing import write_sc
from lsms_rt.writing.wrap import wrapped

WHEN = datetime(2026, 3, 4, 5, 6, 7)
RED = (255, 40, 40)


def lesion(sizes: tuple[int, ...], text: str = TEXT, **tags: Any) -> list[Segmentation]:
    """A square of each size in a slice of its own, near the first row and column of the model's frame."""
    results = []
    for result, size in zip(answers(along_z(*range(0, 3 * len(sizes), 3)), **tags), sizes, strict=True):
        mask = np.zeros(result.ct.hu.shape, bool)
        mask[5 : 5 + size, 5 : 5 + size] = True
        results.append(answer_with(result.ct, result.ct.to_input_grid(mask), text))
    return results


def written(results: list[Segmentation], folder: Path, **options: Any) -> list[pydicom.Dataset]:
    options = {"engine_digest": DIGEST, "when": WHEN} | options
    numbers = write_sc(results, lambda number: folder / f"{number}.dcm", **options)
    assert sorted(path.name for path in folder.iterdir()) == [f"{number}.dcm" for number in numbers]
    for number in numbers:
        dciodvfy.check(folder / f"{number}.dcm", "SCImage")
    return [pydicom.dcmread(folder / f"{number}.dcm") for number in numbers]


def lines_of(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is drawn below each picture, but for the warning; it is filled as pictures are drawn."""
    seen: list[list[str]] = []
    plain = sc._picture
    monkeypatch.setattr(sc, "_picture", lambda measures, lines: (seen.append(lines), plain(measures, lines))[1])
    return seen


def test_the_slice_of_the_largest_cross_section_is_shown(tmp_path: Path) -> None:
    results = lesion((3, 9, 4))
    (image,) = written(results, tmp_path)
    (source,) = image.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == results[1].ct.sop_instance_uid
    assert (image.Modality, image.BurnedInAnnotation) == ("OT", "YES")
    assert "not for diagnosis" in image.SeriesDescription
    assert {name: str(image[name].value) for name in EMPTY_ALLOWED} == EMPTY_ALLOWED
    assert image.StudyInstanceUID == UIDS["StudyInstanceUID"] != image.SeriesInstanceUID
    # Nobody may measure in it.
    assert "PixelSpacing" not in image and "FrameOfReferenceUID" not in image


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_outline_lies_around_the_mask(tmp_path: Path, orientation: list[float]) -> None:
    """However the file stores its slices, the picture is the usual axial view."""
    (image,) = written(lesion((20,), ImageOrientationPatient=orientation, PixelSpacing=[0.8, 0.8]), tmp_path)
    red = (image.pixel_array == RED).all(-1)
    rows, columns = np.nonzero(red)
    height, width = (37, 101) if orientation[0] else (101, 37)
    scale = sc.SIDE / 101
    left = (sc.SIDE - width * scale) / 2
    expected = [5 * scale, 25 * scale, left + 5 * scale, left + 25 * scale]
    np.testing.assert_allclose([rows.min(), rows.max(), columns.min(), columns.max()], expected, atol=scale)
    # Inside, the image is as it was.
    assert red.sum() < 8 * 20 * scale and list(image.PatientOrientation) == ["L", "P"]
    assert rows.max() < height * scale


def test_each_sentence_has_its_image_if_something_was_found(tmp_path: Path) -> None:
    results = [*lesion((4,), "one"), *lesion((0,), "two"), *lesion((6,), "three")]
    for result in results[1:]:
        result.ct.header.SOPInstanceUID = results[0].ct.header.SOPInstanceUID
    first, third = written(results, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"1.dcm", "3.dcm"}
    assert first.SeriesInstanceUID == third.SeriesInstanceUID and first.SOPInstanceUID != third.SOPInstanceUID
    assert (first.InstanceNumber, third.InstanceNumber) == (1, 2)


def test_nothing_found_has_no_image(tmp_path: Path) -> None:
    assert written(lesion((0, 0)), tmp_path) == []


def test_what_stands_in_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, results = lines_of(monkeypatch), lesion((3, 9), PixelSpacing=[0.5, 0.5], InstanceNumber=17)
    written(results, tmp_path)
    assert seen[0][0].startswith("Lesion: 20 mm2, long axis 6 mm, 68 mm3, mean ")
    assert seen[0][1:] == ["Largest cross-section: image 17 at 3.0 mm", "Found in 2 of 2 slices"]
    results[1].mask[30, 90] = True
    written(results, tmp_path, include_text=True, not_read=1)
    assert " in 2 parts, long axis 6 mm, mean " in seen[1][0]
    assert TEXT in seen[1] and "Incomplete: 1 image without an answer" in seen[1] and " ml" not in seen[1][0]
    unsure = [replace(result, ct=replace(result.ct, side_known=False)) for result in results]
    (image,) = written(unsure, tmp_path)
    assert "Left and right not stated by the input" in seen[2] and not image.PatientOrientation


def test_wide_text_is_not_cut(tmp_path: Path) -> None:
    font = ImageFont.load_default(size=sc.FONT)
    for text in ("W" * 300, "i" * 300, "WWWWW " * 80, "iiii " * 200, "W"):
        lines = wrapped(text, font, sc.SIDE - 2 * sc.MARGIN)
        assert max(font.getlength(line) for line in lines) <= sc.SIDE - 2 * sc.MARGIN
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        # No line could hold one character more.
        if " " not in text:
            following = pairwise(lines)
            assert all(font.getlength(line + after[0]) > sc.SIDE - 2 * sc.MARGIN for line, after in following)
    (image,) = written(lesion((9,), "WOMAN " * 60), tmp_path, include_text=True)
    # Nothing is drawn in the margin, below the slice.
    below = image.pixel_array[-6 * sc.LINE :]
    assert (below[:, -sc.MARGIN :] == below[0, -1]).all() and (below[:, -60 : -sc.MARGIN] != below[0, -1]).any()


def test_a_picture_has_r_and_l_only_if_the_side_is_known(tmp_path: Path) -> None:
    results = lesion((4,), PixelSpacing=[0.8, 0.8])
    pictures = [
        written([replace(result, ct=replace(result.ct, side_known=known)) for result in results], tmp_path)[0]
        for known in (True, False)
    ]
    known, unknown = (picture.pixel_array[: int(37 * sc.SIDE / 101)] for picture in pictures)
    _, columns = np.nonzero((known != unknown).any(-1))
    assert set(columns // (sc.SIDE // 8)) == {0, 7}
    # The warning stands in both, in yellow.
    assert all((picture.pixel_array == (255, 210, 0)).all(-1).sum() > 100 for picture in pictures)


def test_written_again_it_is_the_same(tmp_path: Path) -> None:
    files = []
    results = lesion((3, 9))
    for options in ({}, {}, {"when": None}, {"not_read": 1}):
        (image,) = written(results, tmp_path, **options)
        files.append((image.SOPInstanceUID, image.SeriesInstanceUID, (tmp_path / "1.dcm").read_bytes()))
    assert files[0] == files[1] and files[0][:2] == files[2][:2] and len({file[0] for file in files}) == 2
    assert (image.ContentDate, image.SeriesTime, image.DateOfSecondaryCapture) == ("20260304", "050607", "20260304")


def test_other_images_are_refused(tmp_path: Path) -> None:
    result = answer_with(load_slice(np.full((40, 50), -5.0)), np.ones((40, 50), bool))
    with pytest.raises(InputError, match="not a DICOM image"):
        write_sc([result], lambda number: tmp_path / "a.dcm", engine_digest=DIGEST)
    assert list(tmp_path.iterdir()) == []
