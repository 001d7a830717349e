"""Compare two sets of answers to the same questions: those of a reference, and those of an engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lsms_rt.datasets.matching import FOUND_DICE as FOUND_DICE
from lsms_rt.datasets.questions import Answer

from .bounds import interval_by_case, mcnemar, upper_bound

# A lesion is small if a disc of its area has a smaller diameter.
SMALL_MM = 10.0
# (reference, engine)
Pair = tuple[Answer, Answer]
Pairs = Sequence[Pair]


@dataclass(frozen=True)
class Dice:
    """Mean Dice with the true masks, of the reference and of the engine, over ``n`` positive sentences."""

    n: int
    reference: float
    engine: float

    @property
    def drop(self) -> float:
        return self.reference - self.engine


@dataclass(frozen=True)
class FoundLesions:
    """Lesions that only one of reference and engine finds.

    A lesion is what positive sentences mean: one image and one true mask, however many sentences ask for it.  Those are
    not independent, so they count once.

    Attributes:
        n: lesions that the reference finds, for any of their sentences: Dice is at least FOUND_DICE.
        newly_missed: those of them for which, for any sentence that the reference finds them for, the engine's mask is
            empty or its Dice less than half the reference's.
        newly_found: lesions for which it is the other way round.
        bound: one-sided 95 % upper bound (Clopper-Pearson) of the share of found lesions that is newly missed.
        p: McNemar's exact test of newly missed against newly found lesions.
    """

    n: int
    newly_missed: int
    newly_found: int

    @property
    def bound(self) -> float:
        return upper_bound(self.newly_missed, self.n)

    @property
    def p(self) -> float:
        return mcnemar(self.newly_missed, self.newly_found)

    def to_dict(self) -> dict[str, float]:
        """Plain types, ready for JSON."""
        return asdict(self) | {"bound": self.bound, "p": self.p}


@dataclass(frozen=True)
class EmptyMasks:
    """How many of ``n`` negative sentences get an empty mask.  Each sentence is a question of its own.

    Attributes:
        n: number of negative sentences.
        reference: empty masks of the reference.
        engine: empty masks of the engine.
        new_false_positives: sentences for which only the engine predicts a mask ("newly_painted" in JSON).
        newly_empty: sentences for which only the reference predicts a mask.
        bound: one-sided 95 % upper bound (Clopper-Pearson) of the share of the reference's empty masks that become
            false positives.
    """

    n: int
    reference: int
    engine: int
    new_false_positives: int
    newly_empty: int

    @property
    def bound(self) -> float:
        return upper_bound(self.new_false_positives, self.reference)

    def to_dict(self) -> dict[str, int]:
        """Plain types, with the keys of the file format."""
        return {"newly_painted" if k == "new_false_positives" else k: v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class AreaAgreement:
    """Bland-Altman agreement of the predicted areas.

    Attributes:
        n: number of sentences for which at least one of the two masks is not empty.
        bias: mean of engine minus reference, in mm2.
        low: lower limit of agreement: bias - 1.96 standard deviations, in mm2.
        high: upper limit of agreement: bias + 1.96 standard deviations, in mm2.
    """

    n: int
    bias: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The answers of an engine compared with those of its reference.

    Attributes:
        cases: number of cases.
        positive_cases: number of cases with a positive sentence.
        sentences: number of sentences.
        dice: mean Dice over the positive sentences; None if there are none.
        dice_drop_interval: 95 % bootstrap interval of the mean Dice drop over cases; None for fewer than two
            positive cases.
        small: mean Dice over lesions below SMALL_MM; None if there are none.
        found: lesions that the reference finds, and those of them that the engine misses.
        small_found: the same for lesions below SMALL_MM.
        emptiness: empty masks for negative sentences; None if there are none.
        area: agreement of areas; None if fewer than two are known.
        missed_reference: share of positive sentences for which the reference's mask is empty.
        missed_engine: the same for the engine's.
        without_spacing: number of lesions whose image has no pixel spacing, so their size is unknown.
    """

    cases: int
    positive_cases: int
    sentences: int
    dice: Dice | None
    dice_drop_interval: tuple[float, float] | None
    small: Dice | None
    found: FoundLesions
    small_found: FoundLesions
    emptiness: EmptyMasks | None
    area: AreaAgreement | None
    missed_reference: float | None
    missed_engine: float | None
    without_spacing: int

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        values = asdict(self) | {name: getattr(self, name).to_dict() for name in ("found", "small_found")}
        for name in ("dice", "small"):
            dice = getattr(self, name)
            if dice is not None:
                values[name]["drop"] = dice.drop
        if self.emptiness is not None:
            values["emptiness"] = self.emptiness.to_dict()
        return values


def compare_answers(reference: Sequence[Answer], engine: Sequence[Answer]) -> Comparison:
    """Compare answers pair by pair; both sequences must answer the same rows in the same order."""
    pairs = list(zip(reference, engine, strict=True))
    assert all(a.row == b.row for a, b in pairs)
    positive = [(a, b) for a, b in pairs if a.target_nonempty]
    negative = [(a, b) for a, b in pairs if not a.target_nonempty]
    small = [(a, b) for a, b in positive if a.diameter_mm is not None and a.diameter_mm < SMALL_MM]
    return Comparison(
        cases=len({a.row.case_id for a in reference}),
        positive_cases=len({a.row.case_id for a, _ in positive}),
        sentences=len(pairs),
        dice=_dice(positive),
        dice_drop_interval=_interval(positive),
        small=_dice(small),
        found=_found(positive),
        small_found=_found(small),
        emptiness=_empty_masks(negative),
        area=_area(pairs),
        missed_reference=_mean([not a.predicted_nonempty for a, _ in positive]),
        missed_engine=_mean([not b.predicted_nonempty for _, b in positive]),
        without_spacing=_lesions(a for a, _ in positive if a.diameter_mm is None),
    )


def newly_missed(pairs: Pairs) -> list[Pair]:
    """Select the positive sentences for which the reference finds the lesion, and the engine loses it.

    Several may be about one lesion.
    """
    return [(a, b) for a, b in pairs if a.target_nonempty and _loses(a, b)]


def new_false_positives(pairs: Pairs) -> list[Pair]:
    """Select the negative sentences for which only the engine predicts a mask."""
    return [(a, b) for a, b in pairs if not a.target_nonempty and b.predicted_nonempty and not a.predicted_nonempty]


def area_pairs(pairs: Pairs) -> list[tuple[float, float]]:
    """Return the areas (reference, engine) in mm2 of every sentence with at least one mask that is not empty."""
    return [
        (a.area_mm2, b.area_mm2)
        for a, b in pairs
        if a.area_mm2 is not None and b.area_mm2 is not None and (a.predicted_nonempty or b.predicted_nonempty)
    ]


def _dice(pairs: Pairs) -> Dice | None:
    if not pairs:
        return None
    return Dice(len(pairs), *(float(np.mean([pair[i].dice for pair in pairs])) for i in (0, 1)))


def _found(positive: Pairs) -> FoundLesions:
    return FoundLesions(
        n=_lesions(a for a, _ in positive if a.dice >= FOUND_DICE),
        newly_missed=_lesions(a for a, b in positive if _loses(a, b)),
        newly_found=_lesions(a for a, b in positive if _loses(b, a)),
    )


def _lesions(answers: Iterable[Answer]) -> int:
    """Count the lesions that answers are about."""
    return len({(a.row.image, a.truth_digest or a.row.mask) for a in answers})


def _loses(a: Answer, b: Answer) -> bool:
    """Return whether ``a`` finds the lesion and ``b`` does not, or finds less than half as much; NaN finds nothing."""
    return a.dice >= FOUND_DICE and not (b.predicted_nonempty and b.dice >= a.dice / 2)


def _interval(pairs: Pairs) -> tuple[float, float] | None:
    return interval_by_case((a.row.case_id, a.dice - b.dice) for a, b in pairs)


def _empty_masks(pairs: Pairs) -> EmptyMasks | None:
    if not pairs:
        return None
    return EmptyMasks(
        n=len(pairs),
        reference=sum(not a.predicted_nonempty for a, _ in pairs),
        engine=sum(not b.predicted_nonempty for _, b in pairs),
        new_false_positives=len(new_false_positives(pairs)),
        newly_empty=sum(a.predicted_nonempty and not b.predicted_nonempty for a, b in pairs),
    )


def _area(pairs: Pairs) -> AreaAgreement | None:
    areas = area_pairs(pairs)
    if len(areas) < 2:
        return None
    differences = np.array([b - a for a, b in areas])
    bias, spread = float(differences.mean()), 1.96 * float(differences.std(ddof=1))
    return AreaAgreement(len(areas), bias, bias - spread, bias + spread)


def _mean(values: list[bool]) -> float | None:
    return float(np.mean(values)) if values else None
