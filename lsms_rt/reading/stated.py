"""What the caller states about an input that does not say it itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real

import numpy as np

from lsms_rt.errors import InputError

from .limits import check_spacing

# (level, width) in HU
Window = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Stated:
    """Facts about an input that its file does not hold; without them such an input is rejected, never guessed.

    Attributes:
        window: (level, width) in HU that an 8-bit image shows: 0 and 255 are its ends.
        orientation: "axial": the input is in the usual axial view, the patient's right at the left edge and the front
            at the top.
        rescale: (slope, intercept) that turn stored values into HU.
        spacing: (between rows, between columns) in mm.
        as_one_series: whether DICOM files without a SeriesInstanceUID are slices of one series.

    An input that states one of these facts itself ignores what is stated here.
    """

    window: Window | None = None
    orientation: str | None = None
    rescale: tuple[float, float] | None = None
    spacing: tuple[float, float] | None = None
    as_one_series: bool = False

    @property
    def side_known(self) -> bool:
        """Whether the patient's right is stated."""
        return self.orientation is not None

    def __post_init__(self) -> None:
        if self.window is not None:
            level, width = _pair(self.window, "window", "level and width in HU, e.g. 50 350")
            object.__setattr__(self, "window", (level, width))
            if not (np.isfinite(level) and np.isfinite(width) and width > 0):
                raise InputError(
                    f"window is {level:g}, {width:g}; give level and width in HU, width above 0, e.g. 50 350"
                )
        if self.orientation not in (None, "axial"):
            raise InputError('orientation is none of "axial"; give "axial", or leave it out')
        if self.rescale is not None:
            slope, intercept = _pair(self.rescale, "rescale", "slope and intercept, e.g. 1 -1024")
            object.__setattr__(self, "rescale", (slope, intercept))
            if not (np.isfinite(slope) and np.isfinite(intercept) and slope != 0):
                raise InputError(f"rescale is {slope:g}, {intercept:g}; give slope and intercept, e.g. 1 -1024")
        if self.spacing is not None:
            fix = "mm between rows and between columns, e.g. 0.7 0.7"
            spacing = _pair(self.spacing, "spacing", fix)
            check_spacing(spacing, "its spacing", "what is stated", f"give {fix}")
            object.__setattr__(self, "spacing", spacing)


def _pair(value: object, name: str, fix: str) -> tuple[float, float]:
    """Return two numbers as floats; InputError for anything else."""
    # also the list of numbers of a DICOM header
    values = list(value) if isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, (str, bytes)) else []
    try:
        if len(values) != 2 or not all(_is_number(number) for number in values):
            raise ValueError
        # Small integers and half floats would overflow in what is computed of them.
        return float(values[0]), float(values[1])
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name} is not two numbers; give {fix}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, (Real, Decimal, np.integer, np.floating)) and not isinstance(value, (bool, np.bool_))


NOTHING = Stated()
