"""What a data set in the RefHL-Seg layout may know besides masks and sentences.

DIR/lesions/CASE/SLICE.png   every lesion of the slice: 0, or the lesion's number from 1 to 255
DIR/lesions.csv              the attributes of these lesions, by case, slice and number
DIR/organs/CASE/SLICE.png    what every pixel shows, see ``phantom.organs.Organ``; lesions as what is around them

CASE and SLICE are the rows' ``case_id`` and ``slice_id``; pictures are 8-bit gray PNG in the image's grid.  Every part
may be missing, but what one slice has, all must have.  Without its pictures, the table says nothing: nobody knows where
its lesions are.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lsms_rt.errors import InputError
from lsms_rt.privacy import named

from .phantom.lesion import DENSITIES, ISO_HU, LOBES, MARGINS, NO_MASK, PHASES, Lesion, densities_near
from .phantom.lesion_types import TYPES
from .phantom.organs import Organ
from .phantom.queries import APART_MM
from .png import read_png
from .refhl import Annotation, is_file_below

if TYPE_CHECKING:
    from numpy.typing import NDArray

LESIONS, ATTRIBUTES, ORGANS = "lesions", "lesions.csv", "organs"
# A picture holds no higher number.
MAX_LESIONS = 255
# How far table and picture may differ, since outlines are rounded to pixels: in the ratio of diameters, and in mm.  Two
# lesions that the grammar compares are farther off than that where the table has them the other way round.
SAME_SIZE, SAME_PLACE_MM = 1.5, 2 * APART_MM
_WORDS = {
    "lesion_type": TYPES,
    "phase": PHASES,
    "lobe": LOBES,
    "density": DENSITIES,
    "enhancement": ("none", "rim", "nodular", "homogeneous", "heterogeneous"),
    "margin": MARGINS,
}
_NUMBERS = ("diameter_mm", "left_mm", "posterior_mm")
_COLUMNS = ("case_id", "slice_id", "lesion", *_WORDS, *_NUMBERS)

# The attributes of a slice's lesions by number, each with its line in the table, and the contrast phase.
_Slice = dict[int, tuple[int, Lesion, str]]


class Knowledge:
    """What a data set knows of the slices of some rows.

    Attributes:
        lesions: whether every lesion of every slice is drawn.
        attributes: whether their attributes are known, too.
        organs: whether organs are drawn.
        problems: what is wrong with the table of attributes, one line each.
    """

    def __init__(self, folder: Path, rows: Iterable[Annotation]) -> None:
        """Look for pictures of ``rows`` of the data set in ``folder``, and read the table of attributes."""
        self._folder, self._root = folder, folder.resolve()
        slices = dict.fromkeys((row.case_id, row.slice_id) for row in rows)
        self.lesions, self.organs = (
            any(self._is_there(picture_of(folder, part, *names)) for names in slices) for part in (LESIONS, ORGANS)
        )
        self.attributes = self.lesions and (folder / ATTRIBUTES).is_file()
        self.problems: list[str] = []
        self._slices = _read_table(folder / ATTRIBUTES, self.problems) if self.attributes else {}
        # Picture -> the first row that it was read for.
        self._rows: dict[Path, Annotation] = {}

    def lesions_of(self, row: Annotation, shape: tuple[int, ...]) -> np.ndarray:
        """Read the lesions of a row's slice: uint8 (H, W) in the image's grid, 0 or the lesion's number.

        Raises:
            InputError: the picture is missing, lies outside of the folder or cannot be read, is another slice's, or is
                not of the image's ``shape``.
        """
        return self._labels(LESIONS, row, shape)

    def organs_of(self, row: Annotation, shape: tuple[int, ...]) -> np.ndarray:
        """Read the organs of a row's slice: uint8 (H, W) in the image's grid, values of ``Organ``.

        Raises:
            InputError: as for :meth:`lesions_of`, or a value is no organ.
        """
        labels = self._labels(ORGANS, row, shape)
        if labels.max() > max(Organ):
            raise InputError(
                f"line {row.line}: {self._name(ORGANS, row)} has the value {labels.max()}; organs are 0 to {max(Organ)}"
            )
        return labels

    def attributes_of(
        self, row: Annotation, labels: np.ndarray, spacing_mm: tuple[float, float] | None
    ) -> tuple[tuple[Lesion, ...], str]:
        """Return the lesions of a row's slice, without masks, and the contrast phase ("" where there is no lesion).

        Args:
            row: of the slice.
            labels: uint8 (H, W), its picture of lesions, turned into the model's frame.
            spacing_mm: between rows and between columns there; where it is None, size and place are not compared.

        Returns:
            The lesions in the order of their numbers.

        Raises:
            InputError: the table has not just these lesions, or other sizes or places, or they differ in their phase.
        """
        numbers = [int(number) for number in np.unique(labels) if number]
        known = self._slices.get((row.case_id, row.slice_id), {})
        picture = self._name(LESIONS, row)
        for number in numbers:
            if number not in known:
                raise InputError(
                    f"line {row.line}: {picture} shows lesion {number}, which {ATTRIBUTES} does not have for this "
                    "slice; add its row, or correct the picture"
                )
        for number, (line, _, _) in known.items():
            if number not in numbers:
                raise InputError(
                    f"{ATTRIBUTES}, line {line}: {picture} does not show lesion {number}; draw it, or remove the line"
                )
        if spacing_mm is not None:
            _compare({number: known[number][:2] for number in numbers}, labels, spacing_mm)
        phases = {phase for _, _, phase in known.values()}
        if len(phases) > 1:
            lines = ", ".join(str(line) for line, _, _ in known.values())
            raise InputError(f"{ATTRIBUTES}, lines {lines}: {len(phases)} phases in one slice; give one")
        return tuple(known[number][1] for number in numbers), phases.pop() if phases else ""

    def _labels(self, part: str, row: Annotation, shape: tuple[int, ...]) -> np.ndarray:
        path, name = picture_of(self._folder, part, row.case_id, row.slice_id), self._name(part, row)
        if not self._is_there(path):
            raise InputError(
                f"line {row.line}: {name} is not a file inside the data set's folder, and other slices have theirs; "
                f"add {part}/CASE/SLICE.png, or remove all of them"
            )
        first = self._rows.setdefault(path, row)
        if first.image != row.image:
            raise InputError(
                f"line {row.line}: {name} is also that of line {first.line}, which has another image; give every image "
                "of a case its own slice_id"
            )
        fix = "save it as a grayscale PNG of 8 bits whose values are numbers, in the image's own grid"
        mode, labels = read_png(path, f"line {row.line}: {name}", fix)
        if mode != "L" or labels.shape != shape:
            raise InputError(
                f"line {row.line}: {name} has mode {mode} and shape {labels.shape}, but its image has {shape}; {fix}"
            )
        return labels

    def _is_there(self, path: Path) -> bool:
        return is_file_below(path, self._root)

    def _name(self, part: str, row: Annotation) -> str:
        return named(f"picture of {part}", picture_of(Path(part), "", row.case_id, row.slice_id))


def picture_of(folder: Path, part: str, case_id: str, slice_id: str) -> Path:
    """Return the path of a slice's picture: of the ``part`` "lesions" or "organs" of the data set in ``folder``."""
    return folder / part / case_id / f"{slice_id}.png"


def lesion_of(row: Mapping[str, str], mask: np.ndarray = NO_MASK) -> Lesion:
    """Return the lesion that a line of the table of attributes describes, with its ``mask`` if that is known.

    Raises:
        ValueError: a number is none.
    """
    difference = row.get("hu_difference")
    return Lesion(
        id=int(row["lesion"]),
        type=row["lesion_type"],
        mask=mask,
        lobe=row["lobe"],
        diameter_mm=float(row["diameter_mm"]),
        centroid_mm=(float(row["left_mm"]), float(row["posterior_mm"])),
        density=row["density"],
        enhancement=row["enhancement"],
        margin=row["margin"],
        hu_difference=float(difference) if difference else None,
    )


def _compare(known: Mapping[int, tuple[int, Lesion]], labels: np.ndarray, spacing_mm: tuple[float, float]) -> None:
    """Raise InputError where the table's lesions, each with its line, have other sizes or places than the picture's.

    Numbers that were mixed up, axes that point elsewhere, or centimeters would teach wrong words, unnoticed.
    """
    fix = f"correct the line, or the lesion's number, or remove {ATTRIBUTES}"
    dy, dx = spacing_mm
    # From the picture's corner to the point that the table counts from: one for all lesions.
    origin: NDArray[np.float64] | None = None
    first = next((line for line, _ in known.values()), 0)
    for number, (line, lesion) in known.items():
        rows, columns = np.nonzero(labels == number)
        drawn = 2 * math.sqrt(len(rows) * dy * dx / math.pi)
        if max(drawn, lesion.diameter_mm) > SAME_SIZE * min(drawn, lesion.diameter_mm):
            raise InputError(
                f"{ATTRIBUTES}, line {line}: diameter_mm is {lesion.diameter_mm:g}, and a disc of the area that is "
                f"drawn has {drawn:.1f} mm; {fix}"
            )
        here = np.array([columns.mean() * dx, rows.mean() * dy]) - lesion.centroid_mm
        origin = here if origin is None else origin
        away = float(np.hypot(*(here - origin)))
        if away > SAME_PLACE_MM:
            raise InputError(
                f"{ATTRIBUTES}, line {line}: left_mm and posterior_mm, which grow to the patient's left and back, "
                f"place the lesion {away:.0f} mm from where it is drawn, seen from that of line {first}; {fix}"
            )


def _read_table(path: Path, problems: list[str]) -> dict[tuple[str, str], _Slice]:
    """Read the attributes of all lesions; lines that cannot be used are added to ``problems``."""
    found: dict[tuple[str, str], _Slice] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                problems.append(f"{ATTRIBUTES}: the header has no column {', '.join(missing)}; add it")
                return {}
            for row in reader:
                text = {name: (row.get(name) or "").strip() for name in (*_COLUMNS, "hu_difference")}
                wrong = list(_wrong(text))
                problems += [f"{ATTRIBUTES}, line {reader.line_num}: {what}" for what in wrong]
                if wrong:
                    continue
                lesion = lesion_of(text)
                known = found.setdefault((text["case_id"], text["slice_id"]), {})
                first = known.setdefault(lesion.id, (reader.line_num, lesion, text["phase"]))
                if first[1] is not lesion:
                    problems.append(
                        f"{ATTRIBUTES}, line {reader.line_num}: lesion {lesion.id} of the slice is in line {first[0]}, "
                        "too; give every lesion of a slice its own number"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{ATTRIBUTES} is not a CSV file in UTF-8 ({type(error).__name__}); export it as CSV, UTF-8")
    return found


def _wrong(text: dict[str, str]) -> Iterator[str]:
    """Yield what is wrong with a line of the table."""
    if not (text["lesion"].isdecimal() and len(text["lesion"]) < 4 and 1 <= int(text["lesion"]) <= MAX_LESIONS):
        yield f"lesion is not a number from 1 to {MAX_LESIONS}; number the lesions of a slice as in its picture"
    for name, words in _WORDS.items():
        if text[name] not in words:
            yield f"{name} is none of {', '.join(words)}; correct it, or remove {ATTRIBUTES}"
    difference = _number(text["hu_difference"])
    if difference is not None and text["density"] in DENSITIES and text["density"] not in densities_near(difference):
        yield (
            f"density is {text['density']}, and hu_difference {difference:g}; beyond {ISO_HU:g} HU it is low or high; "
            "correct one, or leave hu_difference empty"
        )
    for name in (*_NUMBERS, *(("hu_difference",) if text["hu_difference"] else ())):
        value = _number(text[name])
        if value is None or (name == "diameter_mm" and value <= 0):
            yield f"{name} is not a number{' above 0' if name == 'diameter_mm' else ''}; correct it"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
