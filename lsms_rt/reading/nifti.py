"""A NIfTI file -> its axial slices; its affine says where left and right, and how far apart things are."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsms_rt.ct_slice import MAX_VOXELS, CtSlice, VolumeGrid, check_shape, slice_from_array
from lsms_rt.errors import InputError, MissingDependencyError

from .dicom.read import MAX_TILT, MAX_TURN
from .dicom.source import inflation_limit
from .dicom.stacks import MAX_SLICES

_MM = {"meter": 1e3, "micron": 1e-3}  # of a unit that is not mm; a file that names none is in mm


class _Place(NamedTuple):
    """Which axes of the array are what: ``z`` counts slices, ``y`` and ``x`` are the model's rows and columns.

    ``spacing`` in mm along y and x, ``step`` in mm between slices along their normal; ``flips`` of y and x;
    ``upward``: the slices run from feet to head; ``transposed``: y comes after x.
    """

    z: int
    spacing: tuple[float, float]
    step: float
    flips: tuple[bool, bool]
    upward: bool
    transposed: bool


def read_nifti(path: Path, name: str) -> list[CtSlice]:
    """All slices, from feet to head; ``name`` is what messages call the file.

    Raises ``InputError`` for what is no axial volume with an affine, or over a limit; ``MissingDependencyError`` without
    nibabel.
    """
    try:
        nibabel: Any = importlib.import_module("nibabel")  # not a dependency
    except ImportError as error:
        raise MissingDependencyError(f"{name}: reading NIfTI needs nibabel; pip install nibabel") from error
    try:
        image = nibabel.load(path)
        shape = (*image.shape, 1)[:3] if len(image.shape) == 2 else tuple(image.shape)
        if len(shape) != 3 or not 1 <= np.prod(shape, dtype=float) <= MAX_VOXELS:
            raise InputError(f"{name}: shape {image.shape} is no CT volume; give 2 or 3 axes")
        place = _place(image, name)
        first, second = (n for n in range(3) if n != place.z)
        check_shape(shape[first], shape[second], name)
        if shape[place.z] > MAX_SLICES:
            raise InputError(f"{name}: {shape[place.z]} slices, over the limit of {MAX_SLICES}; split the volume")
        _check_bytes(path, math.prod(shape) * image.get_data_dtype().itemsize, name)
        data = np.moveaxis(np.asarray(image.dataobj, dtype=np.float32).reshape(shape), place.z, 0)
    except InputError:
        raise
    except Exception as error:  # nibabel raises ImageFileError, OSError, EOFError, ValueError, zlib.error ...
        kind = type(error).__name__
        raise InputError(f"{name}: not a readable NIfTI file ({kind}); save it again") from error
    units = image.header.get_xyzt_units()[0]
    grid = VolumeGrid(tuple(image.shape), np.asarray(image.affine, np.float64), place.z, units)
    order = range(len(data)) if place.upward else range(len(data) - 1, -1, -1)
    return [
        slice_from_array(
            CtSlice.to_model_frame(data[n], place.flips, place.transposed), name, frame=n, position_mm=k * place.step,
            spacing_mm=place.spacing, flips=place.flips, transposed=place.transposed, grid=grid,
        )
        for k, n in enumerate(order)
    ]  # fmt: skip


def _place(image: Any, name: str) -> _Place:
    """From the affine: its columns are the steps of the array's axes, x to the right, y to the front, z to the head."""
    if not any(int(image.header.get(f"{kind}form_code", 1)) for kind in "sq"):
        raise InputError(f"{name}: no sform and no qform, left and right are unknown; save it with its affine")
    millimetres = _MM.get(image.header.get_xyzt_units()[0], 1.0)
    steps: NDArray[np.float64] = np.asarray(image.affine, np.float64)[:3, :3] * millimetres
    sizes = np.linalg.norm(steps, axis=0)
    if not np.isfinite(sizes).all() or min(sizes) <= 0:
        raise InputError(f"{name}: voxel sizes are not all finite and above 0 mm; save it again")
    unit = steps / sizes
    z = int(np.argmax(np.abs(unit[2])))
    first, second = (n for n in range(3) if n != z)
    normal = np.cross(unit[:, first], unit[:, second])
    length = float(np.linalg.norm(normal))
    in_plane = np.abs(unit[:2, first])
    straight = length > 0.99 and abs(normal[2]) / length >= np.cos(MAX_TILT)
    if not straight or in_plane.max() < np.cos(MAX_TURN) * np.linalg.norm(unit[:2, first]):
        raise InputError(f"{name}: an oblique volume, only axial ones are understood; resample it")
    transposed = bool(in_plane[0] > in_plane[1])  # the array's first axis runs along x, the model's columns do
    y, x = (second, first) if transposed else (first, second)
    return _Place(
        z,
        spacing=(float(sizes[y]), float(sizes[x])),
        step=abs(float(normal @ steps[:, z])) / length,
        flips=(bool(unit[1, y] > 0), bool(unit[0, x] > 0)),  # the model's grow to the back and the left
        upward=bool(unit[2, z] > 0),
        transposed=transposed,
    )


def _check_bytes(path: Path, size: int, name: str) -> None:
    """``size`` bytes of voxels, against what the file holds, or may inflate to."""
    packed = path.stat().st_size
    if path.name.lower().endswith(".gz"):
        if size > inflation_limit(packed):
            what = f"{size / 2**20:.0f} MiB of voxels in {packed / 2**20:.1f} MiB of gzip"
            raise InputError(f"{name}: {what}, more than a CT shrinks; save it unpacked, as .nii")
    elif size > packed:  # nibabel would set the memory aside
        raise InputError(f"{name}: truncated, {packed} bytes for {size} of voxels; save it again")
