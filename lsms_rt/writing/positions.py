"""Where the pixels of a slice lie in the patient, as its DICOM header says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.errors import InputError, LsmsError
from lsms_rt.reading.dicom.parse import quiet_pydicom
from lsms_rt.reading.dicom.read import macro, numbers
from lsms_rt.reading.dicom.series import SAME_PLACE_MM

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME_DIRECTION = 1e-3  # between direction cosines; a 512-pixel row ends within half a pixel
SAME_SPACING = 1e-3  # relative
_GEOMETRY = (  # of one frame: functional group, attribute, how many numbers it has
    ("PlanePositionSequence", "ImagePositionPatient", 3),
    ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
    ("PixelMeasuresSequence", "PixelSpacing", 2),
)


@dataclass(frozen=True, eq=False)
class Place:
    """One frame in patient coordinates: x to the left, y to the back, z to the head, in mm.

    origin (3,): the centre of the first pixel.  along_row, along_column (3,): unit vectors of growing column number
    and of growing row number.  spacing_mm: (between rows, between columns).  thickness_mm: None if unknown.
    """

    origin: NDArray[np.float64]
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    thickness_mm: float | None

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,), unit vector at right angles to the frame, the one that points to the head rather than to the feet."""
        normal = np.cross(self.along_row, self.along_column)
        return np.asarray(normal / np.linalg.norm(normal) * (-1 if normal[2] < 0 else 1))

    @property
    def cosines(self) -> NDArray[np.float64]:
        """(6,), as ImageOrientationPatient has them."""
        return np.concatenate([self.along_row, self.along_column])


def place_of(header: Any, frame: int, source: str) -> Place:
    """The place of frame ``frame`` (from 0) of a header; InputError names what is absent or malformed."""
    with quiet_pydicom():
        try:
            values = [numbers(macro(header, frame, group), name, n, source) for group, name, n in _GEOMETRY]
            thickness = numbers(macro(header, frame, "PixelMeasuresSequence"), "SliceThickness", 1, source)
        except LsmsError:
            raise
        except Exception as error:  # pydicom raises almost anything, some texts holding values
            kind = type(error).__name__
            raise InputError(f"{source}: malformed DICOM header ({kind}); export the image again") from error
    position, orientation, spacing = values
    if position is None or orientation is None or spacing is None:
        absent = [name for (_, name, _), value in zip(_GEOMETRY, values, strict=True) if value is None]
        raise InputError(f"{source}: {', '.join(absent)} absent, a mask cannot be placed; export the image again")
    return Place(
        np.array(position),
        np.array(orientation[:3]),
        np.array(orientation[3:]),
        (spacing[0], spacing[1]),
        thickness[0] if thickness and thickness[0] > 0 else None,
    )


def check_one_stack(places: Sequence[Place]) -> None:
    """InputError unless all frames have one orientation and spacing, and no two lie at the same place."""
    first = places[0]
    turned = sum(np.abs(place.cosines - first.cosines).max() > SAME_DIRECTION for place in places)
    scaled = sum(not np.allclose(place.spacing_mm, first.spacing_mm, rtol=SAME_SPACING, atol=0) for place in places)
    if turned or scaled:
        what = "ImageOrientationPatient" if turned else "PixelSpacing"
        raise InputError(f"{what} of {turned or scaled} of {len(places)} slices is not the first's; write them apart")
    steps = np.diff(np.sort([first.normal @ place.origin for place in places]))
    same = int(np.count_nonzero(steps < SAME_PLACE_MM))
    if same:
        raise InputError(f"{same} of {len(places)} slices lie where another does; write each phase apart")


def thickness_of(places: Sequence[Place]) -> float | None:
    """mm that a slice of a stack stands for: as its header says, or the least step to another; None if neither is."""
    if places[0].thickness_mm is not None or len(places) < 2:
        return places[0].thickness_mm
    return float(np.diff(np.sort([places[0].normal @ place.origin for place in places])).min())
