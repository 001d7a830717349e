"""The rows of a data set as questions with known answers, and the answers of a model to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.digest import sha256
from lsms_rt.errors import DatasetError, InputError, one_line
from lsms_rt.postprocess import area_mm2, dice
from lsms_rt.privacy import named
from lsms_rt.reading.load import load_slice

from .refhl import Annotation, table_name

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Question:
    """A row of a data set with its slice and its true mask, bool (H, W) in the slice's input grid."""

    row: Annotation
    ct: CtSlice
    truth: NDArray[np.bool_] = field(repr=False)

    @property
    def diameter_mm(self) -> float | None:
        """Diameter of a disc with the true mask's area; None if the pixel spacing is unknown."""
        area = area_mm2(self.truth, self.ct.spacing_mm)
        return None if area is None else disc_diameter(area)

    @property
    def truth_digest(self) -> str:
        """SHA-256 of the true mask: wordings of one meaning share it, whatever their mask files are called."""
        return sha256(np.packbits(self.truth).tobytes())


@dataclass(frozen=True)
class Answer:
    """The answer of a model to one row.

    Attributes:
        row: the row.
        dice: Dice of predicted and true mask, 0 to 1; 1 if both are empty.
        predicted_nonempty: True if the predicted mask has a pixel ("painted" in CSV files).
        target_nonempty: True for a positive sentence: the true mask has a pixel ("wanted" in CSV files).
        diameter_mm: diameter of a disc of the true mask's area; None if the pixel spacing is unknown.
        pixels: number of pixels of the predicted mask.
        area_mm2: area of the predicted mask; None if the pixel spacing is unknown.
        truth_digest: SHA-256 of the true mask; "" if it is not known.
    """

    row: Annotation
    dice: float
    predicted_nonempty: bool
    target_nonempty: bool
    diameter_mm: float | None
    pixels: int
    area_mm2: float | None
    truth_digest: str = field(default="", repr=False)


class Predicts(Protocol):
    """A Segmenter, or another model that predicts a mask for a slice and a sentence."""

    def predict(self, img: Any, text: str) -> Any: ...


def disc_diameter(area: float) -> float:
    """Return the diameter of a disc of ``area``, in mm for mm2."""
    return 2 * float(np.sqrt(area / np.pi))


def questions(rows: Iterable[Annotation]) -> Iterator[Question]:
    """Read slices and masks, slice by slice; each slice is read once.

    Args:
        rows: the rows, in any order.

    Yields:
        one question per row, grouped by image.

    Raises:
        InputError: an image or mask cannot be read, or a mask is not in its image's grid.
    """
    by_image: dict[Path, list[Annotation]] = {}
    for row in rows:
        by_image.setdefault(row.image, []).append(row)
    for image, group in by_image.items():
        with errors_of(group[0]):
            ct = load_slice(image)
        shape = ct.to_input_grid(ct.hu).shape
        for row in group:
            yield Question(row, ct, mask_in_grid(row, shape))


def check_images(folder: Path, rows: list[Annotation]) -> None:
    """Read every image and mask of ``rows``, which belong to the data set in ``folder``.

    Raises:
        DatasetError: some cannot be used; its ``problems`` list all of them.
    """
    from tqdm import tqdm

    shapes: dict[Path, tuple[int, ...] | str] = {}
    problems = []
    for row in tqdm(rows, desc="checking the data set", unit="row", disable=None):
        if row.image not in shapes:
            shapes[row.image] = _shape(row.image)
        shape = shapes[row.image]
        if isinstance(shape, str):
            problems.append(f"line {row.line}: {named('image', row.image.name)}: {shape}")
            continue
        try:
            mask_in_grid(row, shape)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise DatasetError(table_name(folder), problems, len(rows))


def ask(
    model: Predicts, asked: Iterable[Question], *, title: str | None, count: int | None = None
) -> Iterator[tuple[Question, Answer, NDArray[np.bool_]]]:
    """Ask questions one by one.

    Args:
        model: the model to ask.
        asked: the questions.
        title: title of a progress bar; None for no bar.
        count: number of questions, for the bar.

    Yields:
        question, answer, and the predicted mask, bool (H, W) in the slice's input grid.

    Raises:
        InputError: the model rejects an image or a sentence; the message names the row's line.
    """
    from tqdm import tqdm

    for question in tqdm(asked, desc=title, total=count, unit="sentence", disable=None if title else True, leave=False):
        with errors_of(question.row):
            mask = model.predict(question.ct, question.row.sentence).mask
        yield question, answer_of(question, mask), mask


def answer_of(question: Question, mask: NDArray[np.bool_]) -> Answer:
    """Evaluate ``mask``, bool (H, W) in the slice's input grid, as an answer to ``question``."""
    return Answer(
        row=question.row,
        dice=dice(mask, question.truth),
        predicted_nonempty=bool(mask.any()),
        target_nonempty=bool(question.truth.any()),
        diameter_mm=question.diameter_mm,
        pixels=int(mask.sum()),
        area_mm2=area_mm2(mask, question.ct.spacing_mm),
        truth_digest=question.truth_digest,
    )


@contextmanager
def errors_of(row: Annotation) -> Iterator[None]:
    """Put the line of ``row`` in front of the message of every :class:`InputError`, whose class stays the same."""
    try:
        yield
    except InputError as error:
        error.args = (one_line(f"line {row.line}: {error}"),)
        raise


def mask_in_grid(row: Annotation, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Read a row's mask, bool (H, W); InputError if it cannot be read or has another ``shape`` than its image."""
    mask = row.read_mask()
    if mask.shape != shape:
        raise InputError(
            f"line {row.line}: {named('mask', row.mask.name)} has shape {mask.shape}, but its image has {shape}; save "
            "the mask in the image's own grid"
        )
    return mask


def _shape(image: Path) -> tuple[int, ...] | str:
    """Return the shape of an image, or why it cannot be read."""
    try:
        ct = load_slice(image)
    except InputError as error:
        return str(error)
    return ct.to_input_grid(ct.hu).shape
