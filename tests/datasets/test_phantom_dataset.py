"""RefHL-Phantom on disk: the layout, exact pixels, the same bytes every time, and its size and splits."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from lsms_rt.datasets.phantom import PHANTOM_VERSION
from lsms_rt.datasets.phantom.case import Case, generate_case
from lsms_rt.datasets.phantom.dataset import LESION_FIELDS, write_phantom
from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.datasets.phantom.spec import PhantomSpec
from lsms_rt.datasets.refhl import FIELDS, read_annotations
from lsms_rt.errors import InputError
from lsms_rt.reading.load import load_slice, load_slices

SPEC = PhantomSpec(cases=3, seed=2, matrix=96)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phantom") / "new" / "data"
    assert write_phantom(path, SPEC, workers=1) == sum(SPEC.slices_per_case())
    return path


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [generate_case(2000 + number, count, 96) for number, count in enumerate(SPEC.slices_per_case())]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_layout(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "annotations.csv", "lesions.csv", "images", "masks", "lesions", "organs", "contact_sheet.png", "README.md",
        "dataset.json",
    }  # fmt: skip
    for number, count in enumerate(SPEC.slices_per_case()):
        images = sorted(path.name for path in (folder / f"images/case_{number:03d}").iterdir())
        assert images == [f"{index:03d}.dcm" for index in range(count)]
    masks = {path.relative_to(folder).as_posix() for path in (folder / "masks").rglob("*.png")}
    assert masks == {row["mask"] for row in table(folder / "annotations.csv")}
    assert f"{sum(SPEC.slices_per_case())} slices" in (folder / "README.md").read_text()
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert np.asarray(sheet).std() > 10


def test_the_version_is_written(folder: Path) -> None:
    slices = sum(SPEC.slices_per_case())
    facts = {"version": PHANTOM_VERSION, "seed": 2, "cases": 3, "slices": slices, "matrix": 96}
    assert json.loads((folder / "dataset.json").read_text()) == facts and PHANTOM_VERSION == 2
    assert "Version 2, seed 2, 3 cases" in (folder / "README.md").read_text()


def test_annotations(folder: Path) -> None:
    rows = table(folder / "annotations.csv")
    assert tuple(rows[0]) == (*FIELDS, "query")
    images = {path.relative_to(folder).as_posix() for path in (folder / "images").rglob("*.dcm")}
    assert {row["image"] for row in rows} == images, "every slice has a sentence"
    for row in rows:
        assert row["sentence"].strip() and row["query"] and row["split"] in ("train", "val", "test")
        assert row["image"] == f"images/{row['case_id']}/{row['slice_id']}.dcm"
        assert (row["lesion_type"] == "") == row["mask"].endswith("_none.png")
    paraphrased = Counter((row["image"], row["query"]) for row in rows)
    assert max(paraphrased.values()) == 2
    assert len(read_annotations(folder)) == len(rows)


def test_masks_are_the_lesions_that_they_name(folder: Path, cases: list[Case]) -> None:
    for row in read_annotations(folder):
        item = cases[int(row.case_id[5:])].slices[int(row.slice_id)]
        named = row.mask.stem.split("_")[1]
        lesions = [] if named == "none" else [item.lesions[int(place) - 1] for place in named.split("-")]
        expected = np.zeros(item.hu.shape, bool)
        for lesion in lesions:
            expected |= lesion.mask
        np.testing.assert_array_equal(row.read_mask(), expected)
        assert row.lesion_type == "+".join(sorted({lesion.type for lesion in lesions}))
        with Image.open(row.mask) as picture:
            assert picture.mode == "L" and set(np.unique(np.asarray(picture)).tolist()) <= {0, 255}


def test_lesion_table(folder: Path, cases: list[Case]) -> None:
    rows = table(folder / "lesions.csv")
    assert tuple(rows[0]) == LESION_FIELDS
    assert len(rows) == sum(len(item.lesions) for case in cases for item in case.slices)
    for row in rows:
        case = cases[int(row["case_id"][5:])]
        lesion = case.slices[int(row["slice_id"])].lesions[int(row["lesion"]) - 1]
        assert (row["lesion_type"], row["phase"], row["lobe"]) == (lesion.type, case.phase, lesion.lobe)
        assert float(row["diameter_mm"]) == pytest.approx(lesion.diameter_mm, abs=0.06)
        assert float(row["hu_difference"]) == pytest.approx(lesion.hu_difference, abs=0.06)
        assert float(row["area_mm2"]) == pytest.approx(np.pi * lesion.diameter_mm**2 / 4, abs=0.06)


def test_every_slice_has_its_lesions_and_organs_drawn(folder: Path, cases: list[Case]) -> None:
    for number, case in enumerate(cases):
        for index, item in enumerate(case.slices):
            name = f"case_{number:03d}/{index:03d}.png"
            with Image.open(folder / "lesions" / name) as lesions, Image.open(folder / "organs" / name) as organs:
                assert lesions.mode == organs.mode == "L"
                np.testing.assert_array_equal(organs, item.labels)
                drawn = np.asarray(lesions)
            assert drawn.max() == len(item.lesions)
            for place, lesion in enumerate(item.lesions, 1):
                np.testing.assert_array_equal(drawn == place, lesion.mask)


def test_dicom_files(folder: Path, cases: list[Case]) -> None:
    instances, series = set(), []
    for number, case in enumerate(cases):
        read = [pydicom.dcmread(path) for path in sorted((folder / f"images/case_{number:03d}").iterdir())]
        for index, (ds, item) in enumerate(zip(read, case.slices, strict=True)):
            hu = ds.pixel_array * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
            np.testing.assert_array_equal(hu, item.hu)
            assert (ds.Modality, ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType) == ("CT", 1, -1024, "HU")
            assert int(ds.KVP) == case.kvp
            assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == pydicom.uid.CTImageStorage
            assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
            assert list(ds.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0] and ds.InstanceNumber == index + 1
            np.testing.assert_allclose(ds.PixelSpacing, case.spacing_mm, atol=1e-5)
            # Pixel centers lie symmetrically about the origin.
            np.testing.assert_allclose(ds.ImagePositionPatient[:2], -(96 - 1) / 2 * case.spacing_mm, atol=1e-4)
            instances.add(ds.SOPInstanceUID)
        z = np.array([float(ds.ImagePositionPatient[2]) for ds in read])
        assert (np.diff(z) < 0).all(), "files run from head to feet"
        np.testing.assert_allclose(-z, [item.z_mm for item in case.slices], atol=1e-4)
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
            assert len({ds[name].value for ds in read}) == 1
        series.append(read[0].SeriesInstanceUID)
    assert len(instances) == sum(len(case.slices) for case in cases) and len(set(series)) == len(cases)


def test_our_own_reader_takes_files_and_series(folder: Path, cases: list[Case]) -> None:
    one = load_slice(folder / "images/case_001/002.dcm")
    np.testing.assert_array_equal(one.hu, cases[1].slices[2].hu)
    assert one.flips == (False, False) and not one.transposed
    np.testing.assert_allclose(one.spacing_mm, cases[1].spacing_mm, atol=1e-5)
    # Feet to head, the reverse of the files.
    series = load_slices(folder / "images/case_001")
    for ct, item in zip(series, reversed(cases[1].slices), strict=True):
        np.testing.assert_array_equal(ct.hu, item.hu)


def test_the_whole_range_of_ct_is_kept(tmp_path: Path, cases: list[Case]) -> None:
    hu = np.linspace(-1024, 3071, 96 * 96).round().astype(np.int16).reshape(96, 96)
    case = replace(cases[0], slices=(replace(cases[0].slices[0], hu=hu),))
    write_slice(tmp_path / "a.dcm", case, 0, "case_000")
    np.testing.assert_array_equal(load_slice(tmp_path / "a.dcm").hu, hu)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Of other processes, and of this one a second time: of a case, and of what is written about all cases."""
    write_phantom(tmp_path / "again", SPEC, workers=2)
    small = PhantomSpec(cases=1, seed=2, matrix=64)
    for name in ("one", "two"):
        write_phantom(tmp_path / name, small, workers=1)
    for first, again in ((folder, tmp_path / "again"), (tmp_path / "one", tmp_path / "two")):
        files, others = contents(first), contents(again)
        assert files.keys() == others.keys()
        assert [name for name in files if files[name] != others[name]] == []


def test_another_seed_gives_other_data(folder: Path, tmp_path: Path) -> None:
    write_phantom(tmp_path / "other", PhantomSpec(cases=1, seed=1, matrix=96), workers=1)
    image = "images/case_000/000.dcm"
    assert (tmp_path / "other" / image).read_bytes() != (folder / image).read_bytes()


def test_default_size() -> None:
    counts, splits = PhantomSpec().slices_per_case(), PhantomSpec().splits()
    assert len(counts) == 231 and sum(counts) == 2283
    assert min(counts) >= 6 and max(counts) <= 14
    assert Counter(splits) == {"train": 162, "val": 23, "test": 46}
    assert PhantomSpec().splits() == splits != PhantomSpec(seed=1).splits()


@pytest.mark.parametrize("cases", [1, 2, 10, 60, 1000])
def test_other_sizes(cases: int) -> None:
    spec = PhantomSpec(cases=cases)
    assert len(spec.splits()) == cases and sum(spec.slices_per_case()) == round(cases * 2283 / 231)
    if cases >= 10:
        share = {split: count / cases for split, count in Counter(spec.splits()).items()}
        assert share == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.02)


def test_a_case_is_in_one_split(folder: Path) -> None:
    splits = {(row["case_id"], row["split"]) for row in table(folder / "annotations.csv")}
    assert dict(splits) == {f"case_{number:03d}": split for number, split in enumerate(SPEC.splits())}
    assert len(splits) == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"cases": 0}, "--cases 0; give 1 to 1000"),
        ({"cases": 1001}, "--cases 1001"),
        ({"seed": -1}, "--seed -1"),
        ({"seed": 5000}, "--seed 5000; give 0 to 4999"),
        ({"matrix": 63}, "--matrix 63; give 64 to 1024"),
        ({"matrix": 1025}, "--matrix 1025"),
    ],
)
def test_bad_values(values: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PhantomSpec(**values)


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("mine")
    for path in (tmp_path, note):
        with pytest.raises(InputError, match="exists and is not empty; give a new folder"):
            write_phantom(path, SPEC, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"] and note.read_text() == "mine"


@pytest.mark.slow
def test_share_of_false_sentences(tmp_path: Path) -> None:
    write_phantom(tmp_path / "many", PhantomSpec(cases=6, matrix=64), workers=1)
    rows = table(tmp_path / "many/annotations.csv")
    share = sum(row["mask"].endswith("_none.png") for row in rows) / len(rows)
    assert 0.10 < share < 0.25
