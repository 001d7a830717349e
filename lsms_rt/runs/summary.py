"""Summary of a series: volume, gaps, largest cross-section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lsms_rt.ct_slice import wide_steps
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.writing import measures
from lsms_rt.writing.answer import Answer


def series_summary(
    number: int, answers: Sequence[Answer], left_out: LeftOut | None = None, not_computed: int = 0, sentence: int = 1
) -> dict[str, Any]:
    """Summarize the answers to one sentence for one input.

    Args:
        number: the input's number, from 1.
        answers: its slices' answers, from feet to head.
        left_out: what was left out when it was read; None for nothing.
        not_computed: number of slices that were read and have no answer.
        sentence: the sentence's number, from 1.

    Returns:
        A row of ``series`` in results.json: ``slices``; in how many something was ``found``; ``gaps``, steps between
        slices that are too wide; ``volume_ml``; number, name and file of the slice with the largest cross-section
        (``largest``, ``largest_slice``, ``largest_source``); the highest ``score``; how many files or slices were
        ``not_read`` and ``not_computed``, and their sum ``incomplete``; how many files were skipped, being
        ``not_dicom`` or ``not_ct``.
        The volume of an incomplete series is unknown.
    """
    left_out = LeftOut() if left_out is None else left_out
    incomplete = len(left_out.damaged) + not_computed
    found = [answer for answer in answers if answer.found]
    volume = None if incomplete else volume_ml(answers)
    largest = max(found, key=lambda answer: int(answer.mask.sum()), default=None)
    return {
        "input": number,
        "sentence": sentence,
        "slices": len(answers),
        "found": len(found),
        "gaps": gaps(answers),
        "volume_ml": None if volume is None else round(volume, 3),
        "largest": None if largest is None else largest.record["number"],
        "largest_slice": None if largest is None else largest.record["slice"],
        "largest_source": None if largest is None else largest.ct.source,
        "score": max((answer.record["score"] for answer in answers), default=None),
        "not_read": len(left_out.damaged),
        "not_computed": not_computed,
        "incomplete": incomplete,
        "not_dicom": left_out.not_dicom,
        "not_ct": left_out.not_ct,
    }


def volume_ml(answers: Sequence[Answer]) -> float | None:
    """Return the volume in ml, see :func:`lsms_rt.writing.measures.volume_ml`; None if it is unknown."""
    positions = [answer.ct.position_mm for answer in answers]
    return measures.volume_ml(positions, [answer.record["area_mm2"] for answer in answers])


def gaps(answers: Sequence[Answer]) -> int | None:
    """Return the number of steps at which slices may be missing; None if positions are unknown."""
    steps = _steps_mm(answers)
    return None if steps is None else int(np.count_nonzero(wide_steps(steps)))


def _steps_mm(answers: Sequence[Answer]) -> np.ndarray | None:
    """Return the distances between neighboring slices; None if a position is unknown."""
    positions = [answer.ct.position_mm for answer in answers]
    return None if None in positions else np.abs(np.diff(np.array(positions, float)))
