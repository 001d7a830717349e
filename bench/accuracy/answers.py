"""The answers as a table, one line per sentence, to find the ones with a low Dice."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lsms_rt.atomic import atomic_file

from .judged import Judged
from .kinds import kind_of

# Names may identify a patient, and so may texts.
NAMES = ("case_id", "slice_id", "query", "lesion_type")
FIGURES = (
    "wanted", "painted", "dice", "kind", "diameter_mm", "true_pixels", "pixels", "area_mm2", "score", "dice_open",
    "on_target", "on_others", "understood",
)  # fmt: skip


def save_answers(path: Path, judged: list[Judged], names: bool = True) -> None:
    """Write a CSV with one line per sentence, for its owner only; what is unknown is empty.

    Without ``names``, sentences are called by their lines in the data set's table.
    """
    with atomic_file(path, private=True) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*(NAMES if names else ("line",)), *FIGURES))
        for one in judged:
            answer, row = one.answer, one.answer.row
            about = tuple(getattr(row, name) for name in NAMES) if names else (row.line,)
            writer.writerow(
                (
                    *about, int(answer.target_nonempty), int(answer.predicted_nonempty), f"{answer.dice:.4f}",
                    kind_of(row.query),
                    _number(answer.diameter_mm, 1), one.meant, answer.pixels, _number(answer.area_mm2, 1),
                    _number(one.score, 4), _number(one.dice_open, 4), _number(one.on_target, 3),
                    _number(one.on_others, 3), one.understood,
                )
            )  # fmt: skip


def _number(value: Any, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
