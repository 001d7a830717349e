"""Summary of a series (volume, gaps, largest cross-section), and the lines that are printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lsms_rt.ct_slice import wide_steps
from lsms_rt.writing.answer import Answer

# Up to this many slices, slices without a finding are listed as well.
MAX_LISTED = 20


def series_summary(number: int, answers: Sequence[Answer]) -> dict[str, Any]:
    """Summarize one input.

    Args:
        number: the input's number, from 1.
        answers: its slices' answers, from feet to head.

    Returns:
        A row of ``series`` in results.json: ``slices``; in how many something was ``found``; ``gaps``, steps between
        slices that are too wide; ``volume_ml``; number and file of the slice with the largest cross-section
        (``largest``, ``largest_source``); the highest ``score``.
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


def volume_ml(answers: Sequence[Answer]) -> float | None:
    """Return the volume in ml: each slice's area times half the distance between its two neighbors.

    Returns None if a spacing or a position is unknown, for fewer than two slices, and if over a tenth of the steps are
    gaps: that is a series of two spacings.  Any other gap counts as a median step.
    """
    steps, areas = _steps_mm(answers), [answer.record["area_mm2"] for answer in answers]
    if steps is None or not len(steps) or None in areas:
        return None
    wide = wide_steps(steps)
    if np.count_nonzero(wide) > max(1, len(steps) // 10):
        return None
    steps = np.where(wide, np.median(steps), steps)
    thickness = (np.r_[steps[:1], steps] + np.r_[steps, steps[-1:]]) / 2
    return float(np.array(areas, float) @ thickness) / 1000


def gaps(answers: Sequence[Answer]) -> int | None:
    """Return the number of steps at which slices may be missing; None if positions are unknown."""
    steps = _steps_mm(answers)
    return None if steps is None else int(np.count_nonzero(wide_steps(steps)))


def _steps_mm(answers: Sequence[Answer]) -> np.ndarray | None:
    """Return the distances between neighboring slices; None if a position is unknown."""
    positions = [answer.ct.position_mm for answer in answers]
    return None if None in positions else np.abs(np.diff(np.array(positions, float)))


def lines(results: Sequence[dict[str, Any]], series: Sequence[dict[str, Any]]) -> list[str]:
    """Return one line per slice if something was found or there are few slices, then one line per series."""
    text = [_slice_line(record) for record in results if record["found"] or len(results) <= MAX_LISTED]
    several = len(series) > 1
    return text + [_series_line(row, several) for row in series if row["slices"] > 1 or several]


def _slice_line(record: dict[str, Any]) -> str:
    name = f"{record['number']:4d}  {record['source']}" + (f" [{record['frame']}]" if record["frame"] else "")
    if not record["found"]:
        score, threshold = record["score"], record["confidence"]
        if score >= threshold:
            # It was found on the network's grid, which is finer than the image's.
            return f"{name}: nothing found (smaller than a pixel, lost when resampled)"
        return f"{name}: nothing found (highest probability {score:.4f}, threshold {threshold:.4f})"
    area = f"{record['area_mm2']:.0f} mm2" if record["area_mm2"] is not None else f"{record['pixels']} pixels"
    return f"{name}: found, {area}, mean {record['mean_hu']:.0f} HU, score {record['score']:.2f}, box {record['bbox']}"


def _series_line(row: dict[str, Any], numbered: bool) -> str:
    name = f"input {row['input']}: " if numbered else ""
    if not row["found"]:
        return f"{name}nothing found in {row['slices']} slices"
    volume = "" if row["volume_ml"] is None else f", {row['volume_ml']:.2f} ml"
    largest = f"largest cross-section in slice {row['largest']} ({row['largest_source']})"
    return f"{name}found in {row['found']} of {row['slices']} slices{volume}, {largest}"
