"""The position of a frame's pixels in the patient, from its DICOM header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.errors import InputError, LsmsError
from lsms_rt.reading.dicom.geometry import EXPORT_AGAIN, SAME_POSITION_MM, functional_group, numbers
from lsms_rt.reading.quiet import quiet_pydicom

if TYPE_CHECKING:
    from numpy.typing import NDArray

# tolerance of direction cosines: a 512-pixel row then ends within half a pixel
SAME_DIRECTION = 1e-3
# relative tolerance
SAME_SPACING = 1e-3
# of one frame: functional group, attribute, its count of numbers
_GEOMETRY = (
    ("PlanePositionSequence", "ImagePositionPatient", 3),
    ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
    ("PixelMeasuresSequence", "PixelSpacing", 2),
)


@dataclass(frozen=True, eq=False)
class FramePosition:
    """One frame in patient coordinates: x to the left, y to the back, z to the head, in mm.

    Attributes:
        origin: (3,), the center of the first pixel.
        along_row: (3,), unit vector of growing column number.
        along_column: (3,), unit vector of growing row number.
        spacing_mm: (between rows, between columns).
        thickness_mm: slice thickness; None if unknown.
    """

    origin: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    thickness_mm: float | None

    @property
    def normal(self) -> NDArray[np.float64]:
        """Return the unit normal (3,) of the frame that points to the head."""
        normal = np.cross(self.along_row, self.along_column)
        return np.asarray(normal / np.linalg.norm(normal) * (-1 if normal[2] < 0 else 1))

    @property
    def cosines(self) -> NDArray[np.float64]:
        """Return the direction cosines (6,) in the order of ImageOrientationPatient."""
        return np.concatenate([self.along_row, self.along_column])


def position_of(header: Any, frame: int, source: str) -> FramePosition:
    """Return the position of frame ``frame`` (from 0) of a header; InputError for absent or malformed attributes."""
    with quiet_pydicom():
        try:
            values = [numbers(functional_group(header, frame, group), name, n, source) for group, name, n in _GEOMETRY]
            thickness = numbers(functional_group(header, frame, "PixelMeasuresSequence"), "SliceThickness", 1, source)
        except LsmsError:
            raise
        except Exception as error:
            # pydicom raises almost any class; its texts may contain values
            kind = type(error).__name__
            raise InputError(f"{source}: malformed DICOM header ({kind}); {EXPORT_AGAIN}") from error
    position, orientation, spacing = values
    if position is None or orientation is None or spacing is None:
        absent = [name for (_, name, _), value in zip(_GEOMETRY, values, strict=True) if value is None]
        raise InputError(f"{source}: {', '.join(absent)} absent, so its mask cannot be positioned; {EXPORT_AGAIN}")
    return FramePosition(
        np.array(position),
        _unit(orientation[:3]),
        _unit(orientation[3:]),
        (spacing[0], spacing[1]),
        thickness[0] if thickness and thickness[0] > 0 else None,
    )


def _unit(axis: list[float]) -> NDArray[np.float64]:
    """Scale an axis to a length of 1: a pixel's size is in its spacing alone.  Rounded cosines stay as written."""
    vector = np.array(axis)
    length = float(np.linalg.norm(vector))
    return vector if abs(length - 1) < SAME_DIRECTION else vector / length


def check_one_stack(positions: Sequence[FramePosition]) -> None:
    """Raise InputError unless all frames have one orientation and spacing, and distinct positions."""
    first = positions[0]
    turned = sum(np.abs(p.cosines - first.cosines).max() > SAME_DIRECTION for p in positions)
    scaled = sum(not np.allclose(p.spacing_mm, first.spacing_mm, rtol=SAME_SPACING, atol=0) for p in positions)
    if turned or scaled:
        what = "ImageOrientationPatient" if turned else "PixelSpacing"
        count = f"{turned or scaled} of {len(positions)} slices"
        raise InputError(f"{what} of {count} differs from the first slice's; write each stack separately")
    steps = np.diff(np.sort([first.normal @ p.origin for p in positions]))
    same = int(np.count_nonzero(steps < SAME_POSITION_MM))
    if same:
        raise InputError(f"{same} of {len(positions)} slices have duplicate positions; write each phase separately")


def thickness_of(positions: Sequence[FramePosition]) -> float | None:
    """Return the slice thickness in mm: the header's, or else the smallest step between slices; None for one slice."""
    if positions[0].thickness_mm is not None or len(positions) < 2:
        return positions[0].thickness_mm
    return float(np.diff(np.sort([positions[0].normal @ p.origin for p in positions])).min())
