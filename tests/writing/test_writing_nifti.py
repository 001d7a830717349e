"""Masks written as NIfTI lie where the image's pixels do, by DICOM's equation or by the input's affine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_dicom import enhanced
from fake_results import (
    ORIENTATIONS,
    TILTED,
    along_z,
    answer,
    answer_with,
    answers,
    header,
    in_patient,
)  # fmt: skip
from pydicom.dataset import Dataset

from lsms_rt.errors import InputError
from lsms_rt.reading.dicom.read import slices_from_dataset
from lsms_rt.reading.load import load_slice, load_slices
from lsms_rt.segmentation import Segmentation
from lsms_rt.writing import write_nifti

# NIfTI


def read_nifti(path: Path) -> Any:
    nibabel: Any = pytest.importorskip("nibabel")
    image = nibabel.load(path)
    assert image.get_data_dtype() == np.uint8
    return image


def check_places(results: list[Segmentation], headers: list[Dataset], path: Path) -> None:
    """Every result's pixels are in the file, where the standard's equation puts them."""
    image = read_nifti(path)
    volume, to_voxel = np.asarray(image.dataobj), np.linalg.inv(image.affine)
    rows, columns = results[0].mask.shape
    assert volume.shape == (columns, rows, len(results)) and set(np.unique(volume)) <= {0, 1}
    slices = set()
    for result, ds in zip(results, headers, strict=True):
        for row, column in ((0, 0), (rows - 1, 0), (0, columns - 1), (rows // 3, columns // 2)):
            x, y, z = in_patient(ds, row, column)
            voxel = (to_voxel @ [-x, -y, z, 1])[:3]
            np.testing.assert_allclose(voxel[:2], [column, row], atol=1e-3)
            assert voxel[2] == pytest.approx(round(voxel[2]), abs=0.05)
        k = round(voxel[2])
        slices.add(k)
        np.testing.assert_array_equal(volume[:, :, k], result.mask.T)
    assert slices == set(range(len(results)))


def test_an_incomplete_volume_says_so(tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    for count, words in ((0, ""), (20_000, "incomplete: 20000 images without an answer; ")):
        write_nifti(answers(along_z(0, 3)), tmp_path / "a.nii", not_read=count)
        text = read_nifti(tmp_path / "a.nii").header["descrip"].item().decode()
        assert text == words + "research, not for diagnosis" and len(text) < 80


def test_a_volume_has_the_grid_of_all_slices(tmp_path: Path) -> None:
    """A slice that only another sentence has a result for is 0, also in the middle, and the volume is incomplete."""
    results = answers(along_z(0, 3, 6))
    write_nifti(results, tmp_path / "a.nii")
    write_nifti([results[2], results[0]], tmp_path / "b.nii", slices=[result.ct for result in results])
    whole, partial = (read_nifti(tmp_path / name) for name in ("a.nii", "b.nii"))
    np.testing.assert_array_equal(whole.affine, partial.affine)
    expected = np.asarray(whole.dataobj).copy()
    expected[..., 1] = 0
    np.testing.assert_array_equal(partial.dataobj, expected)
    assert partial.header["descrip"].item().decode().startswith("incomplete: 1 image without an answer; ")


@pytest.mark.parametrize("orientation", [*ORIENTATIONS, TILTED])
def test_nifti_of_a_series(tmp_path: Path, orientation: list[float]) -> None:
    pytest.importorskip("nibabel")
    results = answers(along_z(6, 0, 9, 3), empty=(1,), ImageOrientationPatient=orientation)
    write_nifti(results, tmp_path / "a.nii.gz")
    check_places(results, [result.ct.header for result in results], tmp_path / "a.nii.gz")
    image = read_nifti(tmp_path / "a.nii.gz")
    assert image.get_sform(coded=True)[1] == 1
    # A shear has no qform.
    assert image.get_qform(coded=True)[1] == int(orientation != TILTED)
    # Slices count from feet to head.
    assert image.affine[2, 2] > 0


def test_nifti_of_a_multi_frame_file(tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    ds = enhanced()
    results = [answer(ct, ct.frame) for ct in load_slices(ds)]
    headers = []
    for result in results:
        place = header(ImagePositionPatient=[0, 0, -10 * result.ct.frame], PixelSpacing=[0.8, 0.5])
        headers.append(place)
    write_nifti(results, tmp_path / "a.nii")
    check_places(results, headers, tmp_path / "a.nii")


@pytest.mark.parametrize(("thickness", "expected"), [(2.5, 2.5), (None, 1), (0, 1)])
@pytest.mark.parametrize("orientation", [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, -1, 0], TILTED])
def test_nifti_of_one_slice(tmp_path: Path, thickness: float | None, expected: float, orientation: list[float]) -> None:
    pytest.importorskip("nibabel")
    results = answers(along_z(7), SliceThickness=0, ImageOrientationPatient=orientation)
    results[0].ct.header.SliceThickness = thickness
    write_nifti(results, tmp_path / "a.nii")
    check_places(results, [results[0].ct.header], tmp_path / "a.nii")
    affine = read_nifti(tmp_path / "a.nii").affine
    assert np.linalg.norm(affine[:3, 2]) == pytest.approx(expected, rel=1e-4) and affine[2, 2] > 0
    # The third axis is the normal of the slices.
    np.testing.assert_allclose(affine[:3, 2] @ affine[:3, :2], 0, atol=1e-6)


def test_nifti_refuses_gaps_and_takes_rounded_places(tmp_path: Path) -> None:
    pytest.importorskip("nibabel")
    for heights in ((0, 3, 9), (0, 3, 6, 12), tuple(3 * n for n in range(100) if n != 98)):
        with pytest.raises(InputError, match=r"steps of 3.00 to 6.00 mm.*write a DICOM SEG"):
            write_nifti(answers(along_z(*heights)), tmp_path / "a.nii")
    # One slice is shifted sideways.
    with pytest.raises(InputError, match="steps of"):
        write_nifti(answers([(0, 0, 0), (0.4, 0, 3), (0, 0, 6)]), tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []
    # 0.625 mm, to one digit.
    results = answers(along_z(0, 0.6, 1.3, 1.9, 2.5))
    write_nifti(results, tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii").affine[2, 2] == pytest.approx(0.625)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAI", "PLS", "SRA", "ILP", "ASR", "PIR"])
@pytest.mark.parametrize("turned", [False, True])
def test_nifti_round_trip(tmp_path: Path, codes: str, turned: bool) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    affine = np.array([[0.5, 0, 0, -7], [0, 0.8, 0, 11], [0, 0, 3, 13], [0, 0, 0, 1]], float)
    if turned:
        affine[:3, :3] = [[0.49, 0.04, 0.1], [-0.03, 0.79, -0.2], [0.05, 0.1, 3]]
    ras = np.random.default_rng(0).uniform(-900, 900, (41, 29, 5)).astype(np.float32)
    image = nibabel.Nifti1Image(ras, affine)
    io = nibabel.orientations
    image = image.as_reoriented(io.ornt_transform(io.axcodes2ornt("RAS"), io.axcodes2ornt(codes)))
    nibabel.save(image, tmp_path / "in.nii.gz")
    stored = np.asarray(image.dataobj)
    slices = load_slices(tmp_path / "in.nii.gz")
    results = []
    for n, ct in enumerate(slices):
        # Nothing was asked about slice 2.
        if n != 2:
            # As a network would find it: in the input's grid.
            mask = ct.to_input_grid(ct.hu) > 100
            results.append(answer_with(ct, mask))
    write_nifti(results[::-1], tmp_path / "out.nii")
    written = read_nifti(tmp_path / "out.nii")
    assert written.shape == image.shape
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-5)
    axis = next(n for n, c in enumerate(codes) if c in "SI")
    expected = np.moveaxis((stored > 100).astype(np.uint8), axis, 0)
    expected[slices[2].frame] = 0
    np.testing.assert_array_equal(np.moveaxis(np.asarray(written.dataobj), axis, 0), expected)


def test_nifti_of_one_flat_file(tmp_path: Path) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    flat = np.random.default_rng(0).uniform(-900, 900, (41, 29)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(flat, np.diag([-0.5, 0.8, 3, 1])), tmp_path / "in.nii")
    ct = load_slice(tmp_path / "in.nii")
    result = answer(ct)
    write_nifti([result], tmp_path / "out.nii")
    written = read_nifti(tmp_path / "out.nii")
    assert written.shape == (41, 29)
    np.testing.assert_array_equal(np.asarray(written.dataobj), result.mask)


def test_nifti_refuses_what_it_cannot_place(tmp_path: Path) -> None:
    nibabel: Any = pytest.importorskip("nibabel")
    path = tmp_path / "out.nii"
    series, array = answers(along_z(0, 3)), answer(load_slice(np.full((40, 50), -5.0)))
    with pytest.raises(InputError, match="array: its position in the patient is unknown"):
        write_nifti([array], path)
    with pytest.raises(InputError, match=r"does not end in \.nii or \.nii\.gz"):
        write_nifti(series, tmp_path / "secret.dcm")
    with pytest.raises(InputError, match="there are no results"):
        write_nifti([], path)
    with pytest.raises(InputError, match="2 results for one sentence, 1 of a slice that has one; ask it once"):
        write_nifti([series[0], series[0]], path)
    with pytest.raises(InputError, match="2 different sizes"):
        write_nifti([series[0], answer(slices_from_dataset(enhanced())[0])], path)
    moved = answers(along_z(6), SeriesInstanceUID="1.2.77.9")
    with pytest.raises(InputError, match="3 results with 2 different SeriesInstanceUID"):
        write_nifti([*series, *moved], path)
    del series[1].ct.header.PixelSpacing
    with pytest.raises(InputError, match="PixelSpacing absent"):
        write_nifti(series, path)
    volumes = []
    for n, zoom in enumerate((3.0, 4.0)):
        data = np.full((41, 29, 2), -5, np.float32)
        nibabel.save(nibabel.Nifti1Image(data, np.diag([-0.5, 0.8, zoom, 1])), tmp_path / f"{n}.nii")
        volumes.append(answer(load_slices(tmp_path / f"{n}.nii")[0]))
    with pytest.raises(InputError, match="different shapes or affines"):
        write_nifti(volumes, path)
    with pytest.raises(InputError, match="2 results for one sentence, 1 of a slice that has one; ask it once"):
        write_nifti([volumes[0], volumes[0]], path)
    with pytest.raises(InputError, match="array: its position in the patient is unknown"):
        write_nifti([volumes[0], series[0], array], path)
    with pytest.raises(InputError, match="1 NIfTI and 1 DICOM slices"):
        write_nifti([volumes[0], series[0]], path)
    assert not path.exists()
