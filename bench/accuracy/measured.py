"""What can be measured beyond Dice, by what is installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from lsms_rt.errors import InputError, MissingDependencyError

from .surface import TOLERANCE_MM, TOLERANCES_MM

INSTALL = "pip install 'lsms-rt[metrics]'"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an evaluation measures beyond Dice.

    Attributes:
        lesions: whether lesions are matched.
        tolerance_mm: for the distance of outlines; None if it is not measured.
        left_out: what is not measured and why, for the reader of the figures; "" if all is.
    """

    lesions: bool
    tolerance_mm: float | None
    left_out: str = ""


def measured_with(tolerance_mm: float | None = None) -> Measured:
    """Return what can be measured here.

    Args:
        tolerance_mm: for the distance of outlines; None for ``TOLERANCE_MM``, if the packages are installed.

    Raises:
        InputError: the tolerance is out of range.
        MissingDependencyError: a tolerance is given, and a package is not installed.
    """
    low, high = TOLERANCES_MM
    if tolerance_mm is not None and not low <= tolerance_mm <= high:
        raise InputError(f"a tolerance of {tolerance_mm:g} mm; give {low:g} to {high:g} mm")
    missing = [name for name in ("scipy", "surface_distance") if find_spec(name) is None]
    if not missing:
        return Measured(lesions=True, tolerance_mm=TOLERANCE_MM if tolerance_mm is None else tolerance_mm)
    if tolerance_mm is not None:
        raise MissingDependencyError(f"the distance of outlines needs {missing[0]}; {INSTALL}")
    figures = "figures per lesion and distances of outlines" if "scipy" in missing else "distances of outlines"
    return Measured(
        lesions="scipy" not in missing, tolerance_mm=None, left_out=f"{figures} need {missing[0]}; {INSTALL}"
    )
