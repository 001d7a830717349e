"""Decide whether a lower-precision engine may replace its reference, by their answers to held-out questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.datasets.choose import record, sample
from lsms_rt.datasets.matching import Matched, match_lesions
from lsms_rt.datasets.phantom.spec import MAX_SEED, PhantomSpec
from lsms_rt.datasets.questions import Answer, Predicts, Question, answer_of, check_images, questions
from lsms_rt.datasets.refhl import Annotation, read_annotations
from lsms_rt.digest import sha256
from lsms_rt.errors import InputError
from lsms_rt.privacy import names_shown

from .lesions import LesionsCompared, lesion_wise
from .policy import MIN_CASES, cannot_judge, failures, unchecked
from .statistics import Comparison, compare_answers

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Answers shown in the report.
MAX_WORST = 6
# Nothing was trained, calibrated or reported on these cases.
PHANTOM_SEED = MAX_SEED - 1
# Sentences asked per case, of about forty.
PER_CASE = 5
# Side of a phantom slice in pixels.
MAX_MATRIX = 1024


@dataclass(frozen=True)
class GateData:
    """The held-out rows of a gate.

    Attributes:
        rows: the rows.
        description: what they are, for the report and the manifest.
        digest: SHA-256 of their record.
        images: SHA-256 of every image.
        case_ids: ids of the cases, of the user's data set; a generated phantom shares none with any other data.
        user_supplied: False for a phantom that was generated for the gate.
        names_shown: whether a report may show case ids and sentences.
    """

    rows: list[Annotation] = field(repr=False)
    description: str
    digest: str
    images: frozenset[str] = field(repr=False)
    user_supplied: bool

    @property
    def names_shown(self) -> bool:
        """Whether a report shows case ids and sentences: if names are shown, or nobody's are in the data."""
        return names_shown() or not self.user_supplied

    @property
    def case_ids(self) -> frozenset[str]:
        return frozenset(row.case_id for row in self.rows) if self.user_supplied else frozenset()


@dataclass(frozen=True, eq=False)
class GateCase:
    """One question with the answers and masks of reference and engine, for a picture."""

    question: Question
    reference: Answer
    engine: Answer
    reference_mask: NDArray[np.bool_] = field(repr=False)
    engine_mask: NDArray[np.bool_] = field(repr=False)

    @property
    def dice_loss(self) -> float:
        """Dice of the reference minus Dice of the engine; 1 for a new false positive."""
        return self.reference.dice - self.engine.dice


@dataclass(frozen=True)
class GateResult:
    """The verdict on an engine.

    Attributes:
        comparison: the figures.
        failures: why the engine is rejected, one line each.
        unjudged: why there is not enough data to judge it; "" if there is.
        unchecked: what could not be checked, one line each.
        worst: the answers that lost most Dice, worst first.
        answers: (reference, engine) for every sentence.
        lesions: figures per lesion, which are reported and not judged.
    """

    comparison: Comparison
    failures: list[str]
    unjudged: str
    unchecked: list[str]
    worst: list[GateCase]
    answers: list[tuple[Answer, Answer]] = field(repr=False)
    lesions: LesionsCompared

    @property
    def passed(self) -> bool:
        return not self.failures and not self.unjudged

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as the manifest records them."""
        return {
            "passed": self.passed,
            "failures": self.failures,
            "unjudged": self.unjudged or None,
            "unchecked": self.unchecked,
            **self.comparison.to_dict(),
            "lesions": self.lesions.to_dict(),
        }


def gate_data(dataset: Path | None, split: str, count: int, work: Path, matrix: int) -> GateData:
    """Select the rows of a gate at random, from as many cases as there are.

    Args:
        dataset: a data set in the RefHL-Seg layout; None generates a phantom.
        split: the split of ``dataset`` to use.
        count: maximum number of rows.
        work: an existing folder, in which the phantom is written.
        matrix: side of a phantom slice in pixels.

    Raises:
        InputError: the data set cannot be used.
    """
    if dataset is None:
        # Not at the top, because only this needs SciPy.
        from lsms_rt.datasets.phantom.dataset import write_phantom

        folder = work / "phantom"
        # Some more, since a case may be asked for nothing but what it does not hold.
        cases = min(1000, max(MIN_CASES * 5 // 4, -(-count // PER_CASE)))
        write_phantom(folder, PhantomSpec(cases=cases, seed=PHANTOM_SEED, matrix=min(matrix, MAX_MATRIX)))
        rows, description = read_annotations(folder), f"RefHL-Phantom, {cases} cases of seed {PHANTOM_SEED}"
    else:
        rows, description = read_annotations(dataset, split), f"the user's data set, split {split}"
    rows = sample(rows, count, seed=0)
    if dataset is not None:
        check_images(dataset, rows)
    recorded = record(rows)
    images = frozenset(row["image_sha256"] for row in recorded)
    return GateData(rows, description, sha256(json.dumps(recorded).encode()), images, dataset is not None)


def run_gate(reference: Predicts, engine: Predicts, data: GateData, max_dice_drop: float) -> GateResult:
    """Ask reference and engine the same questions, and compare the answers.

    They run one after the other: the threads of each keep spinning after an answer, on the cores the other needs.

    Args:
        reference: the more precise of the two.
        engine: the one to judge.
        data: the questions.
        max_dice_drop: the budget, as in ``policy.failures``.
    """
    rejected: dict[int, str] = {}
    # np.packbits stores one bit per pixel.
    expected = {i: np.packbits(mask) for i, _, mask in _masks(reference, data, rejected, "gate: reference")}
    pairs: list[tuple[Answer, Answer]] = []
    matches: list[tuple[Matched, Matched]] = []
    worst: list[GateCase] = []
    for i, question, mask in _masks(engine, data, rejected, "gate: engine"):
        other = np.unpackbits(expected[i], count=mask.size).astype(bool).reshape(mask.shape)
        case = GateCase(question, answer_of(question, other), answer_of(question, mask), other, mask)
        pairs.append((case.reference, case.engine))
        matches.append((match_lesions(other, question.truth), match_lesions(mask, question.truth)))
        worst = sorted([*worst, case], key=lambda case: -case.dice_loss)[:MAX_WORST]
    comparison = compare_answers([a for a, _ in pairs], [b for _, b in pairs])
    lesions = LesionsCompared(
        reference=lesion_wise([a for a, _ in pairs], [a for a, _ in matches]),
        engine=lesion_wise([b for _, b in pairs], [b for _, b in matches]),
    )
    unjudged, open_points = _open_points(comparison, max_dice_drop, data, rejected, asked=len(pairs))
    return GateResult(
        comparison, failures(comparison, max_dice_drop), unjudged, open_points, [c for c in worst if c.dice_loss > 0],
        pairs, lesions,
    )  # fmt: skip


def _open_points(
    comparison: Comparison, max_dice_drop: float, data: GateData, rejected: dict[int, str], asked: int
) -> tuple[str, list[str]]:
    """Return why the engine cannot be judged ("" if it can), and what was not checked."""
    unjudged, open_points = cannot_judge(comparison, max_dice_drop), unchecked(comparison, max_dice_drop)
    lost = len(data.rows) - asked
    if lost:
        open_points.insert(0, f"{lost} of {len(data.rows)} sentences were rejected: {min(rejected.values())}")
    if 2 * lost > len(data.rows):
        unjudged = open_points[0]
    if unjudged and not data.user_supplied:
        unjudged += "; use --dataset with slices and sentences that the checkpoint was trained for"
    return unjudged, open_points


def _masks(
    model: Predicts, data: GateData, rejected: dict[int, str], title: str
) -> Iterator[tuple[int, Question, NDArray[np.bool_]]]:
    """Yield index, question and predicted mask of every row that is not in ``rejected``.

    Rows whose sentence the model rejects (it may know none of its words) are skipped and added to ``rejected``.
    """
    from tqdm import tqdm

    bar = tqdm(questions(data.rows), desc=title, total=len(data.rows), unit="sentence", disable=None)
    for i, question in enumerate(bar):
        if i in rejected:
            continue
        try:
            mask = model.predict(question.ct, question.row.sentence).mask
        except InputError as error:
            rejected[i] = str(error)
            continue
        yield i, question, mask
