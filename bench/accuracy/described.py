"""What a data set says of the lesions of its slices: ``lesions.csv``, and the masks of its sentences."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from lsms_rt.datasets.knowledge import ATTRIBUTES
from lsms_rt.datasets.questions import Question

# attributes by lesion number, for every slice of a case
Lesions = dict[tuple[str, str], dict[int, dict[str, str]]]


def read_lesions(folder: Path) -> Lesions:
    """Read the attributes of all lesions; empty for a data set without the table, which RefHL-Phantom has."""
    path = folder / ATTRIBUTES
    if not path.is_file():
        return {}
    found: Lesions = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["case_id"], row["slice_id"]), {})[int(row["lesion"])] = row
    return found


def masks_by_lesion(asked: list[Question]) -> dict[int, np.ndarray]:
    """Return the mask of every lesion of a slice, from those of its sentences.

    Their files are named after the lesions in them.  A lesion that no sentence tells from its neighbor shares one with
    it.
    """
    masks = {question.row.mask.name: (_numbers(question.row.mask), question.truth) for question in asked}
    known = list(masks.values())
    found = {}
    for number in {number for numbers, _ in known for number in numbers}:
        mask = np.logical_and.reduce([mask for numbers, mask in known if number in numbers])
        for numbers, other in known:
            if number not in numbers:
                mask = mask & ~other
        found[number] = mask
    return found


def _numbers(mask: Path) -> tuple[int, ...]:
    """The lesions in a mask: "003_1-4.png" holds 1 and 4, "003_none.png" none."""
    last = mask.stem.rpartition("_")[2]
    return tuple(int(number) for number in last.split("-")) if last[:1].isdigit() else ()
