"""Results -> a NIfTI mask volume, in the geometry of the input."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.atomic import whole
from lsms_rt.errors import InputError, MissingDependencyError

from .positions import check_one_stack, place_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .result import Result

UNEVEN = 0.1  # of a step, by which a slice may lie off the even grid: places are rounded, a gap is a whole step
# DICOM's x and y grow to the patient's left and back, NIfTI's to the right and front.
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_nifti(results: Sequence[Result], path: str | PathLike[str]) -> None:
    """Write the masks as one volume of uint8, 0 and 1, to ``path`` (.nii or .nii.gz).

    Of a NIfTI file: its shape and affine; slices that are not among the results are 0.  Of DICOM: axes (column, row,
    slice from feet to head), the affine from the headers; a tilted gantry is a shear in it.

    Raises ``InputError`` for images that are neither, results that do not belong together, slices at uneven steps, and
    a place that cannot be written to; ``MissingDependencyError`` without nibabel.
    """
    results = list(results)
    if not fspath(path).lower().endswith((".nii", ".nii.gz")):
        raise InputError("the output's name does not end in .nii or .nii.gz; name it so")
    if not results:
        raise InputError("no results, there is nothing to write; give at least one")
    volume, affine = _into_grid(results) if _are_nifti(results) else _stacked(results)
    try:
        nibabel: Any = importlib.import_module("nibabel")
    except ImportError as error:
        message = "writing NIfTI needs nibabel; pip install 'lsms-rt[nifti]', or write PNG"
        raise MissingDependencyError(message) from error
    image = nibabel.Nifti1Image(volume, affine)
    grid = results[0].slice.grid
    image.header.set_xyzt_units("mm" if grid is None else grid.units)
    image.set_sform(affine, code=1)
    if _is_rigid(affine):  # the other form of a NIfTI header has no shear; some readers look at it only
        image.set_qform(affine, code=1)
    with whole(path) as part:
        nibabel.save(image, part)


def _are_nifti(results: Sequence[Result]) -> bool:
    """Whether all are slices of NIfTI files, not of DICOM; InputError if they are of both, or some of neither."""
    slices = [result.slice for result in results]
    other = next((ct.source for ct in slices if ct.grid is None and ct.header is None), None)
    if other is not None:
        raise InputError(f"{other}: its place in the patient is unknown, only NIfTI and DICOM state it; write PNG")
    volumes = sum(ct.grid is not None for ct in slices)
    if 0 < volumes < len(slices):
        raise InputError(f"{volumes} NIfTI and {len(slices) - volumes} DICOM slices; write them apart")
    return volumes > 0


def _into_grid(results: Sequence[Result]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(volume in the input's shape, its affine) for slices of one NIfTI file."""
    grid = results[0].slice.grid
    assert grid is not None
    for result in results:
        other = result.slice.grid
        assert other is not None
        if other.shape != grid.shape or other.axis != grid.axis or not np.array_equal(other.affine, grid.affine):
            raise InputError("results of volumes of different shape or affine; write each volume apart")
    frames = [result.slice.frame for result in results]
    if len(set(frames)) < len(frames):
        raise InputError(f"{len(frames)} results for {len(set(frames))} slices of a volume; write each sentence apart")
    volume = np.zeros((*grid.shape, 1)[:3], np.uint8)  # a file of two axes is one slice
    planes = np.moveaxis(volume, grid.axis, 0)  # a view
    for result in results:
        if not 0 <= result.slice.frame < len(planes) or result.mask.shape != planes.shape[1:]:
            raise InputError(f"{result.slice.source}: a mask of {result.mask.shape} does not fit {grid.shape} voxels")
        planes[result.slice.frame] = result.mask
    return volume.reshape(grid.shape), grid.affine


def _stacked(results: Sequence[Result]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(volume (column, row, slice), affine (4, 4) to mm in RAS) for DICOM slices."""
    shapes = {result.mask.shape for result in results}
    if len(shapes) > 1:
        raise InputError(f"slices of {len(shapes)} different sizes; write each series apart")
    places = [place_of(result.slice.header, result.slice.frame, result.slice.source) for result in results]
    check_one_stack(places)
    first = places[0]
    order = np.argsort([first.normal @ place.origin for place in places])
    origins = np.array([places[n].origin for n in order])
    lps = np.eye(4)
    lps[:3, 0] = first.along_row * first.spacing_mm[1]
    lps[:3, 1] = first.along_column * first.spacing_mm[0]
    lps[:3, 2] = _step(origins) if len(origins) > 1 else first.normal * (first.thickness_mm or 1.0)
    lps[:3, 3] = origins[0]
    volume = np.stack([results[n].mask.T for n in order], axis=-1).astype(np.uint8)
    return volume, RAS_FROM_LPS @ lps


def _step(origins: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) sorted -> (3,), the vector from a slice to the next; InputError if it is not the same all along."""
    step = (origins[-1] - origins[0]) / (len(origins) - 1)
    even = origins[0] + np.arange(len(origins))[:, None] * step
    off = float(np.linalg.norm(origins - even, axis=1).max())
    if off > UNEVEN * np.linalg.norm(step):
        lengths = np.linalg.norm(np.diff(origins, axis=0), axis=1)
        raise InputError(
            f"steps of {lengths.min():.2f} to {lengths.max():.2f} mm between slices, and NIfTI holds even ones only: "
            "slices are missing, or of several stacks; write a DICOM SEG, or each stack apart"
        )
    return np.asarray(step)


def _is_rigid(affine: NDArray[np.float64]) -> bool:
    """Whether the affine's axes are at right angles."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-5))
