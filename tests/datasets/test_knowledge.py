"""What a data set knows besides masks and sentences: read as it is, and refused where it is half there."""

from __future__ import annotations

import csv
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsms_rt.datasets.knowledge import ATTRIBUTES, LESIONS, ORGANS, Knowledge, picture_of
from lsms_rt.datasets.png import write_labels
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.errors import InputError
from lsms_rt.privacy import show_names

SHAPE = (20, 24)
LESION = {
    "case_id": "Doe", "slice_id": "1", "lesion": "3", "lesion_type": "cyst", "phase": "portal", "lobe": "left",
    "density": "low", "enhancement": "none", "margin": "sharp", "diameter_mm": "12.5", "left_mm": "-3",
    "posterior_mm": "4.5", "hu_difference": "-40.5",
}  # fmt: skip
OTHER = LESION | {"lesion": "7", "lobe": "right", "diameter_mm": "8", "left_mm": "25.5", "posterior_mm": "23"}
# Between rows and between columns, mm.
SPACING = (2.5, 5.0)


def drawn(first: int = 3) -> np.ndarray:
    """Two lesions: of 3x3 and 2x2 pixels, the second 7.5 rows below and 6 columns beside the other."""
    lesions = np.zeros(SHAPE, np.uint8)
    lesions[2:5, 3:6], lesions[10:12, 9:11] = first, 7
    return lesions


def row_of(folder: Path, line: int = 2, image: str = "a.npy") -> Annotation:
    nothing = folder / "m.png"
    return Annotation("Doe", "1", folder / image, nothing, "the cyst", "cyst", "train", line=line)


def known(folder: Path) -> Knowledge:
    """What is known of the slice, and of one more, which has pictures."""
    other = Annotation("Roe", "1", folder / "b.npy", folder / "m.png", "the cyst", "cyst", "train", line=5)
    return Knowledge(folder, [row_of(folder), other])


def write_lesions(folder: Path, *rows: dict[str, str], without: str = "") -> None:
    with (folder / ATTRIBUTES).open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in LESION if name != without], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One slice with the lesions 3 and 7 in the liver."""
    write_labels(picture_of(tmp_path, LESIONS, "Doe", "1"), drawn())
    write_labels(picture_of(tmp_path, ORGANS, "Doe", "1"), np.full(SHAPE, 6, np.uint8))
    write_lesions(tmp_path, LESION, OTHER)
    return tmp_path


def test_what_is_written_is_read(folder: Path) -> None:
    found = known(folder)
    assert (found.lesions, found.attributes, found.organs, found.problems) == (True, True, True, [])
    assert set(np.unique(found.lesions_of(row_of(folder), SHAPE))) == {0, 3, 7}
    assert set(np.unique(found.organs_of(row_of(folder), SHAPE))) == {6}
    (first, second), phase = found.attributes_of(row_of(folder), drawn(), SPACING)
    assert (first.id, first.type, first.lobe, first.diameter_mm) == (3, "cyst", "left", 12.5)
    assert (first.centroid_mm, first.hu_difference, second.lobe, phase) == ((-3, 4.5), -40.5, "right", "portal")


def test_a_data_set_without_any_of_it_knows_nothing(tmp_path: Path) -> None:
    """A table without pictures, as older phantoms have it, says nothing either."""
    write_lesions(tmp_path, LESION)
    found = known(tmp_path)
    assert (found.lesions, found.attributes, found.organs, found.problems) == (False, False, False, [])


def test_folders_of_the_same_names_with_other_files_say_nothing(tmp_path: Path) -> None:
    for part in (LESIONS, ORGANS):
        write_labels(tmp_path / part / "mask.png", np.zeros(SHAPE, np.uint8))
    assert not known(tmp_path).lesions
    assert not known(tmp_path).organs


def test_a_slice_without_lesions_needs_no_row(folder: Path) -> None:
    write_lesions(folder)
    assert known(folder).attributes_of(row_of(folder), np.zeros(SHAPE, np.uint8), SPACING) == ((), "")


def test_the_difference_in_hu_may_be_unknown(folder: Path) -> None:
    write_lesions(folder, LESION, OTHER, without="hu_difference")
    assert known(folder).attributes_of(row_of(folder), drawn(), SPACING)[0][0].hu_difference is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lesion": "0"}, "lesion is not a number from 1 to 255"),
        ({"lesion": "256"}, "lesion is not a number"),
        ({"lesion": "first"}, "lesion is not a number"),
        ({"lesion": "3"}, "lesion 3 of the slice is in line 2, too"),
        ({"lesion_type": "Doe"}, "lesion_type is none of cyst, "),
        ({"phase": "native"}, "phase is none of noncontrast, "),
        ({"lobe": ""}, "lobe is none of left, right; correct it"),
        ({"density": "dark"}, "density is none of"),
        ({"enhancement": "diffuse"}, "enhancement is none of"),
        ({"margin": "?"}, "margin is none of"),
        ({"diameter_mm": "0"}, "diameter_mm is not a number above 0"),
        ({"left_mm": "nan"}, "left_mm is not a number; correct it"),
        ({"posterior_mm": ""}, "posterior_mm is not a number"),
        ({"hu_difference": "x"}, "hu_difference is not a number"),
        ({"density": "high"}, "density is high, and hu_difference -40.5; beyond 12 HU it is low or high; correct one"),
        ({"hu_difference": "-8"}, "density is low, and hu_difference -8; "),
    ],
)
def test_lines_of_the_table_that_cannot_be_used(folder: Path, changes: dict[str, str], words: str) -> None:
    write_lesions(folder, LESION, OTHER | changes)
    (problem,) = known(folder).problems
    assert problem.startswith("lesions.csv, line 3: ")
    assert words in problem
    assert "Doe" not in problem


def test_tables_that_cannot_be_used(folder: Path) -> None:
    write_lesions(folder, LESION, without="margin")
    assert known(folder).problems == ["lesions.csv: the header has no column margin; add it"]
    (folder / ATTRIBUTES).write_bytes(b"case_id\xff")
    assert "not a CSV file in UTF-8" in known(folder).problems[0]


def test_a_table_and_a_picture_that_differ(folder: Path) -> None:
    found = known(folder)
    with pytest.raises(InputError, match=r"^line 2: .* shows lesion 4, which lesions.csv does not have for this slice"):
        found.attributes_of(row_of(folder), drawn(4), SPACING)
    with pytest.raises(InputError, match=r"^lesions.csv, line 3: the picture of lesions does not show lesion 7; draw"):
        found.attributes_of(row_of(folder), np.where(drawn() == 7, 0, drawn()), SPACING)
    write_lesions(folder, LESION, OTHER | {"phase": "delayed"})
    with pytest.raises(InputError, match=r"^lesions.csv, lines 2, 3: 2 phases in one slice"):
        known(folder).attributes_of(row_of(folder), drawn(), SPACING)


SWAPPED = [{"lesion": "7", "diameter_mm": "10"}, {"lesion": "3", "diameter_mm": "10"}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (SWAPPED, "line 2: left_mm and posterior_mm, .* the lesion 67 mm from .* seen from that of line 3"),
        ([{"left_mm": "3"}, {"left_mm": "-25.5"}], "line 3: .* place the lesion 56 mm from where it is drawn"),
        ([{}, {"posterior_mm": "-23"}], "line 3: .* place the lesion 46 mm from"),
        ([{"diameter_mm": "1.25"}, {}], "line 2: diameter_mm is 1.25, and a disc of the area .* has 12.0 mm"),
        ([{}, {"diameter_mm": "12.5"}], "line 3: diameter_mm is 12.5, and a disc of the area .* has 8.0 mm"),
    ],
)
def test_sizes_and_places_must_be_those_of_the_picture(folder: Path, changes: list[dict[str, str]], words: str) -> None:
    """Numbers that were mixed up, axes that point elsewhere, and centimeters would teach wrong words."""
    write_lesions(folder, LESION | changes[0], OTHER | changes[1])
    with pytest.raises(InputError, match=f"^lesions.csv, {words}.*; correct the line, or the lesion's number, or rem"):
        known(folder).attributes_of(row_of(folder), drawn(), SPACING)


def test_without_a_pixel_spacing_millimeters_cannot_be_compared(folder: Path) -> None:
    write_lesions(folder, LESION | {"diameter_mm": "99"}, OTHER | {"left_mm": "-99"})
    assert len(known(folder).attributes_of(row_of(folder), drawn(), None)[0]) == 2


def _outside(path: Path) -> None:
    secret = path.parents[3] / "secret.png"
    secret.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(secret)


def gray_of_4_bits(shape: tuple[int, int]) -> bytes:
    """A PNG of ones, which Pillow reads as 17."""
    rows, columns = shape
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", columns, rows, 4, 0, 0, 0, 0),
        b"IDAT": zlib.compress(rows * (b"\0" + columns // 2 * b"\x11")),
        b"IEND": b"",
    }
    chunks = [struct.pack(">I", len(v)) + k + v + struct.pack(">I", zlib.crc32(k + v)) for k, v in parts.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: p.unlink(), "is not a file inside the .*, and other slices have theirs; add {part}/CASE"),
    "outside": (_outside, "is not a file inside the data set's folder"),
    "damaged": (lambda p: p.write_bytes(p.read_bytes()[:50]), "is not a readable PNG"),
    "of another grid": (
        lambda p: write_labels(p, np.zeros((24, 20), np.uint8)),
        r"shape \(24, 20\), but its",
    ),
    # Pillow would warn of more than 89 million pixels.
    "too large": (
        lambda p: p.write_bytes(gray_of_4_bits((10_000, 10_000))),
        r"has 10000x10000 pixels, more than 4096 along a side; save it as .*, in the image's own grid$",
    ),
    "of color": (lambda p: write_labels(p, np.zeros((*SHAPE, 3), np.uint8)), r"not \(H, W\)"),
    "of 4 bits": (lambda p: p.write_bytes(gray_of_4_bits(SHAPE)), "has mode L;4"),
    "of 16 bits": (lambda p: Image.fromarray(np.zeros(SHAPE, np.uint16)).save(p), "has mode I;16"),
}


@pytest.mark.parametrize("part", [LESIONS, ORGANS])
@pytest.mark.parametrize("damage", DAMAGES)
def test_pictures_that_cannot_be_used(tmp_path: Path, part: str, damage: str) -> None:
    data = tmp_path / "data"
    path = picture_of(data, part, "Doe", "1")
    write_labels(path, np.zeros(SHAPE, np.uint8))
    write_labels(picture_of(data, part, "Roe", "1"), np.zeros(SHAPE, np.uint8))
    break_it, words = DAMAGES[damage]
    break_it(path)
    found = known(data)
    read = {LESIONS: found.lesions_of, ORGANS: found.organs_of}[part]
    with pytest.raises(InputError, match=f"^line 2: the picture of {part} .*{words.format(part=part)}") as caught:
        read(row_of(data), SHAPE)
    assert "Doe" not in str(caught.value)


def test_a_value_that_is_no_organ(folder: Path) -> None:
    write_labels(picture_of(folder, ORGANS, "Doe", "1"), np.full(SHAPE, 23, np.uint8))
    with pytest.raises(InputError, match="^line 2: the picture of organs has the value 23; organs are 0 to 22"):
        known(folder).organs_of(row_of(folder), SHAPE)


def test_one_picture_for_two_images(folder: Path) -> None:
    found = known(folder)
    found.lesions_of(row_of(folder), SHAPE)
    with pytest.raises(InputError, match="^line 9: .* is also that of line 2, which has another image"):
        found.lesions_of(row_of(folder, line=9, image="b.npy"), SHAPE)


def test_names_are_shown_on_request(folder: Path) -> None:
    show_names()
    try:
        with pytest.raises(InputError, match="picture of lesions 'lesions/Doe/1.png' has mode L"):
            known(folder).lesions_of(row_of(folder), (5, 5))
    finally:
        show_names(False)
