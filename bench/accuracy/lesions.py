"""Figures per lesion: how many of those that are meant are found, and how many are predicted that are not meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lsms_rt.calibration.bounds import interval_by_case
from lsms_rt.datasets.matching import total

from .judged import Judged


@dataclass(frozen=True, kw_only=True)
class LesionFigures:
    """Counts and shares of lesions over all sentences; a lesion that two sentences mean counts twice.

    A lesion is a connected piece of a mask; ``datasets.matching`` says which match.  What is predicted for a false
    sentence has no partner.

    Attributes:
        meant: lesions of the true masks.
        predicted: lesions of the predicted masks.
        found: pairs of both that match.
        precision: share of the predicted lesions that match one that is meant; None if none was predicted.
        recall: share of the lesions that are meant and match a predicted one; None if none is meant.
        f1: the harmonic mean of both.
        false_positives_per_slice: predicted lesions that match none, per sentence that a slice is asked.
        intervals: 95 % intervals of the last four by resampling cases.
    """

    meant: int
    predicted: int
    found: int
    precision: float | None
    recall: float | None
    f1: float | None
    false_positives_per_slice: float
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)


def lesion_figures(judged: Sequence[Judged]) -> LesionFigures | None:
    """Return the figures of some answers; None if there are none, or their lesions were not matched."""
    matches = [(one.answer.row.case_id, one.lesions) for one in judged if one.lesions is not None]
    if not matches:
        return None
    sum_ = total(match for _, match in matches)
    # Each share is a mean of ones and zeros, whose cases can be resampled.
    values: dict[str, list[tuple[str, float]]] = {
        "precision": [(case, value) for case, m in matches for value in _hits(m.found, m.false)],
        "recall": [(case, value) for case, m in matches for value in _hits(m.found, m.missed)],
        "f1": [(case, value) for case, m in matches for value in _hits(2 * m.found, m.missed + m.false)],
        "false_positives_per_slice": [(case, float(m.false)) for case, m in matches],
    }
    return LesionFigures(
        meant=sum_.found + sum_.missed,
        predicted=sum_.found + sum_.false,
        found=sum_.found,
        precision=sum_.precision,
        recall=sum_.recall,
        f1=sum_.f1,
        false_positives_per_slice=sum_.false / len(matches),
        intervals={name: interval_by_case(group) for name, group in values.items()},
    )


def _hits(ones: int, zeros: int) -> list[float]:
    return [1.0] * ones + [0.0] * zeros
