"""Reader of a data set in the RefHL-Seg layout.

RefHL-Seg is unreleased and its format unknown; this layout is ours.  ``annotations.csv`` has a row a sentence:
``case_id, slice_id, image, mask, sentence, lesion_type, split``, with paths relative to the folder; further columns
are allowed.  ``image`` is anything ``reading.load.load_slice`` reads, ``mask`` a PNG (0/255) in the image's grid; a
mask of zeros means that nothing in the slice is what the sentence asks for.
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


@dataclass(frozen=True)
class Annotation:
    """One row: a sentence, and where its image and mask are.

    ``query`` is "" where the data set has none; ``line`` is where the row stands in the table.
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
        """bool (H, W) in the image's grid.

        Raises :class:`InputError` for a picture of anything but 0 and 255: whoever exports 0 and 1, or labels, would
        otherwise have asked for nothing everywhere.
        """
        from PIL import Image

        try:
            with Image.open(self.mask) as picture:
                kind, pixels = picture.mode, np.asarray(picture)
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"{self.mask}: not a readable mask; give a grey PNG with 0 and 255") from error
        if pixels.ndim != 2:
            raise InputError(f"{self.mask}: shape {pixels.shape}; give a grey PNG (H, W) with 0 and 255")
        if pixels.dtype == bool:
            return pixels
        values = np.unique(pixels)
        if kind == "P" or not np.isin(values, (0, 255)).all():
            found = ", ".join(map(str, values[:5])) + (" ..." if len(values) > 5 else "")
            raise InputError(f"{self.mask}: mode {kind}, values {found}; give a grey PNG with 0 and 255 only")
        mask: np.ndarray = pixels == 255
        return mask


def read_annotations(folder: str | Path, split: str | None = None) -> list[Annotation]:
    """The rows of a data set, of one ``split`` where given.

    Raises :class:`DatasetError`, which names every bad row of the whole table by its line: a missing file, a path
    that leaves the folder, no sentence, a case in two splits; :class:`InputError` for a table that is missing, lacks a
    column, or has no row of ``split``.
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
            everything = [_annotation(folder, row, reader.line_num) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a CSV in UTF-8 ({error}); export it so") from error
    problems = list(_problems(folder, everything))
    if problems:
        raise DatasetError(str(table), problems, len(everything))
    if not everything:
        raise InputError(f"{table}: no rows; check the file")
    return everything if split is None else in_split(folder, everything, split)


def in_split(folder: Path, rows: list[Annotation], split: str) -> list[Annotation]:
    """Those of all ``rows`` of a data set that are of ``split``.  Raises :class:`InputError` where there are none."""
    found = [row for row in rows if row.split == split]
    if not found:
        known = ", ".join(sorted({row.split for row in rows}))
        raise InputError(f"{folder / ANNOTATIONS}: no rows of split {split!r}, only of {known}")
    return found


def _annotation(folder: Path, row: dict[str, str | None], line: int) -> Annotation:
    text = {name: (row.get(name) or "").strip() for name in (*FIELDS, "query")}
    paths = {name: folder / text[name] for name in ("image", "mask")}
    return Annotation(**(text | paths), line=line)  # type: ignore[arg-type]  # of the two, paths


def _problems(folder: Path, rows: list[Annotation]) -> Iterator[str]:
    """What is wrong with rows, as far as it can be seen without opening a picture."""
    inside = folder.resolve()
    splits: dict[tuple[str, str], Annotation] = {}  # the row that a case, or an image, was first seen in
    there: dict[Path, bool] = {}
    for row in rows:
        for name in ("image", "mask"):
            path: Path = getattr(row, name)
            if path not in there:
                there[path] = path.resolve().is_relative_to(inside) and path.is_file()
            if not there[path]:
                given = path.relative_to(folder) if path.is_relative_to(folder) else path
                yield f"line {row.line}: {name} '{given}' is no file in the data set"
        for name in ("case_id", "slice_id", "sentence", "split"):
            if not getattr(row, name):
                yield f"line {row.line}: {name} is empty"
        for what, key in (("case", row.case_id), ("the image of case", str(row.image))):
            first = splits.setdefault((what, key), row)
            if key and row.case_id and first.split != row.split:
                yield (
                    f"line {row.line}: {what} {row.case_id!r} is in split {row.split!r} here and in {first.split!r} in "
                    f"line {first.line}; it belongs to one, or what is measured on it means nothing"
                )
                break
