"""Read a NIfTI file as axial slices; the affine defines orientation and spacing."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsms_rt.ct_slice import CtSlice, VolumeGrid, check_shape, slice_from_array
from lsms_rt.errors import InputError, LsmsError, MissingDependencyError

from .environment import raise_if_machine
from .limits import MAX_SLICES, MAX_TILT, MAX_TURN, MAX_VOXELS, check_spacing, pixel_limit
from .stated import NOTHING, Stated

# mm per unit of the affine; a file that names no unit is in mm
_MM = {"meter": 1e3, "micron": 1e-3}
_CONVERT = "convert it again, e.g. with dcm2niix"
# rad, and relative: sform and qform may differ so much, by rounding and by small alignments
_MAX_TURNED, _SAME_SIZE = 0.1, 0.01
# mm between slices
_MAX_STEP = 1000.0


class _Axes(NamedTuple):
    """The meaning of a file's axes: ``z`` counts slices, rows and columns are those of the model's frame.

    Attributes:
        z: the axis of the array that counts slices.
        spacing: mm (between rows, between columns).
        step: mm between slices along their normal.
        flips: whether (rows, columns) are reversed.
        upward: whether slices run from feet to head.
        transposed: whether rows and columns are swapped.
    """

    z: int
    spacing: tuple[float, float]
    step: float
    flips: tuple[bool, bool]
    upward: bool
    transposed: bool


def read_nifti(path: Path, name: str, stated: Stated = NOTHING, *, trusted: bool = False) -> list[CtSlice]:
    """Read all slices, from feet to head.

    Args:
        path: a .nii or .nii.gz file.
        name: the file's name in messages.
        stated: facts that it does not hold.  In an axial view, the array's first axis runs to the patient's left, the
            second to the back, and the third to the head.
        trusted: accept a file that compresses more than a CT image does, as labels do.

    Raises:
        InputError: not an axial volume with one affine, or over a limit.
        MissingDependencyError: nibabel is not installed.
    """
    try:
        nibabel: Any = importlib.import_module("nibabel")
    except ImportError as error:
        raise MissingDependencyError(f"{name}: reading NIfTI needs nibabel; pip install nibabel") from error
    try:
        # nibabel does not say why it cannot open a file.
        path.open("rb").close()
        # Not memory-mapped, since another process may shorten the file; open, or each slice would inflate it again.
        image = nibabel.load(path, mmap=False, keep_file_open=True)
        shape = (*image.shape, 1)[:3] if len(image.shape) == 2 else tuple(image.shape)
        if len(shape) != 3 or not 1 <= np.prod(shape, dtype=float) <= MAX_VOXELS:
            raise InputError(f"{name}: shape {image.shape} is not a CT volume; give 2 or 3 axes, at most 2**30 voxels")
        affine = _affine(image, name, stated)
        units = image.header.get_xyzt_units()[0]
        axes = _axes(affine, _MM.get(units, 1.0), name)
        first, second = (n for n in range(3) if n != axes.z)
        check_shape(shape[first], shape[second], name)
        if shape[axes.z] > MAX_SLICES:
            raise InputError(f"{name}: {shape[axes.z]} slices, over the limit of {MAX_SLICES}; split the volume")
        _check_bytes(path, math.prod(shape), image.get_data_dtype().itemsize, name, trusted)
        grid = VolumeGrid(tuple(image.shape), affine, axes.z, units)
        slices = [_slice(plane, n, axes, grid, name) for n, plane in enumerate(_planes(image, shape, axes.z))]
    except LsmsError:
        raise
    except Exception as error:
        raise_if_machine(error, name)
        # nibabel raises ImageFileError, OSError, EOFError, ValueError, zlib.error ...
        kind = type(error).__name__
        raise InputError(f"{name}: not a readable NIfTI file ({kind}); {_CONVERT}") from error
    return slices if axes.upward else slices[::-1]


def _planes(image: Any, shape: tuple[int, ...], z: int) -> Iterator[NDArray[np.float32]]:
    """Yield the slices in the file's order; where it stores them one after the other, only one is in memory."""
    if z == 2 and len(image.shape) == 3:
        for n in range(shape[2]):
            yield np.asarray(image.dataobj[..., n], np.float32)
    else:
        yield from np.moveaxis(np.asarray(image.dataobj, np.float32).reshape(shape), z, 0)


def _slice(plane: NDArray[np.float32], n: int, axes: _Axes, grid: VolumeGrid, name: str) -> CtSlice:
    """Turn slice ``n`` of the file into the model's frame."""
    count = (*grid.shape, 1)[axes.z]
    return slice_from_array(
        CtSlice.to_model_frame(plane, axes.flips, axes.transposed), name, frame=n, grid=grid,
        position_mm=(n if axes.upward else count - 1 - n) * axes.step,
        spacing_mm=axes.spacing, flips=axes.flips, transposed=axes.transposed, side_known=True,
    )  # fmt: skip


def _affine(image: Any, name: str, stated: Stated) -> NDArray[np.float64]:
    """Return the affine (4, 4) from voxels to RAS coordinates, in the file's units: sform, qform, or as stated."""
    sform, qform = (int(image.header.get(f"{kind}form_code", 1)) > 0 for kind in "sq")
    if sform and qform and _contradict(image.get_sform(), image.get_qform()):
        fix = "keep the right one, e.g. with nibabel: image.set_qform(image.get_sform(), code=1)"
        raise InputError(f"{name}: sform and qform contradict each other, so left and right are uncertain; {fix}")
    if sform or qform:
        return np.asarray(image.affine, np.float64)
    if stated.orientation == "axial":
        zooms = (*image.header.get_zooms(), 1.0)[:3]
        return np.diag([-float(zooms[0]), -float(zooms[1]), float(zooms[2]), 1.0])
    fix = 'if you know that it is in the usual axial view, state --orientation axial (orientation="axial" in Python)'
    raise InputError(f"{name}: no sform and no qform, so left and right are unknown; {_CONVERT}, or {fix}")


def _contradict(sform: NDArray[np.float64], qform: NDArray[np.float64]) -> bool:
    """Return whether two affines differ in a voxel size or in the direction of an axis.

    Their origins may differ, since slices are placed relative to each other.
    """
    lengths = [np.linalg.norm(affine[:3, :3], axis=0) for affine in (sform, qform)]
    if not all(np.isfinite(length).all() and min(length) > 0 for length in lengths):
        return True
    s, q = (affine[:3, :3] / length for affine, length in zip((sform, qform), lengths, strict=True))
    # A qform cannot represent the shear of a tilted gantry, and is turned by a part of it.
    shear = np.arcsin(np.clip(np.abs(s.T @ s - np.eye(3)).max(), 0, 1))
    turned = np.arccos(np.clip((s * q).sum(axis=0), -1, 1)).max()
    return bool(turned > _MAX_TURNED + shear or not np.allclose(lengths[0], lengths[1], rtol=_SAME_SIZE, atol=0))


def _axes(affine: NDArray[np.float64], millimeters: float, name: str) -> _Axes:
    """Derive the meaning of the axes from the affine, whose columns are the steps along them in RAS coordinates."""
    steps = affine[:3, :3] * millimeters
    sizes = np.linalg.norm(steps, axis=0)
    if not np.isfinite(sizes).all() or min(sizes) <= 0:
        raise InputError(f"{name}: voxel sizes are not all finite and above 0 mm; {_CONVERT}")
    unit = steps / sizes
    z = int(np.argmax(np.abs(unit[2])))
    first, second = (n for n in range(3) if n != z)
    normal = np.cross(unit[:, first], unit[:, second])
    length = float(np.linalg.norm(normal))
    in_plane = np.abs(unit[:2, first])
    straight = length > 0.99 and abs(normal[2]) / length >= np.cos(MAX_TILT)
    if not straight or in_plane.max() < np.cos(MAX_TURN) * np.linalg.norm(unit[:2, first]):
        raise InputError(f"{name}: an oblique volume, only axial ones are supported; resample it to axial slices")
    # The array's first axis runs along x; the model's columns do.
    transposed = bool(in_plane[0] > in_plane[1])
    y, x = (second, first) if transposed else (first, second)
    spacing, step = (float(sizes[y]), float(sizes[x])), abs(float(normal @ steps[:, z])) / length
    check_spacing(spacing, "the voxel size in a slice", name, _CONVERT)
    if not step <= _MAX_STEP:
        raise InputError(f"{name}: slices are {step:g} mm apart, over the limit of {_MAX_STEP:g} mm; {_CONVERT}")
    return _Axes(
        z,
        spacing=spacing,
        step=step,
        # the model's rows run to the back and its columns to the left
        flips=(bool(unit[1, y] > 0), bool(unit[0, x] > 0)),
        upward=bool(unit[2, z] > 0),
        transposed=transposed,
    )


def _check_bytes(path: Path, voxels: int, itemsize: int, name: str, trusted: bool) -> None:
    """Compare the voxels with the bytes that the file has, or may inflate to."""
    packed = path.stat().st_size
    if path.name.lower().endswith(".gz"):
        if not trusted and voxels > pixel_limit(packed):
            what = f"{voxels} voxels in {packed / 2**20:.1f} MiB of gzip, more than a CT image compresses"
            raise InputError(f"{name}: {what}; save it uncompressed, as .nii")
    elif voxels * itemsize > packed:
        # nibabel would allocate the memory up front
        what = f"{packed} bytes for {voxels * itemsize} bytes of voxels"
        raise InputError(f"{name}: truncated, {what}; copy or convert it again")
