"""Geometry attributes of a DICOM header: where a frame keeps them, their numbers, and the axial orientation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lsms_rt.errors import InputError
from lsms_rt.reading.limits import MAX_TILT, MAX_TURN

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

# mm: slices that are closer together have the same position
SAME_POSITION_MM = 0.01
# the fix for a malformed or damaged file
EXPORT_AGAIN = "export it again from the scanner or PACS"


def functional_group(ds: Dataset, n: int, name: str) -> Dataset:
    """Return the dataset that holds the attributes of group ``name`` for frame ``n``.

    That is the frame's own functional group, the shared one, or the top level (an image with one frame).
    """
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    shared = ds.get("SharedFunctionalGroupsSequence") or []
    for group in (*per_frame[n : n + 1], *shared[:1]):
        if group.get(name):
            item: Dataset = group[name].value[0]
            return item
    return ds


def numbers(ds: Dataset, name: str, count: int, source: str) -> list[float] | None:
    """Return the ``count`` numbers of an attribute; None if it is absent or empty.

    Raises:
        InputError: another count, not numbers, or not finite.
    """
    try:
        value = ds.get(name)
        if value is None or (hasattr(value, "__len__") and len(value) == 0):
            return None
        values = [float(v) for v in (value if count > 1 else [value])]
    except Exception as error:
        raise InputError(f"{source}: {name} is not a number; {EXPORT_AGAIN}") from error
    if len(values) != count or not np.isfinite(values).all():
        what = f"{name} has {len(values)} values" + (", not all finite" if len(values) == count else "")
        raise InputError(f"{source}: {what}; {count} finite numbers are needed; {EXPORT_AGAIN}")
    return values


def to_axial(iop: list[float], source: str) -> tuple[tuple[bool, bool], bool, NDArray[np.float64]]:
    """Derive the axial orientation from ImageOrientationPatient.

    Patient axes: x to the left, y to the back, z to the head.

    Returns:
        (flips, transposed) as in ``CtSlice``, and the slice's unit normal (3,) that points to the head.

    Raises:
        InputError: the slice is not axial within ``MAX_TILT``, or turned in its plane by ``MAX_TURN`` or more.
    """
    along_row, along_column = directions(iop, source)
    normal = unit_normal(iop)
    if abs(normal[2]) < np.cos(MAX_TILT):
        plane = ("sagittal", "coronal", "oblique")[int(np.argmax(np.abs(normal)))]
        raise InputError(f"{source}: a {plane} slice, only axial ones are supported; give the axial series")
    in_plane = np.abs(along_row[:2]) / np.linalg.norm(along_row[:2])
    if in_plane.max() < np.cos(MAX_TURN):
        angle = np.degrees(np.arccos(in_plane[0]))
        raise InputError(f"{source}: rotated by {angle:.0f} degrees in its plane; give a straight axial series")
    transposed = bool(in_plane[1] > in_plane[0])
    x, y = (along_column[0], along_row[1]) if transposed else (along_row[0], along_column[1])
    return (bool(y < 0), bool(x < 0)), transposed, normal


def directions(iop: Sequence[float], source: str) -> NDArray[np.float64]:
    """Return the directions (2, 3) of growing column number and of growing row number.

    Raises:
        InputError: they are not unit vectors at right angles.
    """
    along_row, along_column = both = np.reshape(iop, (2, 3)).astype(np.float64)
    # the first, so that nothing overflows
    unit = np.abs(both).max() < 2 and np.abs(np.linalg.norm(both, axis=1) - 1).max() <= 0.05
    if not unit or abs(along_row @ along_column) > 0.05:
        raise InputError(f"{source}: ImageOrientationPatient is not two unit vectors at right angles; {EXPORT_AGAIN}")
    return both


def unit_normal(iop: Sequence[float]) -> NDArray[np.float64]:
    """Return the unit normal (3,) of a slice that points to the head, for an orientation that was checked."""
    normal = np.cross(*np.reshape(iop, (2, 3)).astype(np.float64))
    return np.asarray(normal / np.linalg.norm(normal) * (-1 if normal[2] < 0 else 1))
