"""Ask a model every sentence of a data set in the RefHL-Seg layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import combinations, groupby, pairwise
from typing import Any

import numpy as np

from lsms_rt.calibration.bounds import interval_by_case
from lsms_rt.datasets.matching import FOUND_DICE
from lsms_rt.datasets.questions import Predicts, Question, errors_of, questions
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.errors import SentenceNotUnderstoodError, chain_cut
from lsms_rt.postprocess import dice

from .judged import Judged, judge
from .lesions import LesionFigures, lesion_figures
from .measured import Measured, measured_with
from .presence import Presence, presence_of
from .surface import SurfaceFigures, surface_figures
from .tables import Table, tables

DIAMETERS_MM = (0, 8, 15, 30, 300)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Means over a data set; None if it has no such sentences.

    A sentence is true of a slice if its true mask is not empty, and false if it is.

    Attributes:
        cases: number of cases.
        slices: number of slices.
        sentences: number of sentences that were answered.
        not_understood: how many of them a user would be refused, as the engine does not understand them; they are
            answered here all the same, and count.
        partly_understood: how many of them are understood in part.
        unanswered: number of sentences of which the engine knows no word; they are left out of all figures.
        dice: Dice of true sentences.
        dice_by_meaning: the same with every meaning of a slice counted once, not every wording.
        dice_other: Dice of those that name another lesion than the first sentence of the slice does.
        silence: the specificity: the share of false sentences with an empty mask.
        missed: the share of true sentences with an empty mask.
        hit_rate: the share of true sentences with a Dice of at least 0.1.
        paraphrase_dice: Dice between the masks of two wordings of one meaning, where at least one is not empty.
        paraphrase_flips: the share of such pairs of which exactly one mask is empty, among all pairs.
        told_apart: the share of pairs of sentences about different lesions of a slice whose masks fit their own lesions
            better than each other's.
        on_target: of the pixels predicted for true sentences, the mean share on what is meant.
        on_others: the mean share on other lesions of the slice.
        elsewhere: the mean share on no lesion.
        wrong_lesion: the share of non-empty masks of true sentences that cover more of other lesions than of the meant.
        dice_by_diameter_mm: ``dice`` by the diameter of a disc with the area of the true mask, if the spacing is known.
        intervals: 95 % intervals of ``dice``, ``silence``, ``missed`` and ``hit_rate`` by resampling cases.
        presence: the scores as a classifier of true and false sentences; None if the model gives none.
        tables: by kind of sentence and by named type; empty for data sets that record no meanings.
        lesions: figures per lesion; None if they were not measured.
        surface: distance of the outlines; None if it was not measured.
        left_out: what was not measured and why; "" if all was.
    """

    cases: int
    slices: int
    sentences: int
    not_understood: int
    partly_understood: int
    unanswered: int
    dice: float | None
    dice_by_meaning: float | None
    dice_other: float | None
    silence: float | None
    missed: float | None
    hit_rate: float | None
    paraphrase_dice: float | None
    paraphrase_flips: float | None
    told_apart: float | None
    on_target: float | None
    on_others: float | None
    elsewhere: float | None
    wrong_lesion: float | None
    dice_by_diameter_mm: dict[str, float] | None
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    presence: Presence | None = None
    tables: dict[str, Table] = field(default_factory=dict)
    lesions: LesionFigures | None = None
    surface: SurfaceFigures | None = None
    left_out: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, ready for JSON."""
        return asdict(self)


@chain_cut
def evaluate(
    model: Predicts, rows: Iterable[Annotation], tolerance_mm: float | None = None
) -> tuple[Accuracy, list[Judged]]:
    """Predict every sentence, slice by slice.

    Args:
        model: a Segmenter, or anything else with its ``predict``.
        rows: sentences with their slices and true masks.
        tolerance_mm: for the normalized surface distance; None for 2 mm, where the packages that it needs are
            installed.

    Returns:
        The means, and one judged answer per sentence.

    Raises:
        InputError: a mask has another grid than its slice, or the model rejects an image or a sentence, which is too
            long; the message names the row's line.
        MissingDependencyError: a tolerance is given, and a package that it needs is not installed.
    """
    from tqdm import tqdm

    rows, measured = list(rows), measured_with(tolerance_mm)
    # None for a model that has no threshold of its own
    threshold = getattr(getattr(model, "manifest", None), "threshold", None)
    judged: list[Judged] = []
    pairs = _Pairs()
    with tqdm(total=len(rows), desc="sentences", unit="sentence", disable=None, leave=False) as bar:
        for asked in _by_slice(rows):
            regions = np.logical_or.reduce([question.truth for question in asked])
            answered, masks = [], []
            for question in asked:
                bar.update()
                try:
                    with errors_of(question.row):
                        result = model.predict(question.ct, question.row.sentence)
                except SentenceNotUnderstoodError:
                    continue
                judged.append(judge(question, result, regions, threshold, measured))
                answered.append(question)
                masks.append(result.mask)
            pairs.add(answered, masks)
    return _accuracy(rows, judged, pairs, measured), judged


def _by_slice(rows: list[Annotation]) -> Iterator[list[Question]]:
    for _, group in groupby(questions(rows), lambda question: question.row.image):
        yield list(group)


class _Pairs:
    """What only several answers about one slice can show."""

    def __init__(self) -> None:
        self.others: list[float] = []
        self.paraphrases: list[float] = []
        self.flips: list[bool] = []
        self.told_apart: list[bool] = []
        self.first_wordings: list[float] = []

    def add(self, asked: list[Question], masks: list[np.ndarray]) -> None:
        """Compare the answers about one slice."""
        true = [(q, mask) for q, mask in zip(asked, masks, strict=True) if q.truth.any()]
        if not true:
            return
        first = true[0][0].truth
        self.others += [dice(mask, q.truth) for q, mask in true if not (q.truth & first).any()]
        by_meaning: dict[str, tuple[Question, np.ndarray]] = {}
        for q, mask in true:
            meaning = q.row.query or q.row.sentence
            if meaning not in by_meaning:
                by_meaning[meaning] = q, mask
                self.first_wordings.append(dice(mask, q.truth))
                continue
            other = by_meaning[meaning][1]
            self.flips.append(bool(mask.any()) != bool(other.any()))
            if mask.any() or other.any():
                self.paraphrases.append(dice(mask, other))
        for (a, mask_a), (b, mask_b) in combinations(by_meaning.values(), 2):
            if not (a.truth & b.truth).any():
                own = dice(mask_a, a.truth) + dice(mask_b, b.truth)
                self.told_apart.append(own > dice(mask_a, b.truth) + dice(mask_b, a.truth))


def _accuracy(rows: list[Annotation], judged: list[Judged], pairs: _Pairs, measured: Measured) -> Accuracy:
    understood = Counter(one.understood for one in judged)
    true = [one for one in judged if one.answer.target_nonempty]
    false = [one for one in judged if not one.answer.target_nonempty]
    painted = [one for one in true if one.on_target is not None]
    values = {
        "dice": [(one.answer.row.case_id, one.answer.dice) for one in true],
        "silence": [(one.answer.row.case_id, float(not one.answer.predicted_nonempty)) for one in false],
        "missed": [(one.answer.row.case_id, float(not one.answer.predicted_nonempty)) for one in true],
        "hit_rate": [(one.answer.row.case_id, float(one.answer.dice >= FOUND_DICE)) for one in true],
    }
    means = {name: mean([value for _, value in group]) for name, group in values.items()}
    return Accuracy(
        cases=len({row.case_id for row in rows}),
        slices=len({row.image for row in rows}),
        sentences=len(judged),
        not_understood=understood["no"],
        partly_understood=understood["partly"],
        unanswered=len(rows) - len(judged),
        dice=means["dice"],
        dice_by_meaning=mean(pairs.first_wordings),
        dice_other=mean(pairs.others),
        silence=means["silence"],
        missed=means["missed"],
        hit_rate=means["hit_rate"],
        paraphrase_dice=mean(pairs.paraphrases),
        paraphrase_flips=mean(pairs.flips),
        told_apart=mean(pairs.told_apart),
        on_target=mean([one.on_target or 0.0 for one in painted]),
        on_others=mean([one.on_others or 0.0 for one in painted]),
        elsewhere=mean([one.elsewhere or 0.0 for one in painted]),
        wrong_lesion=mean([(one.on_others or 0.0) > (one.on_target or 0.0) for one in painted]),
        dice_by_diameter_mm=_by_diameter(true),
        intervals={name: interval_by_case(group) for name, group in values.items()},
        presence=presence_of(true, false),
        tables=tables(judged),
        lesions=lesion_figures(judged),
        surface=None if measured.tolerance_mm is None else surface_figures(true, measured.tolerance_mm),
        left_out=measured.left_out,
    )


def _by_diameter(true: list[Judged]) -> dict[str, float] | None:
    known = [(one.answer.diameter_mm, one.answer.dice) for one in true if one.answer.diameter_mm is not None]
    bins = {
        f"{low} to {high}": [dice for mm, dice in known if low <= mm < high] for low, high in pairwise(DIAMETERS_MM)
    }
    return {name: float(np.mean(values)) for name, values in bins.items() if values} or None


def mean(values: list[float] | list[bool]) -> float | None:
    """Return the mean; None of nothing."""
    return float(np.mean(values)) if values else None
