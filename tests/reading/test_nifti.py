"""Where a NIfTI file's voxels lie: by its affine, in its units, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsms_rt.errors import InputError
from lsms_rt.reading.load import load_slices
from lsms_rt.reading.stated import Stated

nibabel: Any = pytest.importorskip("nibabel")


def saved(path: Path, affine: np.ndarray, pixdim: tuple[float, ...] | None = None, units: str = "mm") -> Path:
    hu = np.random.default_rng(0).uniform(-900, 900, (20, 31, 4)).astype(np.float32)
    image = nibabel.Nifti1Image(hu, affine)
    image.header.set_xyzt_units(units)
    image.set_sform(affine, code=1)
    image.set_qform(None, code=0)
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
    nibabel.save(image, path)
    return path


def turned(axis: str, degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = {"z": [[c, -s, 0], [s, c, 0], [0, 0, 1]], "x": [[1, 0, 0], [0, c, -s], [0, s, c]]}[axis]
    affine = np.eye(4)
    affine[:3, :3] = np.array(rotation) @ np.diag([0.7, 0.8, 5])
    return affine


def test_sizes_are_those_of_the_affine(tmp_path: Path) -> None:
    """Not the header's second opinion, which a resampling may have left behind."""
    slices = load_slices(saved(tmp_path / "a.nii", np.diag([0.7, 0.8, 5, 1]), pixdim=(1, 1, 1)))
    assert slices[0].spacing_mm == pytest.approx((0.8, 0.7))
    assert [ct.position_mm for ct in slices] == pytest.approx([0, 5, 10, 15])


@pytest.mark.parametrize(("units", "factor"), [("mm", 1), ("meter", 1e-3), ("micron", 1e3), ("unknown", 1)])
def test_units_are_honoured(tmp_path: Path, units: str, factor: float) -> None:
    affine = np.diag([0.7 * factor, 0.8 * factor, 5 * factor, 1])
    slices = load_slices(saved(tmp_path / "a.nii", affine, units=units))
    assert slices[0].spacing_mm == pytest.approx((0.8, 0.7)) and slices[1].position_mm == pytest.approx(5)
    assert slices[0].grid is not None and slices[0].grid.units == units


def test_slices_of_a_tilted_gantry_are_apart_along_their_normal(tmp_path: Path) -> None:
    affine = np.diag([0.7, 0.8, 5, 1.0])
    # Each slice lies further to the front; the slices stay axial, 5 mm apart.
    affine[1, 2] = 5 * np.tan(0.4)
    slices = load_slices(saved(tmp_path / "a.nii", affine))
    assert [ct.position_mm for ct in slices] == pytest.approx([0, 5, 10, 15])
    tilted = turned("x", 20)
    # Slices tilted, the table moves straight.
    tilted[:3, 2] = [0, 0, 5]
    slices = load_slices(saved(tmp_path / "b.nii", tilted))
    assert slices[1].position_mm == pytest.approx(5 * np.cos(np.radians(20)))


@pytest.mark.parametrize("affine", [turned("z", 40), turned("x", 40), turned("x", 44)])
def test_oblique_volumes_are_refused(tmp_path: Path, affine: np.ndarray) -> None:
    with pytest.raises(InputError, match="oblique"):
        load_slices(saved(tmp_path / "a.nii", affine))


@pytest.mark.parametrize("affine", [turned("z", 10), turned("x", 25), turned("x", -25)])
def test_a_little_is_not_oblique(tmp_path: Path, affine: np.ndarray) -> None:
    assert len(load_slices(saved(tmp_path / "a.nii", affine))) == 4


def test_a_file_that_does_not_say_where_right_is_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", np.diag([0.7, 0.8, 5, 1]))
    image = nibabel.load(path)
    image.set_sform(None, code=0)
    nibabel.save(image, tmp_path / "b.nii")
    with pytest.raises(InputError, match="left and right are unknown.*--orientation axial"):
        load_slices(tmp_path / "b.nii")
    slices = load_slices(tmp_path / "b.nii", stated=Stated(orientation="axial"))
    stored = np.asarray(image.dataobj)
    for n, ct in enumerate(slices):
        np.testing.assert_array_equal(ct.hu, stored[:, :, n].T)
        assert (
            ct.side_known and ct.frame == n and ct.position_mm == 5 * n and ct.spacing_mm == pytest.approx((0.8, 0.7))
        )
        assert ct.grid is not None and nibabel.aff2axcodes(ct.grid.affine) == ("L", "P", "S")
    # What the file says has precedence.
    assert load_slices(path, stated=Stated(orientation="axial"))[0].flips == load_slices(path)[0].flips == (True, True)


def two(path: Path, sform: np.ndarray, qform: np.ndarray) -> Path:
    image = nibabel.Nifti1Image(np.random.default_rng(0).uniform(-900, 900, (20, 31, 4)).astype(np.float32), sform)
    image.set_sform(sform, code=1)
    image.set_qform(qform, code=1)
    nibabel.save(image, path)
    return path


SIZES = np.diag([0.7, 0.8, 5, 1])


@pytest.mark.parametrize(
    "qform",
    [
        np.diag([-0.7, 0.8, 5, 1]),
        np.diag([0.7, -0.8, 5, 1]),
        np.diag([0.7, 0.8, -5, 1]),
        np.diag([-0.7, -0.8, 5, 1]),
        np.diag([0.7 * 1.02, 0.8, 5, 1]),
        np.diag([0.7, 0.8, 5 * 0.98, 1]),
        np.diag([1.0, 1, 1, 1]),
        turned("z", 10),
        turned("z", 90),
        turned("x", 10),
    ],
)
def test_affines_that_contradict_each_other_are_refused(tmp_path: Path, qform: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"sform and qform contradict each other.*set_qform"):
        load_slices(two(tmp_path / "a.nii", SIZES, qform))
    with pytest.raises(InputError, match="contradict"):
        load_slices(two(tmp_path / "b.nii", qform, SIZES), stated=Stated(orientation="axial"))


def test_affines_that_differ_by_rounding_or_shear_are_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n, degrees in enumerate((0, 3, -7, 16.3)):
        affine = turned("z", degrees) @ np.linalg.inv(SIZES) @ turned("x", -degrees / 2)
        affine[:3, :3] += rng.uniform(-1e-6, 1e-6, (3, 3))
        affine[:3, 3] = -180.123456, 99.9, 1234.5
        assert load_slices(two(tmp_path / f"{n}.nii", affine, affine))[0].side_known
    # The origin may differ, and so may a fraction of a degree.
    moved = turned("z", 0.5)
    moved[:3, 3] = 10, 20, 30
    assert load_slices(two(tmp_path / "moved.nii", SIZES, moved))
    # A tilted gantry: the sform has the shear, the qform cannot.
    for n, straight in enumerate((False, True)):
        sheared = np.diag([0.7, 0.8, 5, 1.0])
        sheared[1, 2] = 5 * np.tan(0.4)
        qform = np.diag([0.7, 0.8, 5 / np.cos(0.4), 1]) if straight else sheared
        assert load_slices(two(tmp_path / f"tilt{n}.nii", sheared, qform))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((0.001, 0.8, 5), "voxel size in a slice is 0.8 x 0.001 mm; 0.01 to 20 mm"),
        ((25, 25, 5), "25 x 25"),
        ((0.5, 6, 5), "ratio"),
        ((1e30, 1e30, 5), "1e\\+30"),
        ((0.7, 0.8, 1e30), "apart, over the limit of 1000 mm"),
    ],
)
def test_implausible_sizes_are_refused(tmp_path: Path, sizes: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_slices(saved(tmp_path / "a.nii", np.diag([*sizes, 1])))
