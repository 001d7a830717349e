"""Summary of a series (volume, gaps, largest cross-section), and the lines that are printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lsms_rt.ct_slice import wide_steps
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.writing import measures
from lsms_rt.writing.answer import Answer
from lsms_rt.writing.caption import incomplete_text

# Up to this many slices, slices without a finding are listed as well.
MAX_LISTED = 20


def series_summary(
    number: int, answers: Sequence[Answer], left_out: LeftOut | None = None, not_computed: int = 0
) -> dict[str, Any]:
    """Summarize one input.

    Args:
        number: the input's number, from 1.
        answers: its slices' answers, from feet to head.
        left_out: what was left out when it was read; None for nothing.
        not_computed: number of slices that were read and have no answer.

    Returns:
        A row of ``series`` in results.json: ``slices``; in how many something was ``found``; ``gaps``, steps between
        slices that are too wide; ``volume_ml``; number and file of the slice with the largest cross-section
        (``largest``, ``largest_source``); the highest ``score``; how many files or slices were ``not_read`` and
        ``not_computed``, and their sum ``incomplete``; how many files were skipped, being ``not_dicom`` or ``not_ct``.
        The volume of an incomplete series is unknown.
    """
    left_out = LeftOut() if left_out is None else left_out
    incomplete = len(left_out.damaged) + not_computed
    found = [answer for answer in answers if answer.found]
    volume = None if incomplete else volume_ml(answers)
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


def lines(results: Sequence[dict[str, Any]], series: Sequence[dict[str, Any]], several: bool = False) -> list[str]:
    """Return one line per slice if something was found or there are few slices, then one line per series.

    Args:
        results: records of slices.
        series: rows of :func:`series_summary`.
        several: whether several inputs were given; every line then begins with the number of its input.
    """
    text = [_slice_line(record, several) for record in results if record["found"] or len(results) <= MAX_LISTED]
    return text + [_series_line(row, several) for row in series if row["slices"] > 1 or row["incomplete"] or several]


def _slice_line(record: dict[str, Any], several: bool) -> str:
    frame = f" [{record['frame']}]" if record["frame"] else ""
    name = f"{_input_name(record, several)}{record['number']:4d}  {record['source']}{frame}"
    if not record["found"]:
        score, threshold = record["score"], record["confidence"]
        if score >= threshold:
            # It was found on the network's grid, which is finer than the image's.
            return f"{name}: nothing found (smaller than a pixel, lost when resampled)"
        return f"{name}: nothing found (highest probability {score:.4f}, threshold {threshold:.4f})"
    area = f"{record['area_mm2']:.0f} mm2" if record["area_mm2"] is not None else f"{record['pixels']} pixels"
    return f"{name}: found, {area}, mean {record['mean_hu']:.0f} HU, score {record['score']:.2f}, box {record['bbox']}"


def _series_line(row: dict[str, Any], several: bool) -> str:
    name = _input_name(row, several)
    end = f"; {incomplete_text(row['incomplete'])}" if row["incomplete"] else ""
    if not row["found"]:
        return f"{name}nothing found in {row['slices']} slices{end}"
    volume = "" if row["volume_ml"] is None else f", {row['volume_ml']:.2f} ml"
    largest = f"largest cross-section in slice {row['largest']} ({row['largest_source']})"
    return f"{name}found in {row['found']} of {row['slices']} slices{volume}, {largest}{end}"


def _input_name(row: dict[str, Any], several: bool) -> str:
    return f"input {row['input']}: " if several else ""
