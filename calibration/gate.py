"""The gate: may an engine in lower precision stand in for its reference?  Measured on held-out questions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.engine.manifest import sha256
from lsms_rt.errors import InputError

from .choose import record
from .compare import Comparison, compare_answers, failures
from .phantom.dataset import MAX_SEED, PhantomSpec, write_phantom
from .questions import Answer, Predicts, Question, answer_of, check_pictures, questions
from .refhl import Annotation, read_annotations

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORST = 6  # cases that are kept for the report
PHANTOM_SEED = MAX_SEED - 1  # cases that nothing was trained, calibrated or reported on
PER_CASE = 25  # sentences that are asked of a case; there are about forty
LEAST_DICE = 0.1  # of the reference itself; below it, there is nothing to lose and so nothing to judge


@dataclass(frozen=True)
class GateData:
    """Held-out rows: ``what`` they are in words, ``digest`` of the record of rows, ``brought`` by the user or not."""

    rows: list[Annotation]
    what: str
    digest: str
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
    """``failures`` say why an engine is refused; ``unjudged`` why it could not be judged.  Both empty: it passed."""

    comparison: Comparison
    failures: list[str]
    unjudged: str
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
            **self.comparison.to_dict(),
        }


def gate_data(dataset: Path | None, split: str, count: int, place: Path, matrix: int) -> GateData:
    """Up to ``count`` rows of ``split`` of a data set, by chance; of a phantom written into ``place`` where it is None.

    Raises :class:`InputError` for a data set that cannot be used.
    """
    if dataset is None:
        folder = place / "phantom"
        cases = min(1000, max(2, -(-count // PER_CASE)))
        write_phantom(folder, PhantomSpec(cases, PHANTOM_SEED, matrix))
        rows, what = read_annotations(folder), f"RefHL-Phantom, {cases} cases of seed {PHANTOM_SEED}"
    else:
        rows, what = read_annotations(dataset, split), f"the data set given, split {split}"
    order = np.random.default_rng(0).permutation(len(rows))[:count]
    rows = [rows[i] for i in sorted(order)]
    if dataset is not None:
        check_pictures(dataset, rows)
    return GateData(rows, what, sha256(repr(record(rows)).encode()), dataset is not None)


def run_gate(reference: Predicts, engine: Predicts, data: GateData, max_dice_drop: float) -> GateResult:
    """Ask both the same questions and compare."""
    from tqdm import tqdm

    pairs: list[tuple[Answer, Answer]] = []
    worst: list[Case] = []
    refused = ""
    bar = tqdm(questions(data.rows), desc="gate", total=len(data.rows), unit="sentence", disable=None)
    for question in bar:
        try:
            masks = [who.predict(question.ct, question.row.sentence).mask for who in (reference, engine)]
        except InputError as error:  # a vocabulary that has none of the sentence's words
            refused = str(error)
            continue
        theirs, ours = (answer_of(question, mask) for mask in masks)
        case = Case(question, theirs, ours, *masks)
        pairs.append((case.reference, case.engine))
        worst = sorted([*worst, case], key=lambda case: -case.harm)[:WORST]
    comparison = compare_answers([a for a, _ in pairs], [b for _, b in pairs])
    unjudged = _unjudged(comparison)
    if 2 * len(pairs) < len(data.rows):
        unjudged = f"{len(data.rows) - len(pairs)} of {len(data.rows)} sentences cannot be asked: {refused}"
    if unjudged and not data.brought:
        unjudged += "; give --dataset with slices and sentences that the checkpoint was trained for"
    judged = [] if unjudged else failures(comparison, max_dice_drop)
    return GateResult(comparison, judged, unjudged, [case for case in worst if case.harm > 0], pairs)


def _unjudged(comparison: Comparison) -> str:
    if comparison.dice is None:
        return "no sentence of the data is true of anything"
    if comparison.dice.reference < LEAST_DICE:
        return (
            f"the reference itself reaches a mean Dice of {comparison.dice.reference:.3f} on these slices, so that "
            "whatever an engine does to it shows nothing"
        )
    return ""


def newly_painted(answers: list[tuple[Answer, Answer]]) -> list[tuple[Answer, Answer]]:
    """Sentences true of nothing that only the engine paints."""
    return [(a, b) for a, b in answers if not a.wanted and b.painted and not a.painted]
