"""Reader of data sets in the RefHL-Seg layout.

RefHL-Seg is unreleased and its format is unknown; this layout is ours.  ``annotations.csv`` has one row per sentence:
``case_id, slice_id, image, mask, sentence, lesion_type, split``, with paths relative to the folder; further columns
are allowed.  ``image`` is any file that ``reading.load.load_slice`` reads, ``mask`` a PNG (0/255) in the image's grid.
In a mask of zeros, no lesion of the slice matches the sentence: the sentence is negative.  What else a data set may
know is in :mod:`.knowledge`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lsms_rt.errors import DatasetError, InputError, chain_cut
from lsms_rt.privacy import brief, named, names_shown

from .png import read_png

ANNOTATIONS = "annotations.csv"
FIELDS = ("case_id", "slice_id", "image", "mask", "sentence", "lesion_type", "split")
# Usual names of splits, which messages may hold.
SPLITS = ("train", "val", "test")
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

    case_id: str = field(repr=False)
    slice_id: str = field(repr=False)
    image: Path = field(repr=False)
    mask: Path = field(repr=False)
    sentence: str = field(repr=False)
    lesion_type: str = field(repr=False)
    split: str = field(repr=False)
    query: str = field(default="", repr=False)
    line: int = 0

    @chain_cut
    def read_mask(self) -> np.ndarray:
        """Read the mask as bool (H, W) in the image's grid.

        Raises:
            InputError: the file is not a grayscale image of 0 and 255.  Other values are rejected, because in masks
                exported as 0 and 1, or as labels, every sentence would be negative.
        """
        name = f"line {self.line}: {named('mask', self.mask.name)}"
        fix = "save it as a grayscale PNG with the values 0 and 255"
        mode, pixels = read_png(self.mask, name, fix)
        if pixels.dtype == bool:
            return pixels
        values = np.unique(pixels)
        if mode == "P" or not np.isin(values, (0, 255)).all():
            some = ", ".join(map(str, values[:MAX_VALUES])) + (" ..." if len(values) > MAX_VALUES else "")
            raise InputError(f"{name} has mode {mode} and values {some}; {fix} only")
        mask: np.ndarray = pixels == 255
        return mask


@chain_cut
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
    table, name = folder / ANNOTATIONS, table_name(folder)
    if not table.is_file():
        raise InputError(f"{name} was not found in the data set's folder; create one with: lsms-rt phantom -o DIR")
    try:
        # utf-8-sig: spreadsheets write a byte order mark.
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in FIELDS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{name}: the header has no column {', '.join(missing)}; add it, the columns are "
                    f"{', '.join(FIELDS)}"
                )
            rows = [_annotation(folder, row, reader.line_num) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name} is not a CSV file in UTF-8 ({error}); export it as CSV, UTF-8") from error
    problems = list(_problems(folder, rows))
    if problems:
        raise DatasetError(name, problems, len(rows))
    if not rows:
        raise InputError(f"{name} has no rows; add one row per sentence below the header")
    return rows if split is None else in_split(folder, rows, split)


def in_split(folder: Path, rows: list[Annotation], split: str) -> list[Annotation]:
    """Select the rows of one split.

    Raises:
        InputError: there are none.
    """
    selected = [row for row in rows if row.split == split]
    if not selected:
        known = ", ".join(sorted({split_name(row.split) for row in rows}))
        wanted = split_name(split, "the split that was asked for")
        raise InputError(f"{table_name(folder)} has no rows of {wanted}; it has {known}")
    return selected


def table_name(folder: Path) -> str:
    """Return the name of a data set's table for messages; with its folder if names are shown."""
    return brief(folder / ANNOTATIONS) if names_shown() else ANNOTATIONS


def split_name(split: str, neutral: str = "another split") -> str:
    """Return the name of a split for messages: ``neutral`` for an unusual one, unless names are shown."""
    return f"split {brief(split)!r}" if names_shown() or split in SPLITS else neutral


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
                exists[path] = is_file_below(path, root)
            if not exists[path]:
                shown = path.relative_to(folder) if path.is_relative_to(folder) else path
                yield (
                    f"line {row.line}: {named(name, shown)} is not a file inside the data set's folder; correct the "
                    f"path (relative to {ANNOTATIONS}), or add the file"
                )
        for name in ("case_id", "slice_id", "sentence", "split"):
            if not getattr(row, name):
                yield f"line {row.line}: {name} is empty; fill it in, or remove the row"
        for what, key, called in (("case", row.case_id, row.case_id), ("image", str(row.image), row.image.name)):
            first = first_rows.setdefault((what, key), row)
            if key and row.case_id and first.split != row.split:
                yield (
                    f"line {row.line}: {named(what, called)} is in {split_name(row.split)} here and in "
                    f"{split_name(first.split)} in line {first.line}; put all of its rows into one split, so that "
                    "held-out figures are valid"
                )
                break


def is_file_below(path: Path, root: Path) -> bool:
    """Return whether ``path`` is a file below ``root``; a name that no file can have (NUL, too long) is none."""
    try:
        return path.resolve().is_relative_to(root) and path.is_file()
    except (OSError, ValueError, RuntimeError):
        return False
