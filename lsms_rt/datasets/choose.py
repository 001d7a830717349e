"""Select the rows of a data set to calibrate and judge on: by a seed, some of every kind, and on record."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.digest import sha256, sha256_of_file

from .questions import Question, check_images, disc_diameter, questions
from .refhl import Annotation, in_split, read_annotations

# Limits of small, middle and large lesions; small ones are hard for a network at 1 mm per pixel.
SIZES_MM = (10.0, 20.0)
# Side of an abdominal slice, for files without pixel spacing.
SIDE_MM = 350.0
# A sentence with more words is long.
LONG = 8


@dataclass(frozen=True)
class Rows:
    """The rows of a calibration.

    Attributes:
        calibration: for ranges, some of every kind.
        probe: for the effect of every unit alone, held out, some of every kind.
        held_out: for judging a set of units, held out, at random.
    """

    calibration: list[Annotation]
    probe: list[Annotation]
    held_out: list[Annotation]


def select_rows(
    folder: Path, split: str, held_out_split: str, slices: int, probe: int, held_out: int, seed: int
) -> Rows:
    """Check a whole data set and select the rows of a calibration.

    Args:
        folder: a data set in the RefHL-Seg layout.
        split: the split for ``Rows.calibration``.
        held_out_split: the split for ``Rows.probe`` and ``Rows.held_out``.
        slices: maximum number of calibration rows.
        probe: maximum number of probe rows.
        held_out: maximum number of held-out rows.
        seed: random seed.

    Raises:
        InputError: the data set cannot be used, or has no rows in one of the splits.
    """
    rows = read_annotations(folder)
    calibration, judged = (in_split(folder, rows, name) for name in (split, held_out_split))
    check_images(folder, rows)
    return Rows(choose(calibration, slices, seed), choose(judged, probe, seed), sample(judged, held_out, seed))


def stratum(question: Question) -> tuple[str, str, str]:
    """Return (size of the lesion, its type, length of the sentence)."""
    if not question.truth.any():
        size = "nothing"
    else:
        pixel = SIDE_MM / max(question.truth.shape)
        diameter = question.diameter_mm or disc_diameter(question.truth.sum()) * pixel
        size = ("small", "middle", "large")[sum(diameter >= edge for edge in SIZES_MM)]
    words = len(question.row.sentence.split())
    return size, question.row.lesion_type or "-", "long" if words > LONG else "short"


def choose(rows: list[Annotation], count: int, seed: int) -> list[Annotation]:
    """Select up to ``count`` rows in turn from every stratum and, within a stratum, from every case.

    The same rows, count and seed give the same selection in the same order.  The images and masks of all rows are read
    to find their strata.
    """
    from tqdm import tqdm

    rng = np.random.default_rng(seed)
    strata: dict[tuple[str, str, str], dict[str, list[Annotation]]] = defaultdict(lambda: defaultdict(list))
    for question in tqdm(questions(rows), desc="selecting slices", total=len(rows), unit="row", disable=None):
        strata[stratum(question)][question.row.case_id].append(question.row)
    queues = []
    for key in sorted(strata):
        cases = [strata[key][case] for case in sorted(strata[key])]
        for group in cases:
            rng.shuffle(group)
        rng.shuffle(cases)
        # The first row of every case, then the second of every case, ...
        queues.append([group[i] for i in range(max(map(len, cases))) for group in cases if i < len(group)])
    rng.shuffle(queues)
    chosen: list[Annotation] = []
    while queues and len(chosen) < count:
        chosen += [queue.pop(0) for queue in queues][: count - len(chosen)]
        queues = [queue for queue in queues if queue]
    return chosen


def sample(rows: list[Annotation], count: int, seed: int) -> list[Annotation]:
    """Select up to ``count`` rows from as many cases as there are, in the table's order.

    At random, one row of every case, then a second one, and so on: the sentences of one case tell less than those of
    several, and within a case the data set's mixture of sentences is kept.
    """
    rng = np.random.default_rng(seed)
    places: dict[str, list[int]] = defaultdict(list)
    for place in rng.permutation(len(rows)):
        places[rows[place].case_id].append(int(place))
    in_turn = sorted((turn, n, place) for n, case in enumerate(places.values()) for turn, place in enumerate(case))
    return [rows[place] for place in sorted(place for _, _, place in in_turn[:count])]


def record(rows: list[Annotation]) -> list[dict[str, Any]]:
    """Describe rows for a file: line in the table, digest of the image, and one of image, mask and sentence.

    Neither names nor sentences are in it, and no guess of a sentence can be confirmed without the image.
    """
    digests: dict[Path, str] = {}
    for path in (path for row in rows for path in (row.image, row.mask)):
        if path not in digests:
            digests[path] = sha256_of_file(path)
    return [
        {
            "line": row.line,
            "image_sha256": digests[row.image],
            "row_sha256": sha256(f"{digests[row.image]} {digests[row.mask]} {row.sentence}".encode()),
        }
        for row in rows
    ]
