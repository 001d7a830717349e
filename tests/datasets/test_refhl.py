"""The reader of the RefHL-Seg layout: valid data sets, and one line about each invalid row."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsms_rt.datasets.refhl import ANNOTATIONS, FIELDS, read_annotations
from lsms_rt.errors import InputError
from lsms_rt.reading.load import load_slice

ROW = {
    "case_id": "a", "slice_id": "001", "image": "images/a.npy", "mask": "masks/a.png",
    "sentence": "the cyst, in the left lobe", "lesion_type": "cyst", "split": "train",
}  # fmt: skip

OTHER = ROW | {"case_id": "b", "image": "images/b.npy", "split": "test"}


def write(
    folder: Path, *rows: dict[str, str], fields: tuple[str, ...] = FIELDS, mask: np.ndarray | None = None
) -> Path:
    """A data set of one image and one mask with the given rows."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for name in ("a", "b"):
        np.save(folder / f"images/{name}.npy", np.full((20, 24), -50, np.float32))
    if mask is None:
        mask = np.zeros((20, 24), np.uint8)
        mask[3:6, 4:9] = 255
    Image.fromarray(mask).save(folder / "masks/a.png")
    with (folder / ANNOTATIONS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_good_data_set(tmp_path: Path) -> None:
    rows = read_annotations(write(tmp_path / "d", ROW, OTHER | {"sentence": "Läsion"}))
    assert [row.split for row in rows] == ["train", "test"]
    assert rows[0].sentence == "the cyst, in the left lobe" and rows[1].sentence == "Läsion"
    assert (rows[0].case_id, rows[0].slice_id, rows[0].lesion_type, rows[0].query) == ("a", "001", "cyst", "")
    assert load_slice(rows[0].image).hu.shape == (20, 24)
    mask = rows[0].read_mask()
    assert mask.dtype == bool and mask.shape == (20, 24) and mask.sum() == 15


def test_further_columns_and_the_query(tmp_path: Path) -> None:
    fields = ("note", *FIELDS, "query")
    rows = read_annotations(str(write(tmp_path / "d", ROW | {"note": "x", "query": "low+left"}, fields=fields)))
    assert rows[0].query == "low+left"


def test_split(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", ROW, OTHER)
    assert len(read_annotations(folder, "test")) == 1
    with pytest.raises(InputError, match="has no rows of split 'val'; it has split 'test', split 'train'"):
        read_annotations(folder, "val")


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no rows; add one row per sentence"):
        read_annotations(write(tmp_path / "d"))


def test_no_table(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            InputError,
            match=r"annotations.csv was not found in the data set's folder; create one with: lsms-rt phantom",
        ):
            read_annotations(folder)


def test_missing_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the header has no column mask, split; add it"):
        read_annotations(write(tmp_path / "d", ROW, fields=tuple(f for f in FIELDS if f not in ("mask", "split"))))


@pytest.mark.parametrize("column", ["image", "mask"])
@pytest.mark.parametrize(
    "path", ["images/none.npy", "images", "", "../secret.npy", "{outside}", "images/../../secret.npy"]
)
def test_paths_that_are_not_files_of_the_data_set(tmp_path: Path, column: str, path: str) -> None:
    secret = tmp_path / "secret.npy"
    np.save(secret, np.zeros((20, 24)))
    bad = ROW | {column: path.format(outside=secret)}
    with pytest.raises(InputError, match=f"line 3: the {column} ") as caught:
        read_annotations(write(tmp_path / "d", ROW, bad))
    assert "\n" not in str(caught.value)


def test_a_link_out_of_the_folder_is_rejected(tmp_path: Path) -> None:
    secret = tmp_path / "secret.npy"
    np.save(secret, np.zeros((20, 24)))
    folder = write(tmp_path / "d", ROW | {"image": "images/link.npy"})
    (folder / "images/link.npy").symlink_to(secret)
    with pytest.raises(InputError, match="is not a file inside the data set's folder"):
        read_annotations(folder)


def test_a_short_row_is_an_input_error(tmp_path: Path) -> None:
    folder = write(tmp_path / "d", ROW)
    with (folder / ANNOTATIONS).open("a") as file:
        file.write("b,002\n")
    with pytest.raises(InputError, match="line 3: the image"):
        read_annotations(folder)


def test_mask_of_one_bit(tmp_path: Path) -> None:
    mask = np.zeros((20, 24), bool)
    mask[2, 3] = True
    (row,) = read_annotations(write(tmp_path / "d", ROW, mask=mask))
    np.testing.assert_array_equal(row.read_mask(), mask)


def test_bad_masks(tmp_path: Path) -> None:
    (row,) = read_annotations(write(tmp_path / "color", ROW, mask=np.zeros((20, 24, 3), np.uint8)))
    with pytest.raises(
        InputError, match=r"line 2: the mask has shape \(20, 24, 3\), not \(H, W\); save it as a grayscale PNG"
    ):
        row.read_mask()
    (row,) = read_annotations(write(tmp_path / "broken", ROW))
    for content in (b"no picture", row.mask.read_bytes()[:60]):
        row.mask.write_bytes(content)
        with pytest.raises(InputError, match="line 2: the mask is not a readable PNG .*; save it as"):
            row.read_mask()


@pytest.mark.parametrize("value", [1, 2, 128])
def test_a_mask_with_other_values_than_0_and_255_is_rejected(tmp_path: Path, value: int) -> None:
    """Exported as 0 and 1, it would be an empty mask, and every sentence negative."""
    mask = np.zeros((20, 24), np.uint8)
    mask[3, 4] = value
    (row,) = read_annotations(write(tmp_path / "d", ROW, mask=mask))
    with pytest.raises(
        InputError, match=f"mode L and values 0, {value}; save it as a grayscale PNG with the values 0 and 255 only"
    ):
        row.read_mask()
    Image.fromarray(mask).convert("P").save(row.mask)
    with pytest.raises(InputError, match="mode P"):
        row.read_mask()


def test_spaces_hide_no_leakage(tmp_path: Path) -> None:
    rows = read_annotations(write(tmp_path / "a", ROW, ROW | {"case_id": " a ", "split": "train "}))
    assert {(row.case_id, row.split) for row in rows} == {("a", "train")}
    with pytest.raises(InputError, match=r"line 3: the case is in split 'test' here and in split 'train' in line 2"):
        read_annotations(write(tmp_path / "b", ROW, OTHER | {"case_id": "a "}))
    with pytest.raises(InputError, match=r"line 3: the image is in split 'test'"):
        read_annotations(write(tmp_path / "c", ROW, OTHER | {"image": "images/a.npy"}))
