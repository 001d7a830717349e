"""Read a NIfTI image and the masks that lie on its grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError
from lsms_rt.reading.nifti import read_nifti

# A mask whose corners are farther from the image's than this share of a voxel is on another grid.
SAME_GRID = 0.25
_RESAMPLE = "resample the mask to the image's grid"


def read_image(path: Path, name: str) -> list[CtSlice]:
    """Read a CT volume in HU, slices from feet to head.

    Raises:
        InputError: it cannot be read, or is not in HU.
    """
    # A large scan in float64 is over the limits for files of unknown origin.
    slices = read_nifti(path, name, trusted=True)
    check_hu(slices, name)
    return slices


def check_hu(slices: Sequence[CtSlice], name: str) -> None:
    """Raise InputError for a scan without values below 0: air is -1000 HU, so its values are not HU."""
    lowest = min(float(ct.hu.min()) for ct in slices)
    if lowest >= 0:
        raise InputError(
            f"{name}: no value is below 0 (the lowest is {lowest:g}), so it is not in HU; convert it to HU"
        )


def read_labels(path: Path, name: str, image: Sequence[CtSlice]) -> np.ndarray:
    """Read a volume of labels on the grid of ``image``: int32 (N, H, W) in the model's frame, from feet to head.

    Raises:
        InputError: it cannot be read, is on another grid, or has values that are not whole numbers.
    """
    slices = read_nifti(path, name, trusted=True)
    shapes = [(len(one), *one[0].hu.shape) for one in (slices, image)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{name}: {shapes[0]} voxels (slices, rows, columns), its image has {shapes[1]}; {_RESAMPLE}")
    distance, voxel = _corner_distance(slices, image)
    if distance > SAME_GRID * voxel:
        raise InputError(f"{name}: its corners are {distance:.2f} mm away from those of its image; {_RESAMPLE}")
    values = np.stack([ct.hu for ct in slices])
    labels: np.ndarray = values.astype(np.int32)
    if (labels != values).any():
        raise InputError(f"{name}: has values that are not whole numbers; save labels, not probabilities")
    return labels


def on_image_grid(array: np.ndarray, image: Sequence[CtSlice]) -> np.ndarray:
    """Turn an array with the axes of the image's file into (N, H, W) in the model's frame."""
    planes = []
    for ct in image:
        assert ct.grid is not None
        plane = np.take(array, ct.frame, axis=ct.grid.axis)
        planes.append(CtSlice.to_model_frame(plane, ct.flips, ct.transposed))
    return np.stack(planes)


def _corner_distance(a: Sequence[CtSlice], b: Sequence[CtSlice]) -> tuple[float, float]:
    """Return the largest distance between corresponding corners in mm, and the smallest voxel size of ``b``."""
    corners, voxel = [], 1.0
    for slices in (a, b):
        rows, columns = slices[0].hu.shape
        places = [(y, x) for y in (0, rows - 1) for x in (0, columns - 1)]
        corners.append([_world(ct, y, x) for ct in (slices[0], slices[-1]) for y, x in places])
        grid = slices[0].grid
        assert grid is not None
        voxel = float(np.linalg.norm(grid.affine[:3, :3], axis=0).min())
    return float(np.linalg.norm(np.array(corners[0]) - np.array(corners[1]), axis=1).max()), voxel


def _world(ct: CtSlice, row: int, column: int) -> np.ndarray:
    """Return the position of a pixel of the model's frame in the file's world coordinates, (3,)."""
    assert ct.grid is not None
    rows, columns = ct.hu.shape
    y = rows - 1 - row if ct.flips[0] else row
    x = columns - 1 - column if ct.flips[1] else column
    index = [x, y] if ct.transposed else [y, x]
    index.insert(ct.grid.axis, ct.frame)
    position: np.ndarray = (ct.grid.affine @ np.array([*index, 1.0]))[:3]
    return position
