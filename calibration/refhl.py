"""Reader of a data set in the RefHL-Seg layout.

RefHL-Seg is unreleased and its format unknown; this layout is ours.  ``annotations.csv`` has a row a sentence:
``case_id, slice_id, image, mask, sentence, lesion_type, split``, with paths relative to the folder; further columns
are allowed.  ``image`` is anything ``lsms_rt.image.load_slice`` reads, ``mask`` a PNG (0/255) in the image's grid; a
mask of zeros means that nothing in the slice is what the sentence asks for.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.errors import InputError

ANNOTATIONS = "annotations.csv"
FIELDS = ("case_id", "slice_id", "image", "mask", "sentence", "lesion_type", "split")


@dataclass(frozen=True)
class Annotation:
    """One row: a sentence, and where its image and mask are.  ``query`` is "" where the data set has none."""

    case_id: str
    slice_id: str
    image: Path
    mask: Path
    sentence: str
    lesion_type: str
    split: str
    query: str = ""

    def read_mask(self) -> np.ndarray:
        """bool (H, W) in the image's grid."""
        from PIL import Image

        try:
            with Image.open(self.mask) as picture:
                pixels = np.asarray(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{self.mask}: not a readable mask; give a grey PNG with 0 and 255") from error
        if pixels.ndim != 2:
            raise InputError(f"{self.mask}: shape {pixels.shape}; give a grey PNG (H, W) with 0 and 255")
        return pixels > 127 if pixels.dtype != bool else pixels


def read_annotations(folder: str | Path, split: str | None = None) -> list[Annotation]:
    """The rows of a data set, of one ``split`` where given.

    Raises :class:`InputError` for a missing file or column, a path that leaves the folder, and an empty selection.
    """
    folder = Path(folder)
    table = folder / ANNOTATIONS
    if not table.is_file():
        raise InputError(f"{folder}: no {ANNOTATIONS}; make a data set with: lsms-rt phantom -o DIR")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
            reader = csv.DictReader(file)
            missing = [name for name in FIELDS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{table}: no column {', '.join(missing)}; the columns are {', '.join(FIELDS)}")
            rows, splits = [], set()
            for row in reader:
                splits.add(row["split"] or "")
                if split in (None, row["split"]):
                    rows.append(_annotation(folder, row, reader.line_num))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a CSV in UTF-8 ({error}); export it so") from error
    if not rows:
        known = ", ".join(sorted(splits))
        raise InputError(
            f"{table}: no rows" + (f" of split {split!r}, only of {known}" if known else "; check the file")
        )
    return rows


def _annotation(folder: Path, row: dict[str, str], line: int) -> Annotation:
    fields: dict[str, Any] = {name: row[name] or "" for name in FIELDS}
    for name in ("image", "mask"):
        path = (folder / (row[name] or "")).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise InputError(f"{folder / ANNOTATIONS}, line {line}: {name} {row[name]!r} is no file in the data set")
        fields[name] = folder / row[name]
    return Annotation(**fields, query=row.get("query") or "")
