"""Accuracy of an engine on the sentences of a data set in the RefHL-Seg layout."""

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
    """Means over a data set; None if it has no such sentences.

    A sentence is positive if its true mask is not empty, and negative if it is.

    Attributes:
        cases: Number of cases.
        slices: Number of slices.
        sentences: Number of sentences.
        dice: Dice of positive sentences.
        dice_other: Dice of those that name another lesion than the first sentence of the slice does.
        silence: The specificity: the share of negative sentences with an empty mask.
        missed: The share of positive sentences with an empty mask.
        paraphrase_dice: Dice between the masks of two wordings of one meaning (1 if both are empty).
        dice_by_diameter_mm: ``dice`` by the diameter of a disc with the area of the true mask, if the spacing is known.
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
    """Predict every sentence, slice by slice.

    Args:
        segmenter: A Segmenter, or anything else with its ``predict``.
        rows: Sentences with their slices and true masks.

    Returns:
        The means, and one answer per sentence.

    Raises:
        InputError: A mask has another grid than its slice.
    """
    rows = list(rows)
    answers: list[Answer] = []
    others: list[float] = []
    paraphrases: list[float] = []
    image = first = None
    # Meaning -> the first mask for it on this slice.
    by_meaning: dict[str, np.ndarray] = {}
    for question, answer, mask in ask(segmenter, questions(rows), title="sentences", count=len(rows)):
        answers.append(answer)
        if question.row.image != image:
            image, first, by_meaning = question.row.image, None, {}
        if answer.target_nonempty:
            first = question.truth if first is None else first
            if not (question.truth & first).any():
                others.append(answer.dice)
            query = question.row.query
            if query in by_meaning:
                paraphrases.append(dice(mask, by_meaning[query]))
            elif query:
                by_meaning[query] = mask
    positive, negative = [a for a in answers if a.target_nonempty], [a for a in answers if not a.target_nonempty]
    return Accuracy(
        cases=len({row.case_id for row in rows}),
        slices=len({row.image for row in rows}),
        sentences=len(rows),
        dice=_mean([a.dice for a in positive]),
        dice_other=_mean(others),
        silence=_mean([float(not a.predicted_nonempty) for a in negative]),
        missed=_mean([float(not a.predicted_nonempty) for a in positive]),
        paraphrase_dice=_mean(paraphrases),
        dice_by_diameter_mm=_by_diameter(positive),
    ), answers


def _by_diameter(answers: list[Answer]) -> dict[str, float] | None:
    known = [(a.diameter_mm, a.dice) for a in answers if a.diameter_mm is not None]
    bins = {
        f"{low} to {high}": [dice for mm, dice in known if low <= mm < high] for low, high in pairwise(DIAMETERS_MM)
    }
    return {name: float(np.mean(values)) for name, values in bins.items() if values} or None


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def save_answers(path: Path, answers: list[Answer], names: bool = True) -> None:
    """Write a CSV with one line per sentence, to find the ones with a low Dice.

    Without ``names``, sentences are called by their lines in the data set's table.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        known = ("case_id", "slice_id", "query", "lesion_type") if names else ("line",)
        writer.writerow((*known, "wanted", "painted", "dice"))
        for a in answers:
            row = a.row
            about = (row.case_id, row.slice_id, row.query, row.lesion_type) if names else (row.line,)
            writer.writerow((*about, int(a.target_nonempty), int(a.predicted_nonempty), f"{a.dice:.4f}"))
