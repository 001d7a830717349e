"""Which slices to calibrate on: some of every kind, chosen by a seed, and on record."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.digest import sha256, sha256_of_file

from .questions import Question, disc_diameter, questions
from .refhl import Annotation

SIZES_MM = (10.0, 20.0)  # small, middle, large: what is hard for a network at 1 mm a pixel, and what is not
SIDE_MM = 350.0  # of an abdominal slice, where a file does not tell its pixels' spacing
LONG = 8  # words


def stratum(question: Question) -> tuple[str, str, str]:
    """(size of the lesion, its type, length of the sentence)."""
    if not question.truth.any():
        size = "nothing"
    else:
        pixel = SIDE_MM / max(question.truth.shape)
        diameter = question.diameter_mm or disc_diameter(question.truth.sum()) * pixel
        size = ("small", "middle", "large")[sum(diameter >= edge for edge in SIZES_MM)]
    words = len(question.row.sentence.split())
    return size, question.row.lesion_type or "-", "long" if words > LONG else "short"


def choose(rows: list[Annotation], count: int, seed: int) -> list[Annotation]:
    """Up to ``count`` of ``rows``, in turn from every stratum and, within one, from every case.

    The same rows, count and seed give the same choice in the same order.  Every row's picture is read for its stratum.
    """
    from tqdm import tqdm

    rng = np.random.default_rng(seed)
    strata: dict[tuple[str, str, str], dict[str, list[Annotation]]] = defaultdict(lambda: defaultdict(list))
    for question in tqdm(questions(rows), desc="choosing slices", total=len(rows), unit="row", disable=None):
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


def some(rows: list[Annotation], count: int, seed: int) -> list[Annotation]:
    """Up to ``count`` rows by chance, in the table's order: a data set's own mixture of sentences."""
    picked = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows[i] for i in sorted(picked)]


def record(rows: list[Annotation]) -> list[dict[str, Any]]:
    """What was chosen: ids, the line of the table, and digests of image, mask and sentence; not the sentence itself."""
    digests: dict[Path, str] = {}
    for path in (path for row in rows for path in (row.image, row.mask)):
        if path not in digests:
            digests[path] = sha256_of_file(path)
    return [
        {
            "case_id": row.case_id,
            "slice_id": row.slice_id,
            "line": row.line,
            "image_sha256": digests[row.image],
            "mask_sha256": digests[row.mask],
            "sentence_sha256": sha256(row.sentence.encode()),
        }
        for row in rows
    ]
