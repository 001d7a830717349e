"""The data set of a training: its rows, and everything about them that can be refused before an image is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lsms_rt.datasets.knowledge import ATTRIBUTES, LESIONS, Knowledge
from lsms_rt.datasets.refhl import ANNOTATIONS, Annotation, in_split, read_annotations, table_name
from lsms_rt.errors import DatasetError, InputError
from lsms_rt.privacy import names_shown
from lsms_rt.tokenizer import Tokenizer, words_of

from .sentences import meaning_of

TRAIN, VALIDATION = "train", "val"
VALIDATION_SLICES = 300
MAX_UNKNOWN = 1 / 3
SHOWN = 8
# The highest of fewer false sentences alone would decide at a specificity of 0.95.
FEW = 20


@dataclass(frozen=True)
class Rows:
    """The rows of a data set that a training reads.

    Attributes:
        folder: the data set.
        train: rows of the split "train".
        validation: rows of the split "val", of at most ``VALIDATION_SLICES`` images, evenly spread.
    """

    folder: Path
    train: list[Annotation]
    validation: list[Annotation]

    @property
    def table(self) -> Path:
        """The file that the rows come from."""
        return self.folder / ANNOTATIONS

    @property
    def all(self) -> list[Annotation]:
        """All of them."""
        return [*self.train, *self.validation]


def read_rows(folder: Path) -> Rows:
    """Read the rows of both splits.

    Raises:
        DatasetError: see :func:`read_annotations`.
        InputError: there are fewer than two cases, or no rows of a split.
    """
    rows = read_annotations(folder)
    cases = {row.case_id for row in rows}
    if len(cases) < 2:
        raise InputError(
            f"{table_name(folder)} has {len(cases)} case; training needs at least two, one in split {TRAIN!r} and "
            f"one in split {VALIDATION!r}"
        )
    held_out = in_split(folder, rows, VALIDATION)
    images = list(dict.fromkeys(row.image for row in held_out))
    chosen = np.linspace(0, len(images) - 1, min(VALIDATION_SLICES, len(images))).round().astype(int)
    kept = {images[int(number)] for number in chosen}
    return Rows(folder, in_split(folder, rows, TRAIN), [row for row in held_out if row.image in kept])


def images_of(rows: Sequence[Annotation]) -> int:
    """How many images the rows are about."""
    return len({row.image for row in rows})


def check_words(rows: Rows, tokenizer: Tokenizer) -> None:
    """Check that a vocabulary fits the sentences of a data set.

    Raises:
        InputError: more than ``MAX_UNKNOWN`` of the distinct words are unknown.
        DatasetError: single sentences cannot be read: too long, or of unknown words only.
    """
    counts = Counter(word.lower() for row in rows.all for word in words_of(row.sentence))
    unknown = {word: count for word, count in counts.items() if tokenizer.is_unknown(word)}
    if len(unknown) > MAX_UNKNOWN * len(counts):
        often = sorted(unknown, key=lambda word: (-unknown[word], word))[:SHOWN]
        # Words of a sentence may be a patient's name.
        such = f", such as {', '.join(map(repr, often))}" if names_shown() else ""
        raise InputError(
            f"the vocabulary does not know {len(unknown)} of the data set's {len(counts)} words{such}; use another "
            "one: --init none, or --init none --text-encoder DIR"
        )
    problems: list[str] = []
    known: dict[str, str | None] = {}
    for row in rows.all:
        if row.sentence not in known:
            known[row.sentence] = _problem(row.sentence, tokenizer)
        if known[row.sentence] is not None:
            problems.append(f"line {row.line}: {known[row.sentence]}")
    if problems:
        raise DatasetError(table_name(rows.folder), problems, len(rows.all))


def check_answers(rows: Rows, meant: dict[str, int], false: dict[str, int]) -> list[str]:
    """What the masks make impossible.

    Args:
        rows: of the data set.
        meant: split -> sentences that mean something.
        false: split -> sentences that mean nothing.

    Returns:
        Lines that a user should read: what is possible, but not good.

    Raises:
        InputError: a split has no sentence that means anything.
    """
    for split in (TRAIN, VALIDATION):
        if not meant[split]:
            raise InputError(
                f"{table_name(rows.folder)}: every mask of split {split!r} is empty; add sentences that mean something"
            )
    if false[VALIDATION] >= FEW:
        return []
    if false[VALIDATION]:
        return [
            f"only {false[VALIDATION]} sentences of split {VALIDATION!r} are true of nothing (an empty mask): the "
            "confidence rests on few"
        ]
    return [
        f"no sentence of split {VALIDATION!r} is true of nothing (an empty mask): the confidence that keeps false "
        "sentences silent cannot be chosen"
    ]


def check_knowledge(rows: Rows) -> list[str]:
    """Lines that a user should read: what the data set says, and training cannot use."""
    remarks = []
    unknown = [row.line for row in rows.all if row.query and meaning_of(row.query) is None]
    if unknown:
        remarks.append(
            f"the meanings (column query) of {len(unknown)} sentences are not of the grammar, the first in line "
            f"{min(unknown)}: the loss 'sentence' leaves them out"
        )
    if (rows.folder / ATTRIBUTES).is_file() and not Knowledge(rows.folder, rows.train).lesions:
        remarks.append(
            f"{ATTRIBUTES} is not used: without pictures {LESIONS}/CASE/SLICE.png nobody knows where its lesions are"
        )
    return remarks


def updates_per_epoch(rows: Rows, batch: int) -> int:
    """Updates in which every training slice is seen once, on average."""
    return math.ceil(images_of(rows.train) / batch)


def _problem(sentence: str, tokenizer: Tokenizer) -> str | None:
    try:
        tokenizer(sentence)
    except InputError as error:
        return str(error)
    return None
