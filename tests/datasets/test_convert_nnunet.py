"""nnU-Net folders and the Decathlon, converted: masks on the right pixels, sentences true of exactly their masks."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import convert_sources as sources
import nibabel
import numpy as np
import pytest
from scipy import ndimage

from lsms_rt.datasets.convert.convert import Report, convert
from lsms_rt.datasets.convert.options import ConvertOptions
from lsms_rt.datasets.knowledge import Knowledge
from lsms_rt.datasets.refhl import Annotation, read_annotations
from lsms_rt.errors import DatasetError, InputError
from lsms_rt.reading.load import load_slice

SEEDS = [11, 12, 13, 15, 17]


def run(source: Path, target: Path, **options: object) -> Report:
    return convert(source, target, ConvertOptions(kind="nnunet", **options))  # type: ignore[arg-type]


def truth_of(row: Annotation) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """HU, labels and lesions of a row's slice, straight from the phantom."""
    seed, n = int(row.case_id.removeprefix("liver_")), int(row.slice_id)
    labels = sources.labels_of(seed)[n]
    pieces, count = ndimage.label(labels == 2, np.ones((3, 3)))
    return sources.hu_of(seed)[n], labels, [pieces == number for number in range(1, count + 1)]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nnunet")
    run(sources.write_nnunet(folder / "source", SEEDS), folder / "data")
    assert (folder / "data").stat().st_mode & 0o077 == 0
    return folder / "data"


@pytest.mark.parametrize(
    "decathlon, codes",
    [(False, ("LPS", "LPS")), (True, ("RAS", "RAS")), (False, ("RAS", "LPS")), (True, ("PIR", "ASL"))],
)
def test_images_and_masks_lie_on_the_right_pixels(tmp_path: Path, decathlon: bool, codes: tuple[str, str]) -> None:
    source = sources.write_nnunet(tmp_path / "source", [11, 13], decathlon=decathlon, codes=codes)
    run(source, tmp_path / "data")
    rows = read_annotations(tmp_path / "data")
    assert {row.case_id for row in rows} == {"liver_11", "liver_13"}
    read = cache(load_slice)
    for row in rows:
        hu, labels, _ = truth_of(row)
        ct = read(row.image)
        np.testing.assert_array_equal(ct.hu, hu)
        spacing = sources.case(int(row.case_id[-2:])).spacing_mm
        np.testing.assert_allclose(ct.spacing_mm, (spacing, spacing), rtol=1e-6)
        assert ct.position_mm == pytest.approx(int(row.slice_id) * sources.STEP_MM, abs=1e-3)
        if row.query == "any" and row.read_mask().any():
            np.testing.assert_array_equal(row.read_mask(), labels == 2)
        assert not (row.read_mask() & (labels != 2)).any()


def test_sentences_are_true_of_exactly_their_masks(converted: Path) -> None:
    """Against a reading of the query that shares no code with the converter."""
    checked = set()
    for row in read_annotations(converted):
        _, _, lesions = truth_of(row)
        heights = [np.nonzero(lesion)[0].mean() for lesion in lesions]
        areas = [int(lesion.sum()) for lesion in lesions]
        spacing = sources.case(int(row.case_id[-2:])).spacing_mm
        diameters = [2 * (area / np.pi) ** 0.5 * spacing for area in areas]
        order = {"largest": np.argsort(areas)[::-1], "smallest": np.argsort(areas)}
        order |= {"most-anterior": np.argsort(heights), "most-posterior": np.argsort(heights)[::-1]}
        rank, _, name = row.query.partition("-")
        if row.query == "any":
            wanted = set(range(len(lesions)))
        elif row.query in ("small", "large"):
            wanted = {i for i, d in enumerate(diameters) if (d < 10 if row.query == "small" else d > 30)}
        elif rank.isdecimal() and name in order:
            wanted = set(order[name][int(rank) - 1 : int(rank)].tolist())
        else:
            continue
        union = np.zeros((sources.MATRIX, sources.MATRIX), bool)
        for i in wanted:
            union |= lesions[i]
        np.testing.assert_array_equal(row.read_mask(), union, err_msg=f"{row.sentence}: {row.query}")
        checked.add(name or row.query)
    assert {"any", "largest", "large"} <= checked


def test_every_lesion_of_a_slice_is_drawn_the_largest_first(converted: Path) -> None:
    slices = {(row.case_id, row.slice_id): row for row in read_annotations(converted)}
    assert len(list((converted / "lesions").rglob("*.png"))) == len(slices)
    knowledge = Knowledge(converted, slices.values())
    assert (knowledge.lesions, knowledge.attributes, knowledge.organs) == (True, False, False)
    for row in slices.values():
        _, labels, lesions = truth_of(row)
        drawn = knowledge.lesions_of(row, labels.shape)
        assert drawn.max() == len(lesions)
        np.testing.assert_array_equal(drawn > 0, labels == 2)
        areas = [int((drawn == number).sum()) for number in range(1, len(lesions) + 1)]
        assert areas == sorted((int(lesion.sum()) for lesion in lesions), reverse=True)


def test_density_is_that_against_the_liver(converted: Path) -> None:
    found = 0
    for row in read_annotations(converted):
        if row.query in ("low", "high"):
            hu, labels, lesions = truth_of(row)
            liver = np.median(hu[labels == 1])
            for lesion in lesions:
                difference = hu[lesion].mean() - liver
                assert bool((row.read_mask() & lesion).any()) == (
                    difference < 0 if row.query == "low" else difference > 0
                )
            found += 1
    assert found


def test_no_word_is_used_that_the_masks_do_not_show(converted: Path) -> None:
    for row in read_annotations(converted):
        words = set(row.sentence.lower().replace("-", " ").split())
        assert not words & {"lobe", "left", "right", "enhancing", "cyst", "cysts", "metastasis", "hcc", "abscess"}
        assert row.lesion_type == ""


def test_every_set_has_sentences_that_are_true_of_nothing(converted: Path) -> None:
    rows = read_annotations(converted)
    empty = [row for row in rows if not row.read_mask().any()]
    assert 0.05 < len(empty) / len(rows) < 0.6
    # Slice 0 has no lesion, so whatever is said of it is false.
    slices = {row.slice_id for row in empty}
    assert "0000" in slices and len(slices) > 1


def test_the_same_source_gives_the_same_rows(tmp_path: Path, converted: Path) -> None:
    # Fewer cases: the rows of a case do not depend on the others.
    run(sources.write_nnunet(tmp_path / "source", SEEDS[:2]), tmp_path / "data")
    text, again = ((folder / "annotations.csv").read_text() for folder in (converted, tmp_path / "data"))
    assert set(again.splitlines()) <= set(text.splitlines())


def test_what_the_source_says_of_itself_is_kept(tmp_path: Path) -> None:
    report = run(sources.write_nnunet(tmp_path / "source", [11], decathlon=True), tmp_path / "data")
    facts = json.loads((tmp_path / "data/dataset.json").read_text())
    assert (facts["kind"], facts["source_license"], facts["source_citation"]) == ("nnunet", "CC-BY-SA 4.0", "a phantom")
    assert facts["labels"] == {"liver": "organ (liver)", "tumor": "lesion"}
    assert "CC-BY-SA 4.0" in (tmp_path / "data/LICENSE-SOURCE.txt").read_text()
    assert (tmp_path / "data/contact_sheet.png").is_file()
    assert not any("license" in note for note in report.notes)
    unknown = run(sources.write_nnunet(tmp_path / "raw", [11]), tmp_path / "other")
    assert any("--license" in note for note in unknown.notes)
    run(tmp_path / "raw", tmp_path / "third", license="CC0", citation="Me, 2026")
    text = (tmp_path / "third/LICENSE-SOURCE.txt").read_text()
    assert "CC0" in text and "Me, 2026" in text


def test_labels_for_a_test_set_are_the_test_split(tmp_path: Path) -> None:
    source = sources.write_nnunet(tmp_path / "source", [11, 12, 13])
    for kind, name in (("images", "liver_13_0000.nii.gz"), ("labels", "liver_13.nii.gz")):
        (source / f"{kind}Ts").mkdir()
        (source / f"{kind}Tr" / name).rename(source / f"{kind}Ts" / name)
    run(source, tmp_path / "data")
    splits = {row.case_id: row.split for row in read_annotations(tmp_path / "data")}
    assert splits["liver_13"] == "test"
    assert {splits["liver_11"], splits["liver_12"]} <= {"train", "val"}


def test_a_region_an_ignored_label_and_the_user_s_words(tmp_path: Path) -> None:
    source = sources.write_nnunet(tmp_path / "source", [13])
    facts = {"labels": {"background": 0, "all": [1, 2], "blob": 2, "ignore": 3}, "channel_names": {"0": "CT"}}
    (source / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"none of its labels .*'all', 'blob', 'ignore'.* --lesion-label"):
        run(source, tmp_path / "data")
    path = source / "labelsTr/liver_13.nii.gz"
    labels = sources.labels_of(13).copy()
    labels[1, 0, 0] = 3
    sources.save_nifti(path, labels, sources.case(13).spacing_mm)
    report = run(source, tmp_path / "data", lesion_labels=("BLO*",), organ_labels=("all",))
    assert report.unused["partly unlabeled"] == 1
    assert all(row.slice_id != "0001" for row in read_annotations(tmp_path / "data"))


def test_every_bad_case_is_listed_with_its_place(tmp_path: Path) -> None:
    source = sources.write_nnunet(tmp_path / "source", [11, 12, 13, 15, 17])
    spacing = sources.case(11).spacing_mm
    # No image; not HU; labels on another grid; a label that dataset.json does not have.
    (source / "imagesTr/liver_11_0000.nii.gz").unlink()
    sources.save_nifti(source / "imagesTr/liver_12_0000.nii.gz", sources.hu_of(12) + 1024, spacing)
    sources.save_nifti(source / "labelsTr/liver_13.nii.gz", sources.labels_of(13), 2 * spacing)
    sources.save_nifti(source / "labelsTr/liver_15.nii.gz", sources.labels_of(15) * 3, sources.case(15).spacing_mm)
    with pytest.raises(DatasetError) as caught:
        run(source, tmp_path / "data")
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [f"liver_{n}" for n in (11, 12, 13, 15)]
    for problem, words in zip(
        caught.value.problems, ("no such file", "not in HU", "resample the mask", "values 3, 6 are not"), strict=True
    ):
        assert words in problem
    assert not (tmp_path / "data").exists()
    report = run(source, tmp_path / "data", skip_bad=True)
    assert len(report.problems) == 4
    assert {row.case_id for row in read_annotations(tmp_path / "data")} == {"liver_17"}


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="^the source: no such folder"):
        run(tmp_path / "nothing", tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="^the source: no dataset.json"):
        run(tmp_path / "empty", tmp_path / "data")
    source = sources.write_nnunet(tmp_path / "source", [11])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(InputError, match="not empty"):
        run(source, tmp_path / "full")
    (source / "dataset.json").write_text(json.dumps({"labels": sources.LABELS, "channel_names": {"0": "T2 MRI"}}))
    with pytest.raises(InputError, match="no channel is CT"):
        run(source, tmp_path / "data")
    (source / "dataset.json").write_text(json.dumps({"labels": sources.LABELS}))
    (source / "labelsTr/liver_11.nii.gz").unlink()
    with pytest.raises(InputError, match="no .nii.gz or .nii file of labels"):
        run(source, tmp_path / "data")
    empty = np.zeros((4, 96, 96), np.uint8)
    sources.save_nifti(source / "labelsTr/liver_11.nii.gz", empty, sources.case(11).spacing_mm)
    sources.save_nifti(source / "imagesTr/liver_11_0000.nii.gz", np.full((4, 96, 96), -50, np.int16), 2.0)
    with pytest.raises(DatasetError, match="corners"):
        run(source, tmp_path / "data")


def test_labels_that_compress_well_are_read(tmp_path: Path) -> None:
    """A label map of a large scan inflates a thousandfold, which the reader of unknown files refuses."""
    from lsms_rt.reading.nifti import read_nifti

    path = tmp_path / "labels.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((512, 512, 270), np.uint8), np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    with pytest.raises(InputError, match="compresses"):
        read_nifti(path, "labels")
    assert len(read_nifti(path, "labels", trusted=True)) == 270
