"""Write results as a NIfTI mask volume, in the geometry of the input."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.atomic import atomic_file
from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError, MissingDependencyError, chain_cut

from .by_sentence import by_sentence, check_once
from .caption import NOT_FOR_DIAGNOSIS, incomplete_text
from .headers import check_one_origin
from .positions import check_one_stack, position_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .result import Result

# The share of a step by which a slice may deviate from the even grid: positions are rounded, a gap is a whole step.
MAX_UNEVENNESS = 0.1
# DICOM's x and y grow to the patient's left and back, NIfTI's to the right and front.
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@chain_cut
def write_nifti(
    results: Sequence[Result], path: str | PathLike[str], *, slices: Sequence[CtSlice] = (), not_read: int = 0
) -> None:
    """Write the masks of one series or volume as a volume of uint8, 0 and 1.

    The volume of a NIfTI input has its shape and affine.  The volume of a DICOM series has the axes (column, row, slice
    from feet to head) and an affine from the headers; a tilted gantry becomes a shear.  Slices without a result are 0,
    and the header's description states that the volume is incomplete.

    Args:
        results: Segmentations of NIfTI or DICOM slices, for one sentence.
        path: the file to write, .nii or .nii.gz.
        slices: slices of the series that other sentences have results for: the volumes of all sentences then have one
            grid.  Those of a result need not be among them.
        not_read: number of images of the series that are in no result, and not in ``slices``.

    Raises:
        InputError: images of other formats, results that do not belong together, slices at uneven steps, or a file that
            cannot be written.
        MissingDependencyError: nibabel is not installed.
    """
    results = list(results)
    if not fspath(path).lower().endswith((".nii", ".nii.gz")):
        raise InputError("the output's name does not end in .nii or .nii.gz; rename it")
    sentences = len(by_sentence(results))
    if sentences > 1:
        raise InputError(f"results for {sentences} sentences, a mask volume holds one; write each sentence separately")
    others = _others(results, slices)
    if _are_nifti([*(result.ct for result in results), *others]):
        volume, affine, missing = _into_grid(results)
        # Those that were not read are slices of the file.
        missing = max(missing, not_read)
    else:
        volume, affine = _stacked(results, others)
        missing = len(others) + not_read
    try:
        nibabel: Any = importlib.import_module("nibabel")
    except ImportError as error:
        message = "writing NIfTI needs nibabel; pip install 'lsms-rt[nifti]', or write PNG"
        raise MissingDependencyError(message) from error
    image = nibabel.Nifti1Image(volume, affine)
    grid = results[0].ct.grid
    image.header.set_xyzt_units("mm" if grid is None else grid.units)
    image.set_sform(affine, code=1)
    # The qform cannot represent a shear; some readers use only the qform.
    if _is_rigid(affine):
        image.set_qform(affine, code=1)
    # at most 79 characters
    image.header["descrip"] = "; ".join(filter(None, (incomplete_text(missing), NOT_FOR_DIAGNOSIS)))
    with atomic_file(path, durable=True) as part:
        nibabel.save(image, part)


def _others(results: Sequence[Result], slices: Sequence[CtSlice]) -> list[CtSlice]:
    """Return the slices that are of no result."""
    answered = {id(result.ct) for result in results}
    return [ct for ct in {id(ct): ct for ct in slices}.values() if id(ct) not in answered]


def _are_nifti(slices: Sequence[CtSlice]) -> bool:
    """Return whether all slices are of NIfTI files, not of DICOM; InputError for a mixture, or other formats."""
    other = next((ct.source for ct in slices if ct.grid is None and ct.header is None), None)
    if other is not None:
        raise InputError(
            f"{other}: its position in the patient is unknown, only NIfTI and DICOM files state it; write PNG"
        )
    volumes = sum(ct.grid is not None for ct in slices)
    if 0 < volumes < len(slices):
        raise InputError(f"{volumes} NIfTI and {len(slices) - volumes} DICOM slices; write them separately")
    return volumes > 0


def _into_grid(results: Sequence[Result]) -> tuple[NDArray[np.uint8], NDArray[np.float64], int]:
    """Return the volume in the input's shape, its affine and the number of slices without a result, of a NIfTI file."""
    grid = results[0].ct.grid
    assert grid is not None
    for result in results:
        other = result.ct.grid
        assert other is not None
        if other.shape != grid.shape or other.axis != grid.axis or not np.array_equal(other.affine, grid.affine):
            raise InputError("results of volumes with different shapes or affines; write each volume separately")
    check_once([result.ct.frame for result in results])
    # A file with two axes is one slice.
    volume = np.zeros((*grid.shape, 1)[:3], np.uint8)
    # a view
    planes = np.moveaxis(volume, grid.axis, 0)
    for result in results:
        if not 0 <= result.ct.frame < len(planes) or result.mask.shape != planes.shape[1:]:
            raise InputError(f"{result.ct.source}: a mask of {result.mask.shape} does not fit {grid.shape} voxels")
        planes[result.ct.frame] = result.mask
    return volume.reshape(grid.shape), grid.affine, len(planes) - len(results)


def _stacked(
    results: Sequence[Result], others: Sequence[CtSlice]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:  # fmt: skip
    """Return the volume (column, row, slice) and its affine (4, 4) to mm in RAS, for DICOM slices.

    Args:
        results: the masks.
        others: slices without a mask.
    """
    slices = [*(result.ct for result in results), *others]
    masks = [*(result.mask for result in results), *(np.zeros(ct.to_input_grid(ct.hu).shape, bool) for ct in others)]
    shapes = {mask.shape for mask in masks}
    if len(shapes) > 1:
        raise InputError(f"slices of {len(shapes)} different sizes; write each series separately")
    positions = [position_of(ct.header, ct.frame, ct.source) for ct in slices]
    check_one_origin([ct.header for ct in slices])
    check_one_stack(positions)
    first = positions[0]
    order = np.argsort([first.normal @ position.origin for position in positions])
    origins = np.array([positions[n].origin for n in order])
    lps = np.eye(4)
    lps[:3, 0] = first.along_row * first.spacing_mm[1]
    lps[:3, 1] = first.along_column * first.spacing_mm[0]
    lps[:3, 2] = _step(origins) if len(origins) > 1 else first.normal * (first.thickness_mm or 1.0)
    lps[:3, 3] = origins[0]
    volume = np.stack([masks[n].T for n in order], axis=-1).astype(np.uint8)
    return volume, RAS_FROM_LPS @ lps


def _step(origins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vector (3,) from a slice to the next, for sorted origins (N, 3); InputError for uneven steps."""
    step = (origins[-1] - origins[0]) / (len(origins) - 1)
    even = origins[0] + np.arange(len(origins))[:, None] * step
    off = float(np.linalg.norm(origins - even, axis=1).max())
    if off > MAX_UNEVENNESS * np.linalg.norm(step):
        lengths = np.linalg.norm(np.diff(origins, axis=0), axis=1)
        raise InputError(
            f"steps of {lengths.min():.2f} to {lengths.max():.2f} mm between slices, NIfTI needs equal ones: slices "
            "are missing, or of several stacks; write a DICOM SEG, or each stack separately"
        )
    return np.asarray(step)


def _is_rigid(affine: NDArray[np.float64]) -> bool:
    """Return whether the affine's axes are at right angles."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.allclose(axes.T @ axes, np.eye(3), atol=1e-5))
