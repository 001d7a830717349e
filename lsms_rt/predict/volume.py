"""From the slices of a series to a volume, and to what is said of the series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .answer import Answer

GAP = 1.5  # times the median step: slices are missing there, and nothing is made up for them


def volume_ml(answers: Sequence[Answer]) -> float | None:
    """Sum of areas times each slice's share of the way between its neighbours, in ml.

    None where a spacing or a place is unknown, for fewer than two slices, and where over a tenth of the steps are gaps:
    that is a series of two spacings.  Any other step over ``GAP`` times the median counts as a median one.
    """
    places = [answer.slice.position_mm for answer in answers]
    areas = [answer.record["area_mm2"] for answer in answers]
    if len(answers) < 2 or None in places or None in areas:
        return None
    steps = np.abs(np.diff(np.array(places, float)))
    median = float(np.median(steps))
    wide = steps > GAP * median
    if np.count_nonzero(wide) > max(1, len(steps) // 10):
        return None
    steps = np.where(wide, median, steps)
    thickness = (np.r_[steps[:1], steps] + np.r_[steps, steps[-1:]]) / 2
    return float(np.array(areas, float) @ thickness) / 1000


def gaps(answers: Sequence[Answer]) -> int | None:
    """Steps that are over ``GAP`` times the median: slices may be missing there.  None where places are unknown."""
    places = [answer.slice.position_mm for answer in answers]
    if None in places:
        return None
    steps = np.abs(np.diff(np.array(places, float)))
    return int(np.count_nonzero(steps > GAP * np.median(steps))) if len(steps) else 0


def summary(number: int, answers: Sequence[Answer]) -> dict[str, Any]:
    """Of input ``number``: slices, in how many something was found, ``volume_ml``, and the slice with most of it.

    ``gaps`` counts steps between slices that are too wide, ``largest_source`` is what that slice's file is called.
    """
    found = [answer for answer in answers if answer.found]
    volume = volume_ml(answers)
    largest = max(found, key=lambda answer: int(answer.mask.sum()), default=None)
    return {
        "input": number,
        "slices": len(answers),
        "found": len(found),
        "gaps": gaps(answers),
        "volume_ml": None if volume is None else round(volume, 3),
        "largest": None if largest is None else largest.record["number"],
        "largest_source": None if largest is None else largest.slice.source,
        "score": max((answer.record["score"] for answer in answers), default=None),
    }
