"""Two sets of answers to the same questions: what a reference saw, and what an engine sees of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lsms_rt.datasets.questions import Answer

SMALL_MM = 10.0  # diameter of a disc of the lesion's area
LEAST_DICE = 0.1  # of the reference itself; below it, there is nothing to lose and so nothing to judge
LEAST_SENTENCES, LEAST_EMPTY = 10, 10  # true of something, and of nothing
RESAMPLES = 2000  # of the cases, for the interval of the mean drop


@dataclass(frozen=True)
class Dice:
    """Mean Dice with the truth, of the reference and of the engine, over ``n`` sentences that are true of something."""

    n: int
    reference: float
    engine: float

    @property
    def drop(self) -> float:
        return self.reference - self.engine


@dataclass(frozen=True)
class Emptiness:
    """Of ``n`` sentences true of nothing, how many are left empty; and how many changed, either way."""

    n: int
    reference: int
    engine: int
    newly_painted: int
    newly_empty: int


@dataclass(frozen=True)
class AreaAgreement:
    """Bland and Altman's figures for the area of one answer, engine minus reference, in mm2, over ``n`` sentences to
    which both, or either, painted something.  ``low`` and ``high`` are the limits of agreement: mean difference
    ± 1.96 standard deviations."""

    n: int
    bias: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """``dice_drop_interval``: 95 % of the mean drop's bootstrap over cases.  ``small`` (lesions below 10 mm),
    ``emptiness`` and ``area`` are None where the data has none of these.  ``without_spacing`` counts lesions of unknown
    size."""

    cases: int
    sentences: int
    dice: Dice | None
    dice_drop_interval: tuple[float, float] | None
    small: Dice | None
    emptiness: Emptiness | None
    area: AreaAgreement | None
    missed_reference: float | None
    missed_engine: float | None
    without_spacing: int

    def to_dict(self) -> dict[str, Any]:
        values = asdict(self)
        for name in ("dice", "small"):
            dice = getattr(self, name)
            if dice is not None:
                values[name]["drop"] = dice.drop
        return values


def compare_answers(reference: Sequence[Answer], engine: Sequence[Answer]) -> Comparison:
    """Pair by pair; both must be answers to the same rows in the same order."""
    pairs = list(zip(reference, engine, strict=True))
    assert all(a.row == b.row for a, b in pairs)
    true = [(a, b) for a, b in pairs if a.wanted]
    false = [(a, b) for a, b in pairs if not a.wanted]
    return Comparison(
        cases=len({a.row.case_id for a in reference}),
        sentences=len(pairs),
        dice=_dice(true),
        dice_drop_interval=_interval(true),
        small=_dice([(a, b) for a, b in true if a.diameter_mm is not None and a.diameter_mm < SMALL_MM]),
        emptiness=_emptiness(false),
        area=_area(pairs),
        missed_reference=_mean([not a.painted for a, _ in true]),
        missed_engine=_mean([not b.painted for _, b in true]),
        without_spacing=sum(a.diameter_mm is None for a, _ in true),
    )


def failures(comparison: Comparison, max_dice_drop: float) -> list[str]:
    """What a gate refuses, in words with the figures; empty where the engine passes.

    Mean Dice may drop by ``max_dice_drop``, that of lesions below 10 mm by twice it; of the sentences true of nothing
    that the reference leaves empty, the same share may be painted (``may_be_painted``).
    """
    found = []
    for what, dice, allowed in (
        ("mean Dice", comparison.dice, max_dice_drop),
        (f"mean Dice of lesions below {SMALL_MM:.0f} mm", comparison.small, 2 * max_dice_drop),
    ):
        if dice is not None and not dice.drop <= allowed:
            found.append(
                f"{what} drops from {dice.reference:.4f} to {dice.engine:.4f}, by {dice.drop:.4f} (at most "
                f"{allowed:.4f}; {dice.n} sentences)"
            )
    empty = comparison.emptiness
    if empty is not None and empty.newly_painted > (allowed := may_be_painted(empty.reference, max_dice_drop)):
        found.append(
            f"{empty.newly_painted} of {empty.reference} sentences true of nothing, which the reference leaves empty, "
            f"are painted (at most {allowed}, {max_dice_drop:.1%} rounded up)"
        )
    return found


def unjudged(comparison: Comparison) -> str:
    """Why answers to these sentences show nothing about an engine; empty where they do."""
    dice = comparison.dice
    if dice is None or dice.n < LEAST_SENTENCES:
        count = 0 if dice is None else dice.n
        return f"only {count} sentences are true of something in their slice, too few of {LEAST_SENTENCES} to judge by"
    if dice.reference < LEAST_DICE:
        return (
            f"the reference itself reaches a mean Dice of {dice.reference:.3f} on these slices, so that whatever an "
            "engine does to it shows nothing"
        )
    return ""


def unchecked(comparison: Comparison) -> list[str]:
    """What :func:`failures` could not look at, in words."""
    found = []
    if comparison.without_spacing:
        found.append(
            f"the size of {comparison.without_spacing} lesions is unknown, since their images state no pixel spacing: "
            f"those below {SMALL_MM:.0f} mm are not watched"
        )
    elif comparison.small is None:
        found.append(f"no lesion is below {SMALL_MM:.0f} mm")
    empty = comparison.emptiness
    if empty is None or empty.reference < LEAST_EMPTY:
        count = 0 if empty is None else empty.reference
        found.append(f"{count} sentences true of nothing are left empty by the reference: too few to watch silence by")
    return found


def may_be_painted(sentences: int, share: float) -> int:
    """A ``share`` of ``sentences``, rounded up: whether the one at the very edge of an engine's confidence is painted,
    any rounding decides, float16's too; two are a finding."""
    return math.ceil(share * sentences - 1e-9)


Pairs = list[tuple[Answer, Answer]]


def _dice(pairs: Pairs) -> Dice | None:
    if not pairs:
        return None
    return Dice(len(pairs), *(float(np.mean([pair[i].dice for pair in pairs])) for i in (0, 1)))


def _interval(pairs: Pairs) -> tuple[float, float] | None:
    """Cases are drawn again, not sentences: those of one case are not independent."""
    drops: dict[str, list[float]] = defaultdict(list)
    for a, b in pairs:
        drops[a.row.case_id].append(a.dice - b.dice)
    if len(drops) < 2:
        return None
    sums, counts = (np.array([f(values) for values in drops.values()], float) for f in (sum, len))
    drawn = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), (2.5, 97.5))
    return float(low), float(high)


def _emptiness(pairs: Pairs) -> Emptiness | None:
    if not pairs:
        return None
    return Emptiness(
        len(pairs),
        sum(not a.painted for a, _ in pairs),
        sum(not b.painted for _, b in pairs),
        sum(b.painted and not a.painted for a, b in pairs),
        sum(a.painted and not b.painted for a, b in pairs),
    )


def area_pairs(pairs: Pairs) -> list[tuple[float, float]]:
    """(reference, engine) area in mm2 of every sentence to which either painted something."""
    return [
        (a.area_mm2, b.area_mm2)
        for a, b in pairs
        if a.area_mm2 is not None and b.area_mm2 is not None and (a.painted or b.painted)
    ]


def _area(pairs: Pairs) -> AreaAgreement | None:
    areas = area_pairs(pairs)
    if len(areas) < 2:
        return None
    differences = np.array([b - a for a, b in areas])
    bias, spread = float(differences.mean()), 1.96 * float(differences.std(ddof=1))
    return AreaAgreement(len(areas), bias, bias - spread, bias + spread)


def _mean(values: list[bool]) -> float | None:
    return float(np.mean(values)) if values else None
