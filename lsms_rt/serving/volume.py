"""An image as one volume for viewers: the slices in the model's frame, from feet to head.

Viewers and remote clients get this one orientation, whatever the files have: the answer's masks are turned into it by
the same steps.  Files of results (``lsms_rt.runs``) keep the geometry of the image that was sent.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.ct_slice import CtSlice, usual_step
from lsms_rt.errors import InputError

# mm between slices, and between pixels, of an image that does not say so: only the picture's proportions follow.
UNKNOWN_STEP, UNKNOWN_PIXEL = 5.0, 1.0
# names of the volumes for viewers, in the folders of an upload and of a job
IMAGE = "image.nii.gz"


def mask_name(sentence: int) -> str:
    """Return the name of a sentence's mask volume; sentences count from 1."""
    return f"view_{sentence}.nii.gz"


def stacked(slices: Sequence[CtSlice], arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays (H, W) of the model's frame, one per slice, as one array (slices, H, W).

    Raises:
        InputError: the slices differ in size.
    """
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise InputError(f"slices of {len(shapes)} different sizes do not make a volume; send one series")
    return np.stack(arrays)


def image_of(slices: Sequence[CtSlice]) -> np.ndarray:
    """Return the image, int16 (slices, H, W) in HU."""
    image: np.ndarray = np.rint(stacked(slices, [ct.hu for ct in slices])).astype(np.int16)
    return image


def mask_in_frame(ct: CtSlice, mask: np.ndarray) -> np.ndarray:
    """Return a mask (H, W) of the input's grid in the model's frame."""
    return CtSlice.to_model_frame(mask, ct.flips, ct.transposed)


def spacing_of(slices: Sequence[CtSlice]) -> tuple[float, float, float]:
    """Return the mm between (slices, rows, columns); unknown ones are assumed."""
    rows, columns = slices[0].spacing_mm or (UNKNOWN_PIXEL, UNKNOWN_PIXEL)
    positions = [ct.position_mm for ct in slices if ct.position_mm is not None]
    steps = np.diff(np.array(positions))
    known = len(positions) == len(slices) > 1 and bool((steps > 0).all())
    return (usual_step(steps) if known else UNKNOWN_STEP), rows, columns


def affine_of(slices: Sequence[CtSlice]) -> np.ndarray:
    """Return the affine (4, 4) from (column, row, slice) to mm in RAS; the volume's middle is at x = y = 0."""
    step, rows, columns = spacing_of(slices)
    height, width = slices[0].hu.shape
    affine = np.diag([-columns, -rows, step, 1.0])
    affine[:3, 3] = columns * (width - 1) / 2, rows * (height - 1) / 2, slices[0].position_mm or 0.0
    return affine


def read_volume(path: Path) -> np.ndarray:
    """Return a volume that :func:`write_volume` wrote, (slices, rows, columns)."""
    nibabel: Any = importlib.import_module("nibabel")
    return np.asarray(np.asanyarray(nibabel.load(path).dataobj).transpose(2, 1, 0))


def write_volume(path: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume (slices, rows, columns) as .nii.gz for a viewer."""
    nibabel: Any = importlib.import_module("nibabel")
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def read_grid(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Return the shape (slices, rows, columns) and the affine of a volume that was written here."""
    nibabel: Any = importlib.import_module("nibabel")
    image = nibabel.load(path)
    columns, rows, slices = image.shape
    return (slices, rows, columns), image.affine


def in_ras(volume: np.ndarray) -> np.ndarray:
    """Return a volume (..., slices, rows, columns) with indices that grow to the patient's right, front and head.

    The model's frame grows to the left and the back; the same function turns a volume back.
    """
    return volume[..., ::-1, ::-1]
