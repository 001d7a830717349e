"""From the slices of a series to a volume, and to what is said of the series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lsms_rt.ct_slice import wide_steps
from lsms_rt.writing.answer import Answer


def volume_ml(answers: Sequence[Answer]) -> float | None:
    """Sum of areas times each slice's share of the way between its neighbours, in ml.

    None where a spacing or a place is unknown, for fewer than two slices, and where over a tenth of the steps are gaps:
    that is a series of two spacings.  Any other gap counts as a median step.
    """
    steps, areas = _steps(answers), [answer.record["area_mm2"] for answer in answers]
    if steps is None or not len(steps) or None in areas:
        return None
    wide = wide_steps(steps)
    if np.count_nonzero(wide) > max(1, len(steps) // 10):
        return None
    steps = np.where(wide, np.median(steps), steps)
    thickness = (np.r_[steps[:1], steps] + np.r_[steps, steps[-1:]]) / 2
    return float(np.array(areas, float) @ thickness) / 1000


def gaps(answers: Sequence[Answer]) -> int | None:
    """Steps where slices may be missing.  None where places are unknown."""
    steps = _steps(answers)
    return None if steps is None else int(np.count_nonzero(wide_steps(steps)))


def _steps(answers: Sequence[Answer]) -> np.ndarray | None:
    """mm from slice to slice; None where a place is unknown."""
    places = [answer.ct.position_mm for answer in answers]
    return None if None in places else np.abs(np.diff(np.array(places, float)))


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
        "largest_source": None if largest is None else largest.ct.source,
        "score": max((answer.record["score"] for answer in answers), default=None),
    }
