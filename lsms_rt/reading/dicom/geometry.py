"""Geometry attributes of a DICOM header: where a frame keeps them, their numbers, and the axial orientation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lsms_rt.errors import InputError
from lsms_rt.reading.limits import MAX_POSITION, MAX_TILT, MAX_TURN, check_spacing
from lsms_rt.reading.stated import Stated

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

# mm: slices that are closer together have the same position
SAME_POSITION_MM = 0.01
# the fix for a malformed or damaged file
EXPORT_AGAIN = "export it again from the scanner or PACS"
# tags of PerFrameFunctionalGroupsSequence and SharedFunctionalGroupsSequence
_PER_FRAME_GROUPS, _SHARED_GROUPS = 0x52009230, 0x52009229
# letters of PatientOrientation -> unit vectors, as in ImageOrientationPatient
_DIRECTIONS = {
    "L": (1.0, 0.0, 0.0), "R": (-1.0, 0.0, 0.0), "P": (0.0, 1.0, 0.0), "A": (0.0, -1.0, 0.0),
    "H": (0.0, 0.0, 1.0), "F": (0.0, 0.0, -1.0),
}  # fmt: skip


def functional_group(ds: Dataset, n: int, name: str) -> Dataset:
    """Return the dataset that holds the attributes of group ``name`` for frame ``n``.

    That is the frame's own functional group, the shared one, or the top level (an image with one frame).
    """
    # Most files have none, and pydicom looks slowly for a name that is absent.
    if _PER_FRAME_GROUPS not in ds and _SHARED_GROUPS not in ds:
        return ds
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


def orientation_of(ds: Dataset, n: int, source: str, stated: Stated, notes: list[str]) -> list[float]:
    """Return the direction cosines (6,) of frame ``n``.

    They are those of ImageOrientationPatient, or else of PatientOrientation, or else of what is ``stated``, with a
    note.  PatientPosition is not used: it says how the patient lay, not how the pixels are stored.

    Raises:
        InputError: none of them tells the orientation, or two contradict each other.
    """
    cosines = numbers(functional_group(ds, n, "PlaneOrientationSequence"), "ImageOrientationPatient", 6, source)
    letters = _patient_orientation(ds)
    axes = [_DIRECTIONS[text[0]] for text in letters]
    if cosines is not None:
        # The first letter is the largest component of a unit vector, so at least 0.57.
        if any(np.dot(axis, cosines[at : at + 3]) < 0.5 for axis, at in zip(axes, (0, 3), strict=False)):
            what = "ImageOrientationPatient and PatientOrientation contradict each other"
            raise InputError(f"{source}: {what}, so left and right are uncertain; {EXPORT_AGAIN}")
        return cosines
    missing = "ImageOrientationPatient is missing"
    # Two letters are an angle of any size.
    if axes and all(len(text) == 1 for text in letters):
        notes.append(f"{missing}: PatientOrientation is used")
        return [*axes[0], *axes[1]]
    if stated.orientation == "axial":
        usual = (_DIRECTIONS["L"], _DIRECTIONS["P"])
        if any(np.dot(axis, side) < 0.5 for axis, side in zip(axes, usual, strict=False)):
            what = "PatientOrientation contradicts the stated orientation"
            raise InputError(f"{source}: {what}, so left and right are uncertain; {EXPORT_AGAIN}")
        notes.append(f"{missing}: the usual axial view is taken, as stated")
        return [*_DIRECTIONS["L"], *_DIRECTIONS["P"]]
    fix = 'if you know that it is in the usual axial view, state --orientation axial (orientation="axial" in Python)'
    raise InputError(f"{source}: {missing}, so left and right are unknown; {EXPORT_AGAIN}, or {fix}")


def _patient_orientation(ds: Dataset) -> list[str]:
    """Return the letters of PatientOrientation for rows and columns; empty if it is absent or of other terms."""
    value = ds.get("PatientOrientation")
    texts = [value] if isinstance(value, str) else [str(text).strip().upper() for text in value or []]
    known = len(texts) == 2 and all(text and set(text) <= set(_DIRECTIONS) for text in texts)
    # Of animals the same letters are other directions.
    return texts if known and ds.get("AnatomicalOrientationType") != "QUADRUPED" else []


def image_position(ds: Dataset, n: int, source: str) -> list[float] | None:
    """Return ImagePositionPatient (3,) of frame ``n`` in mm; None if absent, InputError if implausible."""
    position = numbers(functional_group(ds, n, "PlanePositionSequence"), "ImagePositionPatient", 3, source)
    if position and max(map(abs, position)) > MAX_POSITION:
        what = f"ImagePositionPatient is over {MAX_POSITION / 1000:.0f} m from the origin"
        raise InputError(f"{source}: {what}; {EXPORT_AGAIN}")
    return position


def spacing_of(ds: Dataset, n: int, source: str, stated: Stated, notes: list[str]) -> list[float] | None:
    """Return PixelSpacing (between rows, between columns) of frame ``n`` in mm.

    If it is absent, it is what is ``stated``, or else None, with a note.

    Raises:
        InputError: it is implausible; or it is absent and PixelAspectRatio contradicts square or the stated pixels.
    """
    spacing = numbers(functional_group(ds, n, "PixelMeasuresSequence"), "PixelSpacing", 2, source)
    if spacing is not None:
        check_spacing(spacing, "PixelSpacing", source, EXPORT_AGAIN)
        return spacing
    aspect = numbers(ds, "PixelAspectRatio", 2, source)
    if stated.spacing is not None:
        height, width = stated.spacing
        if aspect is not None and abs(aspect[0] * width - aspect[1] * height) > 0.01 * aspect[1] * height:
            what = f"PixelAspectRatio is {aspect[0]:g}:{aspect[1]:g}, which contradicts the stated spacing"
            raise InputError(f"{source}: {what}; {EXPORT_AGAIN} with PixelSpacing")
        notes.append("PixelSpacing is missing: the stated spacing is used")
        return [height, width]
    if aspect is not None and aspect[0] != aspect[1]:
        what = f"PixelSpacing is missing, and PixelAspectRatio is {aspect[0]:g}:{aspect[1]:g}, not 1:1"
        raise InputError(f"{source}: {what}; {EXPORT_AGAIN} with PixelSpacing")
    notes.append("PixelSpacing is missing: areas in mm2 are unknown")
    return None


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
