"""How well an engine answers the sentences of a data set in the RefHL-Seg layout."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.datasets.questions import Answer, Predicts, ask, questions
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.postprocess import dice

DIAMETERS_MM = (0, 8, 15, 30, 300)


@dataclass(frozen=True)
class Accuracy:
    """Means over a data set; None where it holds no such sentences.

    ``dice``: sentences true of something.  ``dice_other``: those that name another lesion than the slice's first
    sentence does.  ``silence``: share of sentences true of nothing that get an empty mask.  ``missed``: share of
    sentences true of something that get one.  ``paraphrase_dice``: Dice between the answers to two wordings of one
    meaning (1 if both are empty).  ``dice_by_diameter_mm``: ``dice`` by the diameter of a disc of the true mask's area,
    where the spacing is known.
    """

    cases: int
    slices: int
    sentences: int
    dice: float | None
    dice_other: float | None
    silence: float | None
    missed: float | None
    paraphrase_dice: float | None
    dice_by_diameter_mm: dict[str, float] | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(segmenter: Predicts, rows: Iterable[Annotation]) -> tuple[Accuracy, list[Answer]]:
    """Ask every sentence of ``rows``, slice by slice.  Raises :class:`InputError` for a mask in another grid."""
    rows = list(rows)
    answers: list[Answer] = []
    others: list[float] = []
    paraphrases: list[float] = []
    image = first = None
    spoken: dict[str, np.ndarray] = {}  # the slice's first answer to a meaning
    for question, answer, mask in ask(segmenter, questions(rows), title="sentences", count=len(rows)):
        answers.append(answer)
        if question.row.image != image:
            image, first, spoken = question.row.image, None, {}
        if answer.target_nonempty:
            first = question.truth if first is None else first
            if not (question.truth & first).any():
                others.append(answer.dice)
            query = question.row.query
            if query in spoken:
                paraphrases.append(dice(mask, spoken[query]))
            elif query:
                spoken[query] = mask
    true, false = [a for a in answers if a.target_nonempty], [a for a in answers if not a.target_nonempty]
    return Accuracy(
        cases=len({row.case_id for row in rows}),
        slices=len({row.image for row in rows}),
        sentences=len(rows),
        dice=_mean([a.dice for a in true]),
        dice_other=_mean(others),
        silence=_mean([float(not a.predicted_nonempty) for a in false]),
        missed=_mean([float(not a.predicted_nonempty) for a in true]),
        paraphrase_dice=_mean(paraphrases),
        dice_by_diameter_mm=_by_diameter(true),
    ), answers


def _by_diameter(answers: list[Answer]) -> dict[str, float] | None:
    known = [(a.diameter_mm, a.dice) for a in answers if a.diameter_mm is not None]
    bins = {
        f"{low} to {high}": [dice for mm, dice in known if low <= mm < high] for low, high in pairwise(DIAMETERS_MM)
    }
    return {name: float(np.mean(values)) for name, values in bins.items() if values} or None


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def save_answers(path: Path, answers: list[Answer]) -> None:
    """A CSV with a line an answer, for whoever wants to know which ones are bad."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("case_id", "slice_id", "query", "lesion_type", "wanted", "painted", "dice"))
        for a in answers:
            row = a.row
            known = (row.case_id, row.slice_id, row.query, row.lesion_type)
            writer.writerow((*known, int(a.target_nonempty), int(a.predicted_nonempty), f"{a.dice:.4f}"))
