"""Reference lines: what models that obey only some words would score, with perfect outlines.

Without them a Dice says little: to paint every lesion, whatever is asked, already earns more than half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from lsms_rt.datasets.phantom.lesion_types import TYPES
from lsms_rt.datasets.questions import Question, questions
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.postprocess import dice

from .described import masks_by_lesion, read_lesions
from .kinds import words_of

# attribute of a lesion in lesions.csv -> the words of a meaning that are about it
VALUES = {"lobe": ("left", "right"), "density": ("low", "high"), "lesion_type": TYPES}
# the attributes whose words a model obeys
OBEYED = {
    "lobe and density": ("lobe", "density"),
    "lobe, density and type": ("lobe", "density", "lesion_type"),
}


@dataclass(kw_only=True)
class Line:
    """A reference line.

    Attributes:
        dice: Dice of every true sentence.
        silent: whether the mask is empty, for every false sentence.
    """

    dice: list[float] = field(default_factory=list)
    silent: list[bool] = field(default_factory=list)

    def to_dict(self) -> dict[str, float | None]:
        """Return the mean Dice, and the share of false sentences with an empty mask; None of nothing."""
        return {
            "dice": float(np.mean(self.dice)) if self.dice else None,
            "silence": float(np.mean(self.silent)) if self.silent else None,
        }

    def add(self, question: Question, mask: np.ndarray) -> None:
        """Judge a mask, bool (H, W) in the slice's input grid."""
        if question.truth.any():
            self.dice.append(dice(mask, question.truth))
        else:
            self.silent.append(not mask.any())


def reference_lines(folder: Path, rows: Iterable[Annotation]) -> dict[str, dict[str, float | None]]:
    """Compute the lines of a data set.

    Args:
        folder: the data set.  Without lesions.csv, which RefHL-Phantom has, there is the first line only.
        rows: its sentences.

    Returns:
        Name of the line -> its ``dice`` and ``silence``.

    Raises:
        InputError: an image or a mask cannot be used.
    """
    lesions = read_lesions(folder)
    names = ("every lesion", *OBEYED) if lesions else ("every lesion",)
    lines = {name: Line() for name in names}
    for _, group in groupby(questions(rows), lambda question: question.row.image):
        asked = list(group)
        every = np.logical_or.reduce([question.truth for question in asked])
        single = masks_by_lesion(asked) if lesions else {}
        for question in asked:
            lines["every lesion"].add(question, every)
            known = lesions.get((question.row.case_id, question.row.slice_id), {})
            for name in names[1:]:
                matches = _matches(question.row.query, OBEYED[name])
                chosen = [mask for number, mask in single.items() if number in known and matches(known[number])]
                lines[name].add(question, np.logical_or.reduce([np.zeros_like(every), *chosen]))
    return {name: line.to_dict() for name, line in lines.items()}


def _matches(query: str, attributes: tuple[str, ...]) -> Callable[[dict[str, str]], bool]:
    """Return whether a lesion has the values of ``attributes`` that a meaning names."""
    named = {name: [word for word in words_of(query) if word in VALUES[name]] for name in attributes}
    return lambda lesion: all(lesion[name] in words for name, words in named.items() if words)
