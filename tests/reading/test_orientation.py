"""The patient's right is the patient's right, however a slice is stored: the same anatomy gives the same mask."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from lsms_rt.data import demo_engine
from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.segmenter import Segmenter

TEXT = "the largest lesion in the liver"
EIGHT = list(product((False, True), repeat=3))


def stored(ds: pydicom.Dataset, rows: bool, columns: bool, swapped: bool) -> pydicom.Dataset:
    """The same slice with its rows or columns reversed, then both swapped; every tag tells so."""
    raw, spacing = ds.pixel_array, [float(v) for v in ds.PixelSpacing]
    along_row, along_column = np.reshape([float(v) for v in ds.ImageOrientationPatient], (2, 3))
    origin = np.array([float(v) for v in ds.ImagePositionPatient])
    if rows:
        origin = origin + along_column * spacing[0] * (raw.shape[0] - 1)
        raw, along_column = raw[::-1], -along_column
    if columns:
        origin = origin + along_row * spacing[1] * (raw.shape[1] - 1)
        raw, along_row = raw[:, ::-1], -along_row
    if swapped:
        raw, along_row, along_column, spacing = raw.T, along_column, along_row, spacing[::-1]
    ds.Rows, ds.Columns = raw.shape
    ds.PixelData = np.ascontiguousarray(raw).tobytes()
    ds.ImageOrientationPatient, ds.ImagePositionPatient = [*along_row, *along_column], [float(v) for v in origin]
    ds.PixelSpacing = spacing
    return ds


def unstored(mask: np.ndarray, rows: bool, columns: bool, swapped: bool) -> np.ndarray:
    mask = mask.T if swapped else mask
    return mask[:: -1 if rows else 1, :: -1 if columns else 1]


@pytest.fixture(scope="module")
def segmenter() -> Any:
    with Segmenter(demo_engine()) as found:
        yield found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, phantom_case: Any, segmenter: Segmenter) -> tuple[Path, Any]:
    """A slice that is not square, with spacings that differ, and what is found on it."""
    tmp_path = tmp_path_factory.mktemp("slice")
    for index in range(len(phantom_case.slices)):
        path = tmp_path / f"{index}.dcm"
        write_slice(path, phantom_case, index, "case")
        ds = pydicom.dcmread(path)
        raw = ds.pixel_array[5:, :-9]
        ds.PixelData, (ds.Rows, ds.Columns) = np.ascontiguousarray(raw).tobytes(), raw.shape
        ds.PixelSpacing = [float(ds.PixelSpacing[0]), float(ds.PixelSpacing[1]) * 1.04]
        ds.save_as(path)
        found = segmenter.predict(path, TEXT)
        if found.found:
            return path, found
    raise AssertionError("the demo weights find nothing in this case")


@pytest.mark.parametrize(("rows", "columns", "swapped"), EIGHT)
def test_one_anatomy_has_one_mask(
    plain: tuple[Path, Any], tmp_path: Path, segmenter: Segmenter, rows: bool, columns: bool, swapped: bool
) -> None:
    path, found = plain
    ds = stored(pydicom.dcmread(path), rows, columns, swapped)
    ds.save_as(tmp_path / "other.dcm")
    other = segmenter.predict(tmp_path / "other.dcm", TEXT)
    assert other.mask.shape == (ds.Rows, ds.Columns)
    np.testing.assert_array_equal(unstored(other.mask, rows, columns, swapped), found.mask)
    assert other.found and other.score == found.score and other.area_mm2 == pytest.approx(found.area_mm2)


def test_a_wrong_tag_would_be_seen(plain: tuple[Path, Any], tmp_path: Path, segmenter: Segmenter) -> None:
    """The same pixels, tagged as mirrored, are other anatomy: were tags ignored, this would be equal."""
    path, found = plain
    ds = pydicom.dcmread(path)
    ds.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
    ds.save_as(tmp_path / "mirrored.dcm")
    assert not np.array_equal(segmenter.predict(tmp_path / "mirrored.dcm", TEXT).mask, found.mask)


@pytest.fixture(scope="module")
def plain_series(
    tmp_path_factory: pytest.TempPathFactory, phantom_case: Any, segmenter: Segmenter
) -> tuple[Path, list[Any]]:
    folder = tmp_path_factory.mktemp("series")
    for index in range(3):
        write_slice(folder / f"{index}.dcm", phantom_case, index, "case")
    return folder, list(segmenter.predict_series(folder, TEXT))


@pytest.mark.parametrize(("rows", "columns", "swapped"), EIGHT)
def test_a_series_is_one_anatomy_too(
    plain_series: tuple[Path, list[Any]],
    tmp_path: Path,
    segmenter: Segmenter,
    rows: bool,
    columns: bool,
    swapped: bool,
) -> None:
    folder, found = plain_series
    for index in range(3):
        ds = stored(pydicom.dcmread(folder / f"{index}.dcm"), rows, columns, swapped)
        ds.save_as(tmp_path / f"{9 - index}.dcm")
    for a, b in zip(found, segmenter.predict_series(tmp_path, TEXT), strict=True):
        np.testing.assert_array_equal(unstored(b.mask, rows, columns, swapped), a.mask)
        assert a.ct.position_mm == pytest.approx(b.ct.position_mm)
