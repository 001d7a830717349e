"""How well an engine answers the sentences of a data set in the RefHL-Seg layout."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.calibration.refhl import Annotation
from lsms_rt.ct import CtSlice
from lsms_rt.errors import InputError
from lsms_rt.image import load_slice
from lsms_rt.masks import area_mm2, dice
from lsms_rt.segmenter import Segmenter

DIAMETERS_MM = (0, 8, 15, 30, 300)


@dataclass(frozen=True)
class Answer:
    """One row of the data set and what the engine said: Dice with the true mask (1 if both are empty)."""

    row: Annotation
    dice: float
    painted: bool
    wanted: bool
    diameter_mm: float | None


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


def evaluate(segmenter: Segmenter, rows: Iterable[Annotation]) -> tuple[Accuracy, list[Answer]]:
    """Ask every sentence of ``rows``, slice by slice.  Raises :class:`InputError` for a mask in another grid."""
    from tqdm import tqdm

    rows = list(rows)
    answers: list[Answer] = []
    others: list[float] = []
    paraphrases: list[float] = []
    bar = tqdm(total=len(rows), desc="sentences", disable=None)
    by_image: dict[Path, list[Annotation]] = {}
    for row in rows:
        by_image.setdefault(row.image, []).append(row)
    for image, group in by_image.items():
        ct = load_slice(image)
        first: np.ndarray | None = None
        spoken: dict[str, np.ndarray] = {}
        for row in group:
            truth, mask = row.read_mask(), segmenter.predict(ct, row.sentence).mask
            if truth.shape != mask.shape:
                raise InputError(f"{row.mask}: shape {truth.shape}, its image has {mask.shape}; give both in one grid")
            answer = Answer(row, dice(mask, truth), bool(mask.any()), bool(truth.any()), _diameter(truth, ct))
            answers.append(answer)
            if answer.wanted:
                first = truth if first is None else first
                if not (truth & first).any():
                    others.append(answer.dice)
                if row.query in spoken:
                    paraphrases.append(dice(mask, spoken[row.query]))
                elif row.query:
                    spoken[row.query] = mask
            bar.update()
    bar.close()
    true, false = [a for a in answers if a.wanted], [a for a in answers if not a.wanted]
    return Accuracy(
        cases=len({row.case_id for row in rows}),
        slices=len({row.image for row in rows}),
        sentences=len(rows),
        dice=_mean([a.dice for a in true]),
        dice_other=_mean(others),
        silence=_mean([float(not a.painted) for a in false]),
        missed=_mean([float(not a.painted) for a in true]),
        paraphrase_dice=_mean(paraphrases),
        dice_by_diameter_mm=_by_diameter(true),
    ), answers


def _diameter(mask: np.ndarray, ct: CtSlice) -> float | None:
    """mm of a disc with the mask's area."""
    area = area_mm2(mask, ct.spacing_mm)
    return None if area is None else 2 * float(np.sqrt(area / np.pi))


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
            writer.writerow((*known, int(a.wanted), int(a.painted), f"{a.dice:.4f}"))
