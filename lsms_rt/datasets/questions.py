"""The rows of a data set as questions with known answers, and what a Segmenter says to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import DatasetError, InputError
from lsms_rt.postprocess import area_mm2, dice
from lsms_rt.reading.load import load_slice

from .refhl import ANNOTATIONS, Annotation

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Question:
    """A row with its slice, and the true mask, bool (H, W) in the slice's input grid."""

    row: Annotation
    ct: CtSlice
    truth: NDArray[np.bool_]

    @property
    def diameter_mm(self) -> float | None:
        """Of a disc with the true mask's area; None where the pixel spacing is unknown."""
        area = area_mm2(self.truth, self.ct.spacing_mm)
        return None if area is None else disc_diameter(area)


def disc_diameter(area: float) -> float:
    """Diameter of a disc of ``area``, in the unit of its root."""
    return 2 * float(np.sqrt(area / np.pi))


def questions(rows: Iterable[Annotation]) -> Iterator[Question]:
    """Slice by slice, each read once.  Raises :class:`InputError` for a mask in another grid than its image's."""
    by_image: dict[Path, list[Annotation]] = {}
    for row in rows:
        by_image.setdefault(row.image, []).append(row)
    for image, group in by_image.items():
        ct = load_slice(image)
        shape = ct.to_input_grid(ct.hu).shape
        for row in group:
            truth = row.read_mask()
            if truth.shape != shape:
                raise InputError(f"{row.mask}: shape {truth.shape}, its image has {shape}; give both in one grid")
            yield Question(row, ct, truth)


def check_pictures(folder: Path, rows: list[Annotation]) -> None:
    """Open every image and mask.  Raises :class:`DatasetError`, which names all rows that cannot be used."""
    from tqdm import tqdm

    shapes: dict[Path, tuple[int, ...] | InputError] = {}
    problems = []
    for row in tqdm(rows, desc="checking the data set", unit="row", disable=None):
        try:
            if row.image not in shapes:
                shapes[row.image] = _shape(row.image)
            shape = shapes[row.image]
            if isinstance(shape, InputError):
                raise shape
            mask = row.read_mask().shape
            if mask != shape:
                raise InputError(f"the mask is {mask}, the image {shape}; give both in one grid")
        except InputError as error:
            problems.append(f"line {row.line}: {error}")
    if problems:
        raise DatasetError(str(folder / ANNOTATIONS), problems, len(rows))


def _shape(image: Path) -> tuple[int, ...] | InputError:
    try:
        ct = load_slice(image)
    except InputError as error:
        return error
    return ct.to_input_grid(ct.hu).shape


@dataclass(frozen=True)
class Answer:
    """What was said to one row: Dice with the true mask (1 if both are empty), and the mask's size.

    ``diameter_mm`` is the truth's, ``area_mm2`` the answer's; both None where the pixel spacing is unknown.
    """

    row: Annotation
    dice: float
    painted: bool
    wanted: bool
    diameter_mm: float | None
    pixels: int
    area_mm2: float | None


class Predicts(Protocol):
    """A Segmenter, or whatever else answers a sentence about a slice with a mask."""

    def predict(self, img: Any, text: str) -> Any: ...


def ask(
    segmenter: Predicts, asked: Iterable[Question], *, title: str | None, count: int | None = None
) -> Iterator[tuple[Question, Answer, NDArray[np.bool_]]]:
    """Ask ``count`` questions one by one: question, answer and its mask.  A ``title`` is for a progress bar."""
    from tqdm import tqdm

    for question in tqdm(asked, desc=title, total=count, unit="sentence", disable=None if title else True, leave=False):
        mask = segmenter.predict(question.ct, question.row.sentence).mask
        yield question, answer_of(question, mask), mask


def answer_of(question: Question, mask: NDArray[np.bool_]) -> Answer:
    """What ``mask``, bool (H, W) in the slice's input grid, is as an answer to ``question``."""
    return Answer(
        question.row,
        dice(mask, question.truth),
        bool(mask.any()),
        bool(question.truth.any()),
        question.diameter_mm,
        int(mask.sum()),
        area_mm2(mask, question.ct.spacing_mm),
    )
