"""CT series with DICOM Segmentations, converted: paired by UIDs, laid over by position, labels told apart."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import convert_sources as sources
import numpy as np
import pydicom
import pytest
from fake_results import DIGEST, answer_with

from lsms_rt.datasets.convert.convert import Report, convert
from lsms_rt.datasets.convert.options import ConvertOptions
from lsms_rt.datasets.refhl import read_annotations
from lsms_rt.errors import DatasetError, InputError
from lsms_rt.privacy import show_names
from lsms_rt.reading.load import load_slice, load_slices
from lsms_rt.writing import write_seg

pytest.importorskip("highdicom")


def run(source: Path, target: Path, **options: object) -> Report:
    return convert(source, target, ConvertOptions(kind="seg", **options))  # type: ignore[arg-type]


def write_patient(folder: Path, seed: int, *, flipped: bool = False, **options: object) -> None:
    """Write images and Segmentation into different folders, as an archive of TCIA has them."""
    images = sources.write_series(folder / f"P{seed}" / "ct", seed, f"P{seed}", flipped=flipped)
    segments = sources.segments_of(seed, flipped=flipped)
    sources.write_seg_of(folder / f"P{seed}" / "other" / "seg.dcm", images, segments, **options)


@pytest.mark.parametrize(
    "flipped, options", [(False, {}), (True, {}), (False, {"kind": "FRACTIONAL", "max_fractional_value": 200})]
)
def test_images_and_masks_lie_on_the_right_pixels(tmp_path: Path, flipped: bool, options: dict[str, object]) -> None:
    for seed in (11, 13):
        write_patient(tmp_path / "source", seed, flipped=flipped, **options)
    run(tmp_path / "source", tmp_path / "data")
    rows = read_annotations(tmp_path / "data")
    assert {row.case_id for row in rows} == {"case_0000", "case_0001"}
    seen, read = 0, cache(load_slice)
    for row in rows:
        seed, n = (11, 13)[int(row.case_id[-1])], int(row.slice_id)
        ct, mask = read(row.image), row.read_mask()
        np.testing.assert_array_equal(ct.hu, sources.hu_of(seed)[n])
        spacing = sources.case(seed).spacing_mm
        np.testing.assert_allclose(ct.spacing_mm, (spacing, spacing), atol=1e-5)
        truth = sources.labels_of(seed)[n] == 2
        assert not (mask & ~truth).any()
        if row.query == "any" and mask.any():
            np.testing.assert_array_equal(mask, truth)
            seen += 1
    assert seen
    assert any(not row.read_mask().any() for row in rows)


def test_a_label_map_segmentation_is_read(tmp_path: Path) -> None:
    images = sources.write_series(tmp_path / "source", 13, "P13")
    labels = sources.labels_of(13)
    kind = {"kind": "LABELMAP", "workers": 0}
    try:
        sources.write_seg_of(tmp_path / "source/seg.dcm", images, {"liver": labels == 1, "lesion": labels == 2}, **kind)
    except (TypeError, ValueError):
        pytest.skip("this highdicom writes no label maps")
    run(tmp_path / "source", tmp_path / "data")
    for row in read_annotations(tmp_path / "data"):
        if row.query == "any" and row.read_mask().any():
            np.testing.assert_array_equal(row.read_mask(), labels[int(row.slice_id)] == 2)


def test_lobes_and_types_are_said_where_a_label_says_them(tmp_path: Path) -> None:
    for seed in (13, 15, 17):
        images = sources.write_series(tmp_path / "source" / f"P{seed}", seed, f"P{seed}")
        labels = sources.labels_of(seed)
        columns = np.arange(sources.MATRIX)
        segments = {
            "Right lobe of liver": (labels == 1) & (columns < 48),
            "Left lobe of liver": (labels == 1) & (columns >= 48),
            "Colorectal metastasis": labels == 2,
        }
        sources.write_seg_of(tmp_path / "source" / f"{seed}.dcm", images, segments)
    run(tmp_path / "source", tmp_path / "data")
    rows = read_annotations(tmp_path / "data")
    lobes = [(row, word) for row in rows for word in ("left", "right") if word in row.query.split("+")]
    assert len({word for _, word in lobes}) == 2
    for row, word in lobes:
        columns_of_mask = np.nonzero(row.read_mask())[1]
        assert (columns_of_mask >= 48).all() if word == "left" else (columns_of_mask < 48).all()
    assert {row.lesion_type for row in rows if row.read_mask().any()} == {"metastasis"}
    assert any("metasta" in row.sentence for row in rows)
    assert not any("cyst" in row.sentence for row in rows)


def test_what_predict_writes_is_converted(tmp_path: Path) -> None:
    sources.write_series(tmp_path / "source", 13, "P13")
    slices = load_slices(tmp_path / "source")
    labels = sources.labels_of(13)
    results = [answer_with(ct, labels[n] == 2) for n, ct in enumerate(slices)]
    write_seg(results, tmp_path / "source/answer.dcm", engine_digest=DIGEST)
    report = run(tmp_path / "source", tmp_path / "data")
    assert report.cases == 1
    for row in read_annotations(tmp_path / "data"):
        if row.query == "any" and row.read_mask().any():
            np.testing.assert_array_equal(row.read_mask(), labels[int(row.slice_id)] == 2)
        # There is no mask of the liver, so neither the liver nor a density is named.
        assert "liver" not in row.sentence
        assert "low" not in row.query and "high" not in row.query


@pytest.mark.slow
def test_scans_of_one_patient_are_in_one_split(tmp_path: Path) -> None:
    patients = {}
    for number, seed in enumerate((11, 12, 13, 15, 17, 11, 12, 13, 15, 17)):
        patient = f"P{number // 2}"
        images = sources.write_series(tmp_path / "source" / str(number), seed, patient)
        uid = pydicom.uid.generate_uid()
        for image in images:
            image.SeriesInstanceUID, image.SOPInstanceUID = uid, pydicom.uid.generate_uid()
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            image.save_as(image.filename)
        sources.write_seg_of(tmp_path / "source" / f"{number}.dcm", images, sources.segments_of(seed))
        patients[patient] = seed
    run(tmp_path / "source", tmp_path / "data", names=True, slices_per_case=2, seed=3)
    rows = read_annotations(tmp_path / "data")
    assert len({row.case_id for row in rows}) == 10
    for patient in patients:
        assert len({row.split for row in rows if row.case_id.startswith(patient)}) == 1
    assert len({row.split for row in rows}) > 1


def test_a_segmentation_chooses_the_phase_that_it_was_drawn_on(tmp_path: Path) -> None:
    """One series with two phases at the same positions, as angiography suites export them."""
    images = sources.write_series(tmp_path / "source/a", 13, "P13")
    sources.write_seg_of(tmp_path / "source/seg.dcm", images, sources.segments_of(13))
    for number, image in enumerate(images):
        late = pydicom.dcmread(image.filename)
        late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        late.PixelData = (late.pixel_array + 50).astype("<i2").tobytes()
        late.save_as(tmp_path / f"source/late{number}.dcm")
    run(tmp_path / "source", tmp_path / "data")
    for row in read_annotations(tmp_path / "data"):
        np.testing.assert_array_equal(load_slice(row.image).hu, sources.hu_of(13)[int(row.slice_id)])


def test_a_series_is_found_by_images_and_by_frame_of_reference(tmp_path: Path) -> None:
    write_patient(tmp_path / "source", 13)
    write_patient(tmp_path / "source", 15)
    path = tmp_path / "source/P13/other/seg.dcm"
    seg = pydicom.dcmread(path)
    del seg.ReferencedSeriesSequence
    seg.save_as(path)
    assert run(tmp_path / "source", tmp_path / "by_image").cases == 2
    for group in seg.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    if "SourceImageSequence" in seg:
        del seg.SourceImageSequence
    seg.save_as(path)
    assert run(tmp_path / "source", tmp_path / "by_frame").cases == 2
    tables = [(tmp_path / name / "annotations.csv").read_text() for name in ("by_image", "by_frame")]
    assert tables[0] == tables[1]


def test_names_are_hidden_unless_they_are_asked_for(tmp_path: Path) -> None:
    write_patient(tmp_path / "source", 13)
    run(tmp_path / "source", tmp_path / "data")
    written = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert b"P13" not in written and b"Phantom" not in written
    run(tmp_path / "source", tmp_path / "named", names=True)
    assert {row.case_id for row in read_annotations(tmp_path / "named")} == {"P13"}


def test_bad_files_and_scans_are_listed_with_their_place(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for seed in (11, 12, 13, 15):
        write_patient(source, seed)
    # 11: images are missing; 12: another grid; 13: no lesion is named; a file is damaged.
    for path in (source / "P11/ct").iterdir():
        path.unlink()
    path = source / "P12/other/seg.dcm"
    seg = pydicom.dcmread(path)
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [3.0, 3.0]
    seg.save_as(path)
    path = source / "P13/other/seg.dcm"
    seg = pydicom.dcmread(path)
    for segment in seg.SegmentSequence:
        segment.SegmentLabel = segment.SegmentLabel.replace("Tumor", "Vessel")
    seg.save_as(path)
    (source / "P13/ct/bad.dcm").write_bytes((source / "P13/ct/0.dcm").read_bytes()[:300])
    show_names()
    try:
        with pytest.raises(DatasetError) as caught:
            run(source, tmp_path / "data")
    finally:
        show_names(False)
    text = "\n".join(caught.value.problems)
    assert len(caught.value.problems) == 4, text
    for words in ("seg.dcm: belongs to one CT series", "bad.dcm", "case_0000: seg.dcm: a frame lies", "'Vessel_1'"):
        assert words in text
    report = run(source, tmp_path / "data", skip_bad=True)
    assert (report.cases, len(report.problems)) == (1, 4)
    # Only the user knows what these labels mean.
    again = run(source / "P13", tmp_path / "other", lesion_labels=("vess*",), skip_bad=True)
    assert again.cases == 1


def test_folders_without_a_pair_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="0 CT series and 0 DICOM Segmentations"):
        run(tmp_path / "empty", tmp_path / "data")
    sources.write_series(tmp_path / "source", 11, "P11")
    with pytest.raises(InputError, match="1 CT series and 0 DICOM Segmentations"):
        run(tmp_path / "source", tmp_path / "data")
