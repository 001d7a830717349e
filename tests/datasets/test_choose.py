"""The selection of rows, its record, and data sets whose rows cannot be used."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsms_rt.datasets.choose import choose, record, sample, select_rows, stratum
from lsms_rt.datasets.questions import check_images, questions
from lsms_rt.datasets.refhl import ANNOTATIONS, FIELDS, read_annotations
from lsms_rt.errors import DatasetError, InputError


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases, lesions of three sizes and none, sentences short and long: 48 rows."""
    folder = tmp_path_factory.mktemp("data")
    rows = [",".join(FIELDS)]
    for size, side in (("none", 0), ("small", 2), ("middle", 4), ("large", 30)):
        mask = np.zeros((100, 100), np.uint8)
        mask[10 : 10 + side, 10 : 10 + side] = 255
        Image.fromarray(mask).save(folder / f"{size}.png")
    for case in range(4):
        np.save(folder / f"{case}.npy", np.full((100, 100), -50 - case, np.int16))
        for size in ("none", "small", "middle", "large"):
            for sentence in (
                "the cyst",
                "the cyst in the left lobe",
                "the small dark cyst in the left lobe of the liver",
            ):
                kind = "" if size == "none" else "cyst"
                rows.append(f"c{case},1,{case}.npy,{size}.png,{sentence},{kind},{'train' if case < 3 else 'val'}")
    (folder / ANNOTATIONS).write_text("\n".join(rows) + "\n")
    return folder


def test_the_selection_has_rows_of_every_kind(dataset: Path) -> None:
    rows = read_annotations(dataset, "train")
    chosen = choose(rows, 16, 0)
    strata = [stratum(question) for question in questions(chosen)]
    counts = {key: strata.count(key) for key in strata}
    # Four sizes, two lengths, in turn.
    assert len(counts) == 8
    assert set(counts.values()) == {2}
    assert len({row.case_id for row in chosen}) == 3
    assert chosen == choose(rows, 16, 0)
    assert chosen != choose(rows, 16, 1)
    assert len(choose(rows, 10_000, 0)) == len(rows) == len(set(choose(rows, 10_000, 0)))


def test_the_record_of_a_selection(dataset: Path) -> None:
    rows = choose(read_annotations(dataset), 5, 0)
    recorded = record(rows)
    assert [row["line"] for row in recorded] == [row.line for row in rows]
    for row in recorded:
        assert set(row) == {"line", "image_sha256", "row_sha256"}
    # Digests; no sentences, and no ids.
    assert "cyst" not in json.dumps(recorded) and "c0" not in recorded[0].values()
    other = record([replace(row, sentence="the cyst?") for row in rows])
    assert not {row["row_sha256"] for row in recorded} & {row["row_sha256"] for row in other}


def test_a_sample_is_of_as_many_cases_as_there_are(dataset: Path) -> None:
    rows = read_annotations(dataset)
    assert len({row.case_id for row in sample(rows, 4, 0)}) == 4
    counts = [sum(row.case_id == f"c{case}" for row in sample(rows, 10, 0)) for case in range(4)]
    assert sorted(counts) == [2, 2, 3, 3]
    assert sample(rows, 10, 0) == sample(rows, 10, 0) != sample(rows, 10, 1)
    assert sample(rows, 1000, 0) == rows


def test_rows_of_a_calibration(dataset: Path) -> None:
    rows = select_rows(dataset, "train", "val", slices=6, probe=5, held_out=7, seed=0)
    assert [len(part) for part in (rows.calibration, rows.probe, rows.held_out)] == [6, 5, 7]
    assert {row.split for row in rows.calibration} == {"train"}
    assert {row.split for row in (*rows.probe, *rows.held_out)} == {"val"}
    assert [row.line for row in rows.held_out] == sorted(row.line for row in rows.held_out)
    with pytest.raises(
        InputError, match="has no rows of the split that was asked for; it has split 'train', split 'val'"
    ):
        select_rows(dataset, "nowhere", "val", slices=6, probe=5, held_out=7, seed=0)


# Data sets with bad rows


def test_every_bad_row_is_listed(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path, dirs_exist_ok=True)
    shutil.copy(tmp_path / "0.npy", tmp_path / "x.npy")
    with (tmp_path / ANNOTATIONS).open("a") as file:
        # Line 50 has no image.
        file.write("c9,1,9.npy,small.png,the cyst,cyst,test\n")
        # There is no mask.
        file.write("c8,1,x.npy,nothing.png,the cyst,cyst,test\n")
        # There is no sentence.
        file.write("c7,1,x.npy,small.png,  ,cyst,test\n")
        # The case is a training case.
        file.write("c0,1,x.npy,small.png,the cyst,cyst,test\n")
        # There is no case.
        file.write(",1,x.npy,small.png,the cyst,cyst,test\n")
    with pytest.raises(DatasetError, match=r"53 rows line 50: the image is not a file.*and 4 more") as caught:
        read_annotations(tmp_path)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [f"line {n}" for n in range(50, 55)]
    problems = " | ".join(caught.value.problems)
    for part in (
        "the mask is not a file inside the data set's folder; correct the path",
        "sentence is empty; fill it in",
        "in split 'test' here and in split 'train' in line 2; put all of its rows into one split",
        "case_id is empty",
    ):
        assert part in problems
    assert "\n" not in str(caught.value)


def test_images_and_masks_that_cannot_be_used_are_listed(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, tmp_path, dirs_exist_ok=True)
    Image.fromarray(np.zeros((50, 100), np.uint8)).save(tmp_path / "small.png")
    (tmp_path / "2.npy").write_bytes(b"no array")
    rows = read_annotations(tmp_path)
    with pytest.raises(DatasetError) as caught:
        check_images(tmp_path, rows)
    # The small masks of three cases, and all rows of the third case.
    assert len(caught.value.problems) == 3 * 3 + 12
    assert caught.value.problems[0] == (
        "line 5: the mask has shape (50, 100), but its image has (100, 100); save the mask in the image's own grid"
    )
    assert "line 26: the image: " in " | ".join(caught.value.problems)
    check_images(dataset, read_annotations(dataset))
