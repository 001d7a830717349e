"""Which side is the patient's right: what the file says, or what the caller states, and never a guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_dicom import STANDARD, dataset, save, series
from PIL import Image

from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError
from lsms_rt.reading.load import load_slice, load_slices
from lsms_rt.reading.stated import Stated

AXIAL = Stated(orientation="axial")
NONE = {"ImageOrientationPatient": None}
MIRRORED = [-1, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("tags", [{}, {"PatientPosition": "HFS"}, {"PatientPosition": "FFP"}])
def test_a_slice_without_orientation_is_rejected(tags: dict[str, str]) -> None:
    with pytest.raises(InputError, match="left and right are unknown.*--orientation axial"):
        load_slice(dataset(**NONE, **tags))
    with pytest.raises(InputError, match="left and right are unknown"):
        load_slice(dataset(ImageOrientationPatient="", **tags))


def test_an_orientation_may_be_stated(tmp_path: Path) -> None:
    ct = load_slice(dataset(**NONE), stated=AXIAL)
    assert ct.side_known and ct.flips == (False, False) and not ct.transposed and ct.position_mm == 5
    assert ct.notes == ("ImageOrientationPatient is missing: the usual axial view is taken, as stated",)
    # What the file says has precedence.
    mirrored = load_slice(dataset(ImageOrientationPatient=MIRRORED), stated=AXIAL)
    assert mirrored.flips == (False, True) and mirrored.notes == () and mirrored.side_known
    assert load_slice(dataset(**NONE, PatientOrientation=["R", "P"]), stated=AXIAL).flips == (False, True)
    for letters in (["RP", "AR"], ["R", "PF"]):
        with pytest.raises(InputError, match="PatientOrientation contradicts the stated orientation"):
            load_slice(dataset(**NONE, PatientOrientation=letters), stated=AXIAL)
    assert load_slice(dataset(**NONE, PatientOrientation=["L", "PF"]), stated=AXIAL).side_known
    series(tmp_path, [10, 0, 5], **NONE)
    assert [ct.position_mm for ct in load_slices(tmp_path, stated=AXIAL)] == [0, 5, 10]


@pytest.mark.parametrize(
    ("letters", "cosines"),
    [
        ("L P", STANDARD), ("R P", MIRRORED), ("L A", [1, 0, 0, 0, -1, 0]), ("R A", [-1, 0, 0, 0, -1, 0]),
        ("P L", [0, 1, 0, 1, 0, 0]), ("A L", [0, -1, 0, 1, 0, 0]), ("P R", [0, 1, 0, -1, 0, 0]),
        ("A R", [0, -1, 0, -1, 0, 0]),
    ],
)  # fmt: skip
def test_patient_orientation_is_used(letters: str, cosines: list[float]) -> None:
    ct = load_slice(dataset(**NONE, PatientOrientation=letters.split()))
    same = load_slice(dataset(ImageOrientationPatient=cosines))
    assert (ct.flips, ct.transposed, ct.spacing_mm) == (same.flips, same.transposed, same.spacing_mm)
    assert ct.side_known and ct.notes == ("ImageOrientationPatient is missing: PatientOrientation is used",)
    assert load_slice(dataset(ImageOrientationPatient=cosines, PatientOrientation=letters.split())).notes == ()


@pytest.mark.parametrize(
    ("letters", "words"),
    [
        (["LP", "P"], "unknown"), (["L"], "unknown"), (["L", "X"], "unknown"), (["", ""], "unknown"), ("", "unknown"),
        (["L", "P", "H"], "unknown"), (["L", "L"], "right angles"), (["P", "F"], "sagittal"), (["L", "F"], "coronal"),
    ],
)  # fmt: skip
def test_patient_orientation_that_does_not_decide(letters: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_slice(dataset(**NONE, PatientOrientation=letters))


def test_orientations_that_contradict_each_other_are_rejected() -> None:
    for letters in (["R", "P"], ["L", "A"], ["P", "L"], ["RP", "PF"]):
        with pytest.raises(InputError, match="contradict"):
            load_slice(dataset(PatientOrientation=letters))
    tilted = [1, 0, 0, 0, 0.9272, -0.3746]
    for letters in (["L", "P"], ["L", "PF"], ["LF", "P"], ["", ""], ["LE", "V"]):
        assert load_slice(dataset(ImageOrientationPatient=tilted, PatientOrientation=letters)).side_known
    assert load_slice(dataset(PatientOrientation=["R", "P"], AnatomicalOrientationType="QUADRUPED")).side_known


def test_arrays_and_pictures_do_not_know_their_side(tmp_path: Path) -> None:
    hu = np.full((20, 24), -100, np.int16)
    np.save(tmp_path / "a.npy", hu)
    Image.fromarray((hu + 1024).astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(tmp_path / "b.png")
    for image in (hu, tmp_path / "a.npy", tmp_path / "a.png", tmp_path / "b.png", CtSlice(hu.astype(np.float32))):
        assert not load_slice(image, stated=Stated(window=(50, 350))).side_known
        assert load_slice(image, stated=Stated(window=(50, 350), orientation="axial")).side_known
    assert load_slice(save(dataset(), tmp_path / "a.dcm")).side_known


def test_a_picture_that_viewers_turn_is_rejected(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(320, dtype=np.uint8).reshape(16, 20))
    exif = Image.Exif()
    for value in (1, 2, 6):
        exif[0x0112] = value
        for ending in ("jpg", "png", "tif"):
            path = tmp_path / f"{value}.{ending}"
            picture.save(path, exif=exif)
            if value == 1:
                assert load_slice(path, stated=Stated(window=(50, 350))).hu.shape == (16, 20)
                continue
            with pytest.raises(InputError, match="Exif tag Orientation"):
                load_slice(path, stated=Stated(window=(50, 350)))


def test_a_picture_with_hu_is_rejected(tmp_path: Path) -> None:
    hu = np.full((20, 24), -900, np.int32)
    hu[5:9] = 50
    Image.fromarray(hu).save(tmp_path / "signed.tif")
    Image.fromarray(hu.astype(np.int16).view(np.uint16)).save(tmp_path / "wrapped.tif")
    Image.fromarray(hu.astype(np.float32)).save(tmp_path / "float.tif")
    for name in ("signed", "wrapped", "float"):
        with pytest.raises(InputError, match=r"numpy\.save\('slice\.npy', hu\)"):
            load_slice(tmp_path / f"{name}.tif")
    for kind in (np.int32, np.uint16):
        Image.fromarray((hu + 1024).astype(kind)).save(tmp_path / "shifted.tif")
        np.testing.assert_array_equal(load_slice(tmp_path / "shifted.tif").hu, hu)


@pytest.mark.parametrize(
    ("spacing", "words"),
    [
        ([1000, 0.001], "PixelSpacing is 1000 x 0.001 mm; 0.01 to 20 mm with a ratio up to 10 are supported"),
        ([0.009, 0.009], "0.009"), ([20.5, 20.5], "20.5"), ([0.5, 5.5], "ratio"), (["1e308", "1e308"], "1e\\+308"),
        ([-0.7, 0.7], "PixelSpacing is -0.7"), ([0, 0.7], "PixelSpacing is 0 x"),
    ],
)  # fmt: skip
def test_implausible_spacings_are_rejected(spacing: list[Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_slice(dataset(PixelSpacing=spacing))


@pytest.mark.parametrize("spacing", [[0.01, 0.01], [20, 20], [0.5, 5], [0.9765625, 0.9765625]])
def test_plausible_spacings_are_not(spacing: list[float]) -> None:
    assert load_slice(dataset(PixelSpacing=spacing)).spacing_mm == tuple(spacing)


def test_pixels_that_are_not_square_need_their_spacing() -> None:
    for ratio in ([2, 1], [0, 1], [1, 2]):
        with pytest.raises(InputError, match="PixelAspectRatio is"):
            load_slice(dataset(PixelSpacing=None, PixelAspectRatio=ratio))
        assert load_slice(dataset(PixelAspectRatio=ratio)).spacing_mm == (0.8, 0.5)
    for ratio in ([1, 1], [2, 2], ""):
        assert load_slice(dataset(PixelSpacing=None, PixelAspectRatio=ratio)).spacing_mm is None


def test_an_implausible_position_is_rejected() -> None:
    with pytest.raises(InputError, match="over 100 m"):
        load_slice(dataset(ImagePositionPatient=[0, 0, "1e300"]))
    assert load_slice(dataset(ImagePositionPatient=[0, 0, -3000])).position_mm == -3000
