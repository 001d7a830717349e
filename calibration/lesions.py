"""Lesions that reference and engine find, piece by piece.  The gate reports them; it does not decide by them.

Its decision counts what an engine newly misses and newly predicts against exact bounds, which these shares do not have:
lost and gained lesions cancel in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lsms_rt.datasets.matching import Matched, total
from lsms_rt.datasets.questions import Answer

from .statistics import FOUND_DICE


@dataclass(frozen=True, kw_only=True)
class LesionWise:
    """Figures of one of the two.

    Attributes:
        hit_rate: share of the positive sentences with a Dice of at least FOUND_DICE; None if there are none.
        precision, recall, f1: per lesion, as ``datasets.matching`` matches them; None of none.
        false: predicted lesions that match none.
    """

    hit_rate: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    false: int


@dataclass(frozen=True, kw_only=True)
class LesionsCompared:
    """The figures of reference and engine, over the same sentences."""

    reference: LesionWise
    engine: LesionWise

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return asdict(self)


def lesion_wise(answers: Sequence[Answer], matches: Sequence[Matched]) -> LesionWise:
    """Return the figures of some answers and of the lesions in their masks."""
    sum_, positive = total(matches), [answer for answer in answers if answer.target_nonempty]
    hits = sum(answer.dice >= FOUND_DICE for answer in positive)
    return LesionWise(
        hit_rate=hits / len(positive) if positive else None,
        precision=sum_.precision,
        recall=sum_.recall,
        f1=sum_.f1,
        false=sum_.false,
    )
