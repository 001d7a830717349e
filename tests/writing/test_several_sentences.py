"""Results of several sentences in one DICOM Segmentation."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dciodvfy
import numpy as np
import pydicom
import pytest
from fake_dicom import enhanced
from fake_results import DIGEST, EMPTY_ALLOWED, TEXT, UIDS, along_z, answer, answer_with, answers

from lsms_rt.errors import InputError
from lsms_rt.reading.dicom.read import slices_from_dataset
from lsms_rt.segmentation import Segmentation
from lsms_rt.sentences import Reading
from lsms_rt.writing import write_nifti, write_seg

highdicom: Any = pytest.importorskip("highdicom")
WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone(timedelta(hours=1)))
# dciodvfy of 2022 does not know the class of label maps, which is of 2024; their segment 0, the background, neither.
OF_LABELMAPS = ("Information Object Not found", "SegmentNumber not monotonically increasing")


def asked(sentences: int, empty: Any = (), positions: Any = (0, 3, 6)) -> list[Segmentation]:
    """Noise for each sentence and slice; nothing for the sentences ``empty``, from 1."""
    slices = answers(along_z(*positions))
    return [
        answer(result.ct, 10 * n + m, found=n not in empty, text=f"{TEXT} {n}")
        for n in range(1, sentences + 1)
        for m, result in enumerate(slices)
    ]


def apart(results: list[Segmentation]) -> list[Segmentation]:
    """Masks of which no two overlap."""
    texts, parts = list(dict.fromkeys(result.text for result in results)), []
    for result in results:
        mask = np.zeros_like(result.mask)
        mask[:, texts.index(result.text) :: len(texts)] = True
        parts.append(answer_with(result.ct, mask & result.mask, result.text))
    return parts


def test_each_sentence_has_its_segment(tmp_path: Path) -> None:
    results = asked(3)
    assert write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST, include_text=True)
    dciodvfy.check(tmp_path / "a.dcm", "Segmentation")
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    assert [(s.SegmentNumber, s.SegmentLabel, s.TrackingID) for s in seg.SegmentSequence] == [
        (n, f"Lesion {n}", f"Lesion {n}") for n in (1, 2, 3)
    ]
    assert [s.SegmentDescription for s in seg.SegmentSequence] == [f"{TEXT} {n}" for n in (1, 2, 3)]
    assert len({s.TrackingUID for s in seg.SegmentSequence}) == 3
    # Masks of noise overlap.
    uids = [result.ct.sop_instance_uid for result in results[:3]]
    pixels = seg.get_pixels_by_source_instance(uids)
    for n in range(3):
        np.testing.assert_array_equal(pixels[..., n], [result.mask for result in results[3 * n : 3 * n + 3]])


def test_sentences_count_by_their_first_result(tmp_path: Path) -> None:
    """Slice by slice gives the same object as sentence by sentence; a sentence may lack a slice."""
    results = asked(2)
    files = []
    for order in (results, [results[n] for n in (0, 3, 1, 4, 2, 5)]):
        write_seg(order, tmp_path / "a.dcm", engine_digest=DIGEST, when=WHEN)
        files.append((tmp_path / "a.dcm").read_bytes())
    assert files[0] == files[1]
    write_seg(results[1:], tmp_path / "a.dcm", engine_digest=DIGEST)
    seg = highdicom.seg.segread(tmp_path / "a.dcm")
    uids = [result.ct.sop_instance_uid for result in results[:3]]
    pixels = seg.get_pixels_by_source_instance(
        uids, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )
    assert not pixels[0, ..., 0].any() and pixels[0, ..., 1].any() and pixels[1, ..., 0].any()


def test_a_sentence_without_a_finding_has_no_segment_unless_asked(tmp_path: Path) -> None:
    results = asked(3, empty=(2,))
    path = tmp_path / "a.dcm"
    write_seg(results, path, engine_digest=DIGEST)
    seg = pydicom.dcmread(path)
    # Numbers have no gaps; the label tells the sentence.
    assert [(s.SegmentNumber, s.SegmentLabel) for s in seg.SegmentSequence] == [(1, "Lesion 1"), (2, "Lesion 3")]
    tracked = {s.TrackingID: s.TrackingUID for s in seg.SegmentSequence}
    write_seg(results, path, engine_digest=DIGEST, write_empty=True)
    dciodvfy.check(path, "Segmentation")
    seg = pydicom.dcmread(path)
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["Lesion 1", "Lesion 2, nothing found", "Lesion 3"]
    numbers = [g.SegmentIdentificationSequence[0].ReferencedSegmentNumber for g in seg.PerFrameFunctionalGroupsSequence]
    assert sorted(numbers) == [1, 1, 1, 3, 3, 3]
    assert {s.TrackingID: s.TrackingUID for s in seg.SegmentSequence}.items() > tracked.items()


def test_nothing_found_for_any_sentence(tmp_path: Path) -> None:
    results = asked(2, empty=(1, 2))
    assert not write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    assert write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST, write_empty=True)
    dciodvfy.check(tmp_path / "a.dcm", "Segmentation")
    seg = pydicom.dcmread(tmp_path / "a.dcm")
    assert seg.NumberOfFrames == 2 and not seg.pixel_array.any()


def test_a_label_map_holds_segments_that_do_not_overlap(tmp_path: Path) -> None:
    results, path = asked(3, empty=(2,)), tmp_path / "a.dcm"
    with pytest.raises(InputError, match="^Lesion 1 and Lesion 3 overlap in 3 slices, .*; write a binary DICOM SEG$"):
        write_seg(results, path, engine_digest=DIGEST, seg_type="labelmap")
    with pytest.raises(InputError, match="choose binary or labelmap"):
        write_seg(results, path, engine_digest=DIGEST, seg_type="fractional")  # type: ignore[arg-type]
    assert not path.exists()
    results = apart(results)
    write_seg(results, path, engine_digest=DIGEST, seg_type="labelmap")
    dciodvfy.check(path, "", OF_LABELMAPS)
    seg = pydicom.dcmread(path)
    assert (seg.SegmentationType, seg.SOPClassUID) == ("LABELMAP", "1.2.840.10008.5.1.4.1.1.66.7")
    assert [s.SegmentLabel for s in seg.SegmentSequence][1:] == ["Lesion 1", "Lesion 3"]
    uids = [result.ct.sop_instance_uid for result in results[:3]]
    pixels = highdicom.seg.segread(path).get_pixels_by_source_instance(uids)
    for found, part in ((pixels[..., 0], results[:3]), (pixels[..., 1], results[6:])):
        np.testing.assert_array_equal(found, [result.mask for result in part])


def test_a_multi_frame_file_and_several_sentences(tmp_path: Path) -> None:
    ds = enhanced()
    for name, value in {**UIDS, **EMPTY_ALLOWED}.items():
        setattr(ds, name, value)
    results = [answer(ct, n, text=text) for text in ("one", "two") for n, ct in enumerate(slices_from_dataset(ds))]
    write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    dciodvfy.check(tmp_path / "a.dcm", "Segmentation")
    seg = pydicom.dcmread(tmp_path / "a.dcm")
    assert len(seg.SegmentSequence) == 2 and seg.NumberOfFrames == len(results)


def test_slices_that_claim_to_be_one(tmp_path: Path) -> None:
    first, second = asked(1, positions=(0, 3))
    second.ct.header.SOPInstanceUID = first.ct.header.SOPInstanceUID
    with pytest.raises(InputError, match="different slices with the same SOPInstanceUID"):
        write_seg([first, answer(second.ct, text="another")], tmp_path / "a.dcm", engine_digest=DIGEST)


def test_each_segment_says_whether_its_sentence_is_understood(tmp_path: Path) -> None:
    one, two = asked(2, positions=(0,))
    reading = Reading(text=two.text, read_as="the lesion", understood="partly")
    write_seg([one, replace(two, reading=reading)], tmp_path / "a.dcm", engine_digest=DIGEST)
    labels = [s.SegmentLabel for s in pydicom.dcmread(tmp_path / "a.dcm").SegmentSequence]
    assert labels == ["Lesion 1", "Lesion 2, sentence partly understood"]
    assert TEXT.encode() not in (tmp_path / "a.dcm").read_bytes()


def test_dates_are_those_of_the_run(tmp_path: Path) -> None:
    """Written again, the file is the same; another date leaves the UIDs as they are."""
    results, path = asked(2), tmp_path / "a.dcm"
    write_seg(results, path, engine_digest=DIGEST, when=WHEN)
    first, seg = path.read_bytes(), pydicom.dcmread(path)
    for name in ("InstanceCreation", "Content", "Series"):
        assert (seg[f"{name}Date"].value, seg[f"{name}Time"].value) == ("20260304", "050607")
    assert seg.StudyDate == "20200304"
    write_seg(asked_again(results), path, engine_digest=DIGEST, when=WHEN)
    assert path.read_bytes() == first
    write_seg(results, path, engine_digest=DIGEST)
    assert pydicom.dcmread(path).SOPInstanceUID == seg.SOPInstanceUID and path.read_bytes() != first


def asked_again(results: list[Segmentation]) -> list[Segmentation]:
    return [replace(result, mask=result.mask.copy()) for result in results]


def test_a_mask_volume_is_of_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="results for 2 sentences, a mask volume holds one"):
        write_nifti(asked(2), tmp_path / "a.nii")


def test_lists_per_slice_are_refused_with_the_way_out(tmp_path: Path) -> None:
    """As ``predict_series`` yields them for several sentences."""
    nested: Any = [answers(along_z(0, 3))]
    with pytest.raises(InputError, match="a list per slice; give them as one list"):
        write_seg(nested, tmp_path / "a.dcm", engine_digest=DIGEST)
