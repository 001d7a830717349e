"""Ask a model sentences of which one attribute was replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lsms_rt.bench.accuracy.described import read_lesions
from lsms_rt.datasets.matching import FOUND_DICE
from lsms_rt.datasets.phantom.queries import Query, query_of
from lsms_rt.datasets.questions import Predicts, Question, errors_of, questions
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.errors import InputError, SentenceNotUnderstoodError
from lsms_rt.postprocess import dice

from .truth import SliceTruth
from .words import named, others, reworded

if TYPE_CHECKING:
    from numpy.typing import NDArray

ANOTHER, NOTHING = "another lesion", "nothing"
# Two masks are the same from this Dice on.
SAME_DICE = 0.9
EMPTY, SAME, MOVED, OTHER = "empty", "same", "moved", "other"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one replaced attribute did to the mask.

    Attributes:
        case_id: the case.
        attribute: one of ``words.ATTRIBUTES``.
        true_of: what the new sentence is true of: ``ANOTHER`` or ``NOTHING``.
        dice_before: Dice of the first mask with what the first sentence means.
        dice_new: Dice of the new mask with what the new sentence means; None if that is nothing.
        dice_between: Dice of both masks.
        verdict: ``EMPTY``: the new mask is empty.  ``SAME``: it is the first one, as if the attribute were not there.
            ``MOVED``: it finds what the new sentence means, and fits it better than what the first one means.
            ``OTHER``: none of these.
    """

    case_id: str
    attribute: str
    true_of: str
    dice_before: float
    dice_new: float | None
    dice_between: float
    verdict: str


@dataclass(kw_only=True)
class Probed:
    """All outcomes, and what was not probed.

    Attributes:
        outcomes: of every probe whose first sentence gets a mask.
        named: attribute -> number of different true sentences that name it.
        not_found: (attribute, what it would be true of) -> number of those for which no other value is known to be.
        without_mask: the same for probes whose first sentence gets an empty mask, in which nothing can change.
        meanings: number of true meanings, of which the first wording was taken.
        without_meaning: number of sentences that record no meaning of the grammar.
        unanswered: number of sentences and probes of which the engine knows no word.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    named: Counter[str] = field(default_factory=Counter)
    not_found: Counter[tuple[str, str]] = field(default_factory=Counter)
    without_mask: Counter[tuple[str, str]] = field(default_factory=Counter)
    meanings: int = 0
    without_meaning: int = 0
    unanswered: int = 0


@dataclass(frozen=True, eq=False)
class _Probe:
    attribute: str
    true_of: str
    text: str
    truth: NDArray[np.bool_]


def probe_words(model: Predicts, folder: Path, rows: list[Annotation]) -> Probed:
    """Replace every attribute of every true sentence, once so that it is true of another lesion, once of nothing.

    Of several values that would do, one is drawn, the same in every run.

    Args:
        model: a Segmenter, or anything else with its ``predict``.
        folder: the data set, whose table of lesions is used if it has one.
        rows: its sentences.

    Raises:
        InputError: no sentence records a meaning (column "query"), or the model rejects an image.
    """
    from tqdm import tqdm

    if not any(_meaning(row) for row in rows):
        raise InputError(
            "no sentence of the data set records its meaning (column query), so nothing says what another word would "
            "be true of; probe with RefHL-Phantom (lsms-rt phantom) or with a set that convert made sentences for"
        )
    table, probed = read_lesions(folder), Probed(without_meaning=sum(_meaning(row) is None for row in rows))
    with tqdm(total=len(rows), desc="sentences", unit="sentence", disable=None, leave=False) as bar:
        for _, group in groupby(questions(rows), lambda question: question.row.image):
            asked = list(group)
            row = asked[0].row
            truth = SliceTruth(asked, table.get((row.case_id, row.slice_id), {}))
            for question, query in _first_wordings(asked):
                _probe(model, question, query, truth, probed)
            bar.update(len(asked))
    return probed


def _meaning(row: Annotation) -> Query | None:
    try:
        return query_of(row.query) if row.query else None
    except ValueError:
        return None


def _first_wordings(asked: list[Question]) -> Iterator[tuple[Question, Query]]:
    """The true sentences of a slice: wordings of one meaning are not independent."""
    seen = set()
    for question in asked:
        query = _meaning(question.row)
        if query is not None and question.truth.any() and query not in seen:
            seen.add(query)
            yield question, query


def _probe(model: Predicts, question: Question, query: Query, truth: SliceTruth, probed: Probed) -> None:
    probed.meanings += 1
    probes = list(_probes(question, query, truth, probed))
    first = _mask(model, question, question.row.sentence, probed) if probes else None
    if first is None:
        return
    for probe in probes:
        if not first.any():
            probed.without_mask[probe.attribute, probe.true_of] += 1
            continue
        mask = _mask(model, question, probe.text, probed)
        if mask is not None:
            probed.outcomes.append(_outcome(question, probe, first, mask))


def _probes(question: Question, query: Query, truth: SliceTruth, probed: Probed) -> Iterator[_Probe]:
    own = truth.of(query)
    # Another value each time, and the same in every run.
    rng = np.random.default_rng(question.row.line)
    for attribute in named(query):
        found: dict[str, list[_Probe]] = {ANOTHER: [], NOTHING: []}
        for other in others(query, attribute):
            new, text = truth.of(other), reworded(question.row.sentence, query, other, attribute)
            if new is None or text is None:
                continue
            if not new.mask.any():
                found[NOTHING].append(_Probe(attribute, NOTHING, text, new.mask))
            # Apart, and as many as the noun says.
            elif not (new.mask & question.truth).any() and (
                own is None or _plural(new.lesions) == _plural(own.lesions)
            ):
                found[ANOTHER].append(_Probe(attribute, ANOTHER, text, new.mask))
        probed.named[attribute] += 1
        for true_of, choices in found.items():
            if choices:
                yield choices[int(rng.integers(len(choices)))]
            else:
                probed.not_found[attribute, true_of] += 1


def _plural(lesions: int | None) -> bool | None:
    return None if lesions is None else lesions > 1


def _mask(model: Predicts, question: Question, text: str, probed: Probed) -> NDArray[np.bool_] | None:
    try:
        with errors_of(question.row):
            mask: NDArray[np.bool_] = model.predict(question.ct, text).mask
    except SentenceNotUnderstoodError:
        probed.unanswered += 1
        return None
    return mask


def _outcome(question: Question, probe: _Probe, first: NDArray[np.bool_], mask: NDArray[np.bool_]) -> Outcome:
    new = dice(mask, probe.truth) if probe.true_of == ANOTHER else None
    between = dice(first, mask)
    if not mask.any():
        verdict = EMPTY
    elif between >= SAME_DICE:
        verdict = SAME
    else:
        verdict = MOVED if new is not None and new >= max(FOUND_DICE, dice(mask, question.truth)) else OTHER
    return Outcome(
        case_id=question.row.case_id,
        attribute=probe.attribute,
        true_of=probe.true_of,
        dice_before=dice(first, question.truth),
        dice_new=new,
        dice_between=between,
        verdict=verdict,
    )
