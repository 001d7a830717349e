"""Sources with sentences, converted: ReXGroundingCT and M3D-RefSeg."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import convert_sources as sources
import nibabel
import numpy as np
import pytest

from lsms_rt.datasets.convert.convert import Report, convert
from lsms_rt.datasets.convert.options import ConvertOptions
from lsms_rt.datasets.refhl import Annotation, read_annotations
from lsms_rt.errors import DatasetError, InputError
from lsms_rt.reading.load import load_slice

SPLITS = {11: "train", 12: "train", 13: "train", 14: "val", 15: "val", 16: "test", 17: "test"}
NAME = "train_11_a_1.nii.gz"


def rex(source: Path, target: Path, **options: object) -> Report:
    return convert(source, target, ConvertOptions(kind="rexgroundingct", **options))  # type: ignore[arg-type]


def m3d(source: Path, target: Path, **options: object) -> Report:
    return convert(source, target, ConvertOptions(kind="m3d-refseg", **options))  # type: ignore[arg-type]


def check(rows: list[Annotation], seed_of: Callable[[str], int]) -> None:
    """Compare every row with the phantom."""
    true, read = 0, cache(load_slice)
    for row in rows:
        seed, n = seed_of(row.case_id), int(row.slice_id)
        np.testing.assert_array_equal(read(row.image).hu, sources.hu_of(seed)[n])
        mask, own = row.read_mask(), sources.findings_of(seed)
        if mask.any():
            np.testing.assert_array_equal(mask, own[row.sentence][n])
            true += 1
        else:
            assert row.sentence not in own or not own[row.sentence][n].any()
    assert 0 < true < len(rows)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR"])
def test_rexgroundingct(tmp_path: Path, codes: str) -> None:
    report = rex(sources.write_rex(tmp_path / "source", SPLITS, codes), tmp_path / "data")
    rows = read_annotations(tmp_path / "data")
    check(rows, lambda case_id: int(case_id.split("_")[1]))
    assert {int(row.case_id.split("_")[1]): row.split for row in rows} == SPLITS
    assert report.problems == []
    # A report does not name every lesion.
    assert not (tmp_path / "data/lesions").exists()


def test_sentences_true_of_nothing_come_from_other_patients_of_the_split(tmp_path: Path) -> None:
    rex(sources.write_rex(tmp_path / "source", SPLITS), tmp_path / "data")
    false = 0
    for row in read_annotations(tmp_path / "data"):
        seed = int(row.case_id.split("_")[1])
        if not row.read_mask().any():
            others = [other for other, split in SPLITS.items() if split == SPLITS[seed] and other != seed]
            assert any(row.sentence in sources.findings_of(other) for other in others)
            false += 1
    assert false


def test_a_patient_of_two_official_splits_stays_in_the_held_out_one(tmp_path: Path) -> None:
    source = sources.write_rex(tmp_path / "source", SPLITS)
    other = "train_16_b_1.nii.gz"
    for path in source.rglob(NAME):
        path.rename(path.with_name(other))
    text = (source / "dataset.json").read_text()
    (source / "dataset.json").write_text(text.replace(NAME, other))
    report = rex(source, tmp_path / "data")
    assert "train_16_b_1" not in {row.case_id for row in read_annotations(tmp_path / "data")}
    assert any("1 scans are left out" in note for note in report.notes)


def test_scans_that_are_not_in_the_folder_are_counted(tmp_path: Path) -> None:
    source = sources.write_rex(tmp_path / "source", SPLITS)
    (source / "images/train_12/train_12_a_1.nii.gz").unlink()
    (source / "segmentations/train_16_a_1.nii.gz").unlink()
    report = rex(source, tmp_path / "data")
    assert {"1 scans have no CT in the folder", "1 scans have no masks in the folder"} <= set(report.notes)
    assert report.cases == 5


def test_another_layout_of_rexgroundingct_is_refused(tmp_path: Path) -> None:
    source = sources.write_rex(tmp_path / "source", SPLITS)
    table = json.loads((source / "dataset.json").read_text())
    table["val"][0]["findings"] = {"0": {"text": "a nodule"}}
    table["val"][1] = {"id": 3}
    (source / "dataset.json").write_text(json.dumps(table))
    path = source / "segmentations/train_11_a_1.nii.gz"
    image = nibabel.load(path)
    # The findings as the last axis.
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(np.asarray(image.dataobj), 0, -1), image.affine), path)
    path = source / "segmentations/train_12_a_1.nii.gz"
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), np.eye(4)), path)
    with pytest.raises(DatasetError) as caught:
        rex(source, tmp_path / "data")
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4
    for words in (
        "val[0], findings: entry '0' is of type dict",
        "val[1]: expected",
        "findings numbered from 0",
        "affine",
    ):
        assert words in text
    assert rex(source, tmp_path / "data", skip_bad=True).cases == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no dataset.json"):
        rex(tmp_path / "empty", tmp_path / "other")


@pytest.mark.parametrize("codes", ["LPS", "RAS"])
def test_m3d_refseg(tmp_path: Path, codes: str) -> None:
    source = sources.write_m3d(tmp_path / "source", [11, 13, 15, 17], codes)
    for split, seed in (("train", 11), ("train", 15), ("test", 13), ("test", 17)):
        with (source / f"M3D_RefSeg_{split}.csv").open("a") as file:
            header = "" if file.tell() else "Image,Mask,Mask_ID,Question_Type,Question,Answer\n"
            file.write(f"{header}s{seed:04d}/ct.nii.gz,s{seed:04d}/mask.nii.gz,1,0,Where is it?,[SEG]\n")
    report = m3d(source, tmp_path / "data")
    rows = read_annotations(tmp_path / "data")
    check(rows, lambda case_id: int(case_id[1:]))
    splits = {row.case_id: row.split for row in rows}
    assert (splits["s0013"], splits["s0017"]) == ("test", "test")
    assert {splits["s0011"], splits["s0015"]} <= {"train", "val"}
    assert any("an eighth" in note for note in report.notes)


def test_an_official_split_of_questions_is_not_one_of_patients(tmp_path: Path) -> None:
    source = sources.write_m3d(tmp_path / "source", [11, 13])
    for split in ("train", "test"):
        (source / f"M3D_RefSeg_{split}.csv").write_text("Image\ns0011/ct.nii.gz\ns0013/ct.nii.gz\n")
    assert any("2 scans in both parts" in note for note in m3d(source, tmp_path / "data").notes)


def test_bad_scans_of_m3d_refseg_are_listed(tmp_path: Path) -> None:
    source = sources.write_m3d(tmp_path / "source", [11, 12, 13, 15])
    root = source / "M3D_RefSeg"
    (root / "s0011/text.json").write_text('{"1": "a", "99": "b"}')
    (root / "s0012/text.json").write_text("{")
    (root / "s0013/mask.nii.gz").unlink()
    with pytest.raises(DatasetError) as caught:
        m3d(source, tmp_path / "data")
    text = "\n".join(caught.value.problems)
    for words in ("no voxel of region 99", "s0012/text.json: not JSON", "s0013/mask.nii.gz: no such file"):
        assert words in text
    assert m3d(source, tmp_path / "data", skip_bad=True).cases == 1
    prepared = tmp_path / "npy/s0001"
    prepared.mkdir(parents=True)
    (prepared / "ct.npy").touch()
    with pytest.raises(InputError, match="prepared as .npy"):
        m3d(prepared.parent, tmp_path / "other")
