"""The gate: may an engine in lower precision stand in for its reference?  Measured on held-out questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.datasets.choose import record, some
from lsms_rt.datasets.phantom.dataset import write_phantom
from lsms_rt.datasets.phantom.spec import MAX_CASES, MAX_MATRIX, MAX_SEED, PhantomSpec
from lsms_rt.datasets.questions import Answer, Predicts, Question, answer_of, check_pictures, questions
from lsms_rt.datasets.refhl import Annotation, read_annotations
from lsms_rt.digest import sha256
from lsms_rt.errors import InputError

from .compare import Comparison, compare_answers, failures, unchecked, unjudged

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORST = 6  # cases that are kept for the report
PHANTOM_SEED = MAX_SEED - 1  # cases that nothing was trained, calibrated or reported on
PER_CASE = 25  # sentences that are asked of a case; there are about forty


@dataclass(frozen=True)
class GateData:
    """Held-out rows: ``what`` they are in words, ``digest`` of their record, sha256 of their ``images``, and whether
    the user ``brought`` them."""

    rows: list[Annotation]
    what: str
    digest: str
    images: frozenset[str]
    brought: bool


@dataclass(frozen=True, eq=False)
class Case:
    """One question with both answers' masks, for a picture."""

    question: Question
    reference: Answer
    engine: Answer
    reference_mask: NDArray[np.bool_]
    engine_mask: NDArray[np.bool_]

    @property
    def harm(self) -> float:
        """Dice lost; painting what is not there counts as a whole Dice."""
        return self.reference.dice - self.engine.dice


@dataclass(frozen=True)
class GateResult:
    """``failures`` say why an engine is refused, ``unjudged`` why it could not be judged, ``unchecked`` what could not
    be looked at.  It passed where the first two are empty."""

    comparison: Comparison
    failures: list[str]
    unjudged: str
    unchecked: list[str]
    worst: list[Case]
    answers: list[tuple[Answer, Answer]] = field(repr=False)

    @property
    def passed(self) -> bool:
        return not self.failures and not self.unjudged

    def to_dict(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "failures": self.failures,
            "unjudged": self.unjudged or None,
            "unchecked": self.unchecked,
            **self.comparison.to_dict(),
        }


def gate_data(dataset: Path | None, split: str, count: int, place: Path, matrix: int) -> GateData:
    """Up to ``count`` rows of ``split`` of a data set, by chance; of a phantom written into ``place`` where it is None.

    Raises :class:`InputError` for a data set that cannot be used.
    """
    if dataset is None:
        folder = place / "phantom"
        cases = min(MAX_CASES, max(2, -(-count // PER_CASE)))
        write_phantom(folder, PhantomSpec(cases=cases, seed=PHANTOM_SEED, matrix=min(matrix, MAX_MATRIX)))
        rows, what = read_annotations(folder), f"RefHL-Phantom, {cases} cases of seed {PHANTOM_SEED}"
    else:
        rows, what = read_annotations(dataset, split), f"the data set given, split {split}"
    rows = some(rows, count, seed=0)
    if dataset is not None:
        check_pictures(dataset, rows)
    kept = record(rows)
    seen = frozenset(row["image_sha256"] for row in kept)
    return GateData(rows, what, sha256(json.dumps(kept).encode()), seen, dataset is not None)


def run_gate(reference: Predicts, engine: Predicts, data: GateData, max_dice_drop: float) -> GateResult:
    """Ask both the same questions and compare.

    First the one, then the other: each has threads that spin on after an answer, on the cores that the other needs.
    """
    refused: dict[int, str] = {}
    asked = _asked(reference, data, refused, "gate: reference")
    expected = {number: np.packbits(mask) for number, _, mask in asked}  # a bit a pixel
    pairs: list[tuple[Answer, Answer]] = []
    worst: list[Case] = []
    for number, question, mask in _asked(engine, data, refused, "gate: engine"):
        wanted = np.unpackbits(expected[number], count=mask.size).astype(bool).reshape(mask.shape)
        case = Case(question, answer_of(question, wanted), answer_of(question, mask), wanted, mask)
        pairs.append((case.reference, case.engine))
        worst = sorted([*worst, case], key=lambda case: -case.harm)[:WORST]
    comparison = compare_answers([a for a, _ in pairs], [b for _, b in pairs])
    why, open_points = unjudged(comparison), unchecked(comparison)
    lost = len(data.rows) - len(pairs)
    if lost:
        open_points.insert(0, f"{lost} of {len(data.rows)} sentences could not be asked: {min(refused.values())}")
    if 2 * lost > len(data.rows):
        why = open_points[0]
    if why and not data.brought:
        why += "; give --dataset with slices and sentences that the checkpoint was trained for"
    return GateResult(
        comparison, failures(comparison, max_dice_drop), why, open_points, [c for c in worst if c.harm > 0], pairs
    )


def _asked(
    who: Predicts, data: GateData, refused: dict[int, str], title: str
) -> Iterator[tuple[int, Question, NDArray[np.bool_]]]:
    """Number of a row, its question and the answer's mask.  ``refused`` are rows that are left out, and collects those
    that cannot be asked: a vocabulary may have none of the words."""
    from tqdm import tqdm

    bar = tqdm(questions(data.rows), desc=title, total=len(data.rows), unit="sentence", disable=None)
    for number, question in enumerate(bar):
        if number in refused:
            continue
        try:
            mask = who.predict(question.ct, question.row.sentence).mask
        except InputError as error:
            refused[number] = str(error)
            continue
        yield number, question, mask


def newly_painted(answers: list[tuple[Answer, Answer]]) -> list[tuple[Answer, Answer]]:
    """Sentences true of nothing that only the engine paints."""
    return [(a, b) for a, b in answers if not a.wanted and b.painted and not a.painted]
