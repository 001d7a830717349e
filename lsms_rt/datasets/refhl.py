"""Reader of data sets in the RefHL-Seg layout.

RefHL-Seg is unreleased and its format is unknown; this layout is ours.  ``annotations.csv`` has one row per sentence:
``case_id, slice_id, image, mask, sentence, lesion_type, split``, with paths relative to the folder; further columns
are allowed.  ``image`` is any file that ``reading.load.load_slice`` reads, ``mask`` a PNG (0/255) in the image's grid.
In a mask of zeros, no lesion of the slice matches the sentence: the sentence is negative.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lsms_rt.errors import DatasetError, InputError

ANNOTATIONS = "annotations.csv"
FIELDS = ("case_id", "slice_id", "image", "mask", "sentence", "lesion_type", "split")
# Values of a mask to list in an error.
MAX_VALUES = 5


@dataclass(frozen=True)
class Annotation:
    """One row: a sentence, its image and its mask.

    Attributes:
        case_id: the patient or study.
        slice_id: the slice within the case.
        image: path of the image.
        mask: path of the mask.
        sentence: the sentence.
        lesion_type: the type of lesion; may be "".
        split: name of the split.
        query: the meaning of the sentence, for data sets that record it; else "".
        line: line of the row in the table.
    """

    case_id: str
    slice_id: str
    image: Path
    mask: Path
    sentence: str
    lesion_type: str
    split: str
    query: str = ""
    line: int = 0

    def read_mask(self) -> np.ndarray:
        """Read the mask as bool (H, W) in the image's grid.

        Raises:
            InputError: the file is not a grayscale image of 0 and 255.  Other values are rejected, because in masks
                exported as 0 and 1, or as labels, every sentence would be negative.
        """
        from PIL import Image

        name = f"line {self.line}: mask {self.mask.name!r}"
        fix = "save it as a grayscale PNG with the values 0 and 255"
        try:
            with Image.open(self.mask) as picture:
                mode, pixels = picture.mode, np.asarray(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{name} is not a readable image; {fix}") from error
        if pixels.ndim != 2:
            raise InputError(f"{name} has shape {pixels.shape}, not (H, W); {fix}")
        if pixels.dtype == bool:
            return pixels
        values = np.unique(pixels)
        if mode == "P" or not np.isin(values, (0, 255)).all():
            some = ", ".join(map(str, values[:MAX_VALUES])) + (" ..." if len(values) > MAX_VALUES else "")
            raise InputError(f"{name} has mode {mode} and values {some}; {fix} only")
        mask: np.ndarray = pixels == 255
        return mask


def read_annotations(folder: str | Path, split: str | None = None) -> list[Annotation]:
    """Read and check the table of a data set; images and masks are not opened.

    Args:
        folder: the data set.
        split: return the rows of this split only; None for all rows.

    Raises:
        DatasetError: rows cannot be used (a missing file, a path that leaves the folder, no sentence, a case in two
            splits); its ``problems`` list all of them, in the whole table.
        InputError: the table or a column is missing, or there are no rows of ``split``.
    """
    folder = Path(folder)
    table = folder / ANNOTATIONS
    if not table.is_file():
        raise InputError(f"{folder}: {ANNOTATIONS} was not found; create a data set with: lsms-rt phantom -o DIR")
    try:
        # utf-8-sig: spreadsheets write a byte order mark.
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in FIELDS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{table}: the header has no column {', '.join(missing)}; add it, the columns are "
                    f"{', '.join(FIELDS)}"
                )
            rows = [_annotation(folder, row, reader.line_num) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is not a CSV file in UTF-8 ({error}); export it as CSV, UTF-8") from error
    problems = list(_problems(folder, rows))
    if problems:
        raise DatasetError(str(table), problems, len(rows))
    if not rows:
        raise InputError(f"{table} has no rows; add one row per sentence below the header")
    return rows if split is None else in_split(folder, rows, split)


def in_split(folder: Path, rows: list[Annotation], split: str) -> list[Annotation]:
    """Select the rows of one split.

    Raises:
        InputError: there are none.
    """
    selected = [row for row in rows if row.split == split]
    if not selected:
        known = ", ".join(sorted({row.split for row in rows}))
        raise InputError(f"{folder / ANNOTATIONS} has no rows of split {split!r}; its splits are {known}")
    return selected


def _annotation(folder: Path, row: dict[str, str | None], line: int) -> Annotation:
    text = {name: (row.get(name) or "").strip() for name in (*FIELDS, "query")}
    paths = {name: folder / text[name] for name in ("image", "mask")}
    return Annotation(**(text | paths), line=line)  # type: ignore[arg-type]  # two of the fields are paths


def _problems(folder: Path, rows: list[Annotation]) -> Iterator[str]:
    """Check what can be checked without opening an image, and yield one line per problem."""
    root = folder.resolve()
    # The first row of each case, and of each image.
    first_rows: dict[tuple[str, str], Annotation] = {}
    exists: dict[Path, bool] = {}
    for row in rows:
        for name in ("image", "mask"):
            path: Path = getattr(row, name)
            if path not in exists:
                exists[path] = path.resolve().is_relative_to(root) and path.is_file()
            if not exists[path]:
                shown = path.relative_to(folder) if path.is_relative_to(folder) else path
                yield (
                    f"line {row.line}: {name} '{shown}' is not a file inside the data set's folder; correct the path "
                    f"(relative to {ANNOTATIONS}), or add the file"
                )
        for name in ("case_id", "slice_id", "sentence", "split"):
            if not getattr(row, name):
                yield f"line {row.line}: {name} is empty; fill it in, or remove the row"
        for what, key in (("case", row.case_id), ("the image of case", str(row.image))):
            first = first_rows.setdefault((what, key), row)
            if key and row.case_id and first.split != row.split:
                yield (
                    f"line {row.line}: {what} {row.case_id!r} is in split {row.split!r} here and in {first.split!r} in "
                    f"line {first.line}; put all of its rows into one split, so that held-out figures are valid"
                )
                break
