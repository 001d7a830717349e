"""Structured reports: what is measured, to what they refer, and what they do not claim."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import dciodvfy
import numpy as np
import pydicom
import pytest
from fake_dicom import enhanced
from fake_results import DIGEST, EMPTY_ALLOWED, ORIENTATIONS, TEXT, UIDS, along_z, answer, answer_with, answers
from pydicom.sr.codedict import codes

from lsms_rt.errors import InputError, MachineError
from lsms_rt.reading.dicom.read import slices_from_dataset
from lsms_rt.segmentation import Segmentation
from lsms_rt.sentences import Reading
from lsms_rt.writing import write_seg, write_sr
from lsms_rt.writing.measures import measures_of

highdicom: Any = pytest.importorskip("highdicom")
WHEN = datetime(2026, 3, 4, 5, 6, 7)
# dciodvfy of 2022 does not know the class of label maps, which is of 2024: it takes it for one without segments.
OF_LABELMAPS = ("Shall not be present for Referenced SOP Class that is not segmentation",)
SUMMARY = codes.DCM.CADProcessingAndFindingsSummary


def asked(*found: bool) -> list[Segmentation]:
    """Noise in a corner of three slices for each sentence."""
    slices, corner = answers(along_z(0, 3, 6)), np.zeros((37, 101), bool)
    corner[:15, :20] = True
    return [
        answer_with(result.ct, answer(result.ct, 10 * n + m, found=there).mask & corner, f"{TEXT} {n}")
        for n, there in enumerate(found, 1)
        for m, result in enumerate(slices)
    ]


def written(results: list[Segmentation], folder: Path, **options: Any) -> pydicom.Dataset:
    """The report and its Segmentation, written and read by highdicom."""
    options = {"engine_digest": DIGEST, "when": WHEN} | options
    there = write_seg(results, folder / "seg.dcm", **options)
    write_sr(results, folder / "sr.dcm", seg=folder / "seg.dcm" if there else None, **options)
    dciodvfy.check(folder / "sr.dcm", "Comprehensive3DSR")
    return highdicom.sr.srread(folder / "sr.dcm")


def texts_of(item: Any) -> list[str]:
    """All texts below an item."""
    here = [str(item.TextValue)] if "TextValue" in item else []
    return here + [text for child in item.get("ContentSequence", ()) for text in texts_of(child)]


def values(group: Any) -> dict[str, tuple[float, str]]:
    return {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}


def test_a_lesion_has_its_measures_and_its_segment(tmp_path: Path) -> None:
    results = asked(True, True)
    for result in results[1::3]:
        # Where it is largest, its diameter is.
        result.mask[[0, 14], [0, 19]] = result.mask[3:9, 6:19] = True
    report, seg = written(results, tmp_path), pydicom.dcmread(tmp_path / "seg.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == 2 and report.content.get_image_measurement_groups() == []
    for n, (group, segment) in enumerate(zip(groups, seg.SegmentSequence, strict=True)):
        assert (group.tracking_identifier, group.tracking_uid) == (segment.TrackingID, segment.TrackingUID)
        assert group.finding_type == codes.SCT.Lesion and group.finding_sites == []
        of_segment = group.referenced_segment
        assert of_segment.referenced_sop_instance_uid == seg.SOPInstanceUID
        reference = of_segment[0].ReferencedSOPSequence[0]
        assert (reference.ReferencedSOPClassUID, reference.ReferencedSegmentNumber) == (seg.SOPClassUID, n + 1)
        measures = measures_of(results[3 * n : 3 * n + 3])
        assert values(group) == {
            "Volume": (pytest.approx(measures.volume_ml, abs=0.01), "cm3"),
            "Long axis": (pytest.approx(measures.diameter_mm, abs=0.01), "mm"),
            "Area": (pytest.approx(measures.area_mm2, abs=0.01), "mm2"),
            "Attenuation Coefficient": (pytest.approx(measures.mean_hu, abs=0.01), "[hnsf'U]"),
        }
        ends, image = line_of(group, "Long axis")
        assert image == measures.longest.ct.sop_instance_uid
        dy, dx = measures.longest.ct.spacing_mm
        assert np.hypot(*((ends[0] - ends[1]) * (dx, dy))) == pytest.approx(measures.diameter_mm)
        outline, image = line_of(group, "Area")
        assert image == measures.largest.ct.sop_instance_uid
        np.testing.assert_array_equal(outline[0], outline[-1])
        x, y = outline.T
        enclosed = abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2
        mask = measures.largest.mask
        assert 0 < enclosed <= mask.sum() and (outline >= 0).all() and (outline <= mask.shape[::-1]).all()


def line_of(group: Any, name: str) -> tuple[np.ndarray, str]:
    """The first line that a measurement was made on, (column, row) of its points, and the UID of its image."""
    (found,) = (m for m in group.get_measurements() if m.name.meaning == name)
    line = next(item for item in found[0].ContentSequence if item.ValueType == "SCOORD")
    assert (line.RelationshipType, line.GraphicType) == ("INFERRED FROM", "POLYLINE")
    (image,) = line.ContentSequence
    uid = str(image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    return np.reshape(line.GraphicData, (-1, 2)), uid


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_diameter_is_as_long_as_its_line(tmp_path: Path, orientation: list[float]) -> None:
    """In the image's own grid and unequal spacing, however the file stores its slices."""
    spacing = np.array([0.6, 1.5])
    results = answers(along_z(0, 3), ImageOrientationPatient=orientation, PixelSpacing=spacing.tolist())
    for result in results:
        result.mask[:] = False
        # more pixels along rows, more mm along columns, if the spacing were the other way round
        result.mask[5:25, 10:21] = True
    (group,) = written(results, tmp_path).content.get_volumetric_roi_measurement_groups()
    ends, _ = line_of(group, "Long axis")
    length = np.hypot(*((ends[0] - ends[1])[::-1] * spacing))
    assert values(group)["Long axis"] == (pytest.approx(length, abs=0.01), "mm")
    assert length == pytest.approx(max(np.hypot(19 * 0.6, 11 * 1.5), np.hypot(20 * 0.6, 10 * 1.5)))


def test_what_was_found_has_no_volume_of_zero(tmp_path: Path) -> None:
    results = answers(along_z(0, 1), PixelSpacing=[0.5, 0.5])
    for result in results:
        result.mask[:] = False
    results[0].mask[3, 4] = True
    (group,) = written(results, tmp_path).content.get_volumetric_roi_measurement_groups()
    assert values(group)["Volume"] == (0.00025, "cm3")


def test_a_sentence_without_all_slices_is_incomplete(tmp_path: Path) -> None:
    """The other one beside it is not, and keeps its volume."""
    results = asked(True, True, False)
    report = written([*results[:2], *results[3:8]], tmp_path)
    first, second = report.content.get_volumetric_roi_measurement_groups()
    assert "Volume" not in values(first) and "Volume" in values(second)
    said = texts_of(report)
    assert "Lesion 1: incomplete: 1 image without an answer" in said and "Lesion 2" in said
    assert evaluations(report)[0] == codes.DCM.NotAllAlgorithmsSucceededWithoutFindings
    # the third slice: of two sentences
    assert (report.CompletionFlag, report.CompletionFlagDescription) == (
        "PARTIAL", "incomplete: 1 image without an answer",
    )  # fmt: skip
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert [segment.get("SegmentDescription") for segment in seg.SegmentSequence] == [
        "incomplete: 1 image without an answer", None,
    ]  # fmt: skip
    assert "incomplete" in seg.ContentDescription
    complete = written([*results[:6], *results[6:]], tmp_path)
    assert complete.CompletionFlag == "COMPLETE"


def test_a_multi_frame_file_tells_how_many_frames_it_has(tmp_path: Path) -> None:
    ds = enhanced()
    for name, value in {**UIDS, **EMPTY_ALLOWED}.items():
        setattr(ds, name, value)
    results = [answer(ct, n) for n, ct in enumerate(slices_from_dataset(ds))][1:]
    for not_read in (0, 1):
        report = written(results, tmp_path, not_read=not_read)
        assert report.CompletionFlagDescription == "incomplete: 1 image without an answer"


def test_the_lines_lie_on_the_lesion_in_the_images_own_grid(tmp_path: Path) -> None:
    """An oblong of 3 x 20 pixels: its diameter is from corner to corner, its outline around it, whatever the view."""
    results = asked(True)
    for result in results:
        result.mask[:] = False
    results[1].mask[10:13, 30:50] = True
    (group,) = written(results, tmp_path).content.get_volumetric_roi_measurement_groups()
    outline, image = line_of(group, "Area")
    assert image == results[1].ct.sop_instance_uid
    assert sorted({tuple(point) for point in outline.tolist()}) == [(30, 10), (30, 13), (50, 10), (50, 13)]
    ends, _ = line_of(group, "Long axis")
    assert sorted(ends[:, 0].tolist()) == [30, 50] and set(ends[:, 1].tolist()) <= {10.5, 11.5, 12.5}


def test_all_lines_of_a_lesion_are_of_one_image(tmp_path: Path) -> None:
    """Viewers draw all of them in the first one's image: the outline of another slice would lie beside the lesion."""
    results = asked(True)
    for result in results:
        result.mask[:] = False
    results[0].mask[10:12, 20:90] = True
    results[1].mask[20:35, 30:45] = True
    (group,) = written(results, tmp_path).content.get_volumetric_roi_measurement_groups()
    assert line_of(group, "Long axis")[1] == results[0].ct.sop_instance_uid
    (area,) = (m for m in group.get_measurements() if m.name.meaning == "Area")
    assert [item.ValueType for item in area[0].ContentSequence if item.ValueType != "CODE"] == ["IMAGE"]
    (image,) = area.referenced_images
    assert image.referenced_sop_instance_uid == results[1].ct.sop_instance_uid


def test_the_outline_of_the_largest_part_comes_first(tmp_path: Path) -> None:
    """A viewer that draws one line of a measurement draws the first one."""
    results = asked(True)
    for result in results:
        result.mask[:] = False
    results[1].mask[10:12, 20:22] = results[1].mask[20:35, 30:45] = True
    (group,) = written(results, tmp_path).content.get_volumetric_roi_measurement_groups()
    assert line_of(group, "Area")[0][:, 1].min() == 20


def test_a_report_says_what_it_is_of(tmp_path: Path) -> None:
    results = asked(True)
    report, seg = written(results, tmp_path), pydicom.dcmread(tmp_path / "seg.dcm")
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE", "UNVERIFIED", "PRELIMINARY",
    )  # fmt: skip
    assert {name: str(report[name].value) for name in EMPTY_ALLOWED} == EMPTY_ALLOWED
    assert report.StudyInstanceUID == UIDS["StudyInstanceUID"]
    assert len({report.SeriesInstanceUID, seg.SeriesInstanceUID, UIDS["SeriesInstanceUID"]}) == 3
    said = texts_of(report)
    assert f"engine {DIGEST}" in said and "research, not for diagnosis" in said
    evidence = {
        (series.SeriesInstanceUID, item.ReferencedSOPInstanceUID)
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    images = {(UIDS["SeriesInstanceUID"], result.ct.sop_instance_uid) for result in results}
    assert evidence == images | {(seg.SeriesInstanceUID, seg.SOPInstanceUID)}


def evaluations(report: Any) -> tuple[Any, str]:
    """Summary and comment of the one sentence without a finding."""
    (container,) = (item for item in report.ContentSequence if item.name.meaning == "Qualitative Evaluations")
    summary, comment = container.ContentSequence
    assert summary.name == SUMMARY
    return summary.value, str(comment.TextValue)


def test_nothing_found_is_no_lesion(tmp_path: Path) -> None:
    for found in ((False,), (True, False)):
        report = written(asked(*found), tmp_path)
        summary, comment = evaluations(report)
        assert summary == codes.DCM.AllAlgorithmsSucceededWithoutFindings
        assert comment == ("Lesion, nothing found" if len(found) == 1 else "Lesion 2, nothing found")
        groups = [item for item in report.ContentSequence if item.name == codes.DCM.ImagingMeasurements]
        assert len(groups) == len(found) - 1
        # A viewer that draws what it finds in groups must find none of it.
        assert report.content.get_image_measurement_groups() == []
        assert len(report.content.get_volumetric_roi_measurement_groups()) == len(found) - 1
        (tmp_path / "seg.dcm").unlink(missing_ok=True)


def test_an_incomplete_series_says_so(tmp_path: Path) -> None:
    report = written(asked(True, False), tmp_path, not_read=2)
    assert (report.CompletionFlag, report.CompletionFlagDescription) == (
        "PARTIAL",
        "incomplete: 2 images without an answer",
    )
    (lesion,) = report.content.get_volumetric_roi_measurement_groups()
    assert "Volume" not in values(lesion) and "Area" in values(lesion)
    assert evaluations(report)[0] == codes.DCM.NotAllAlgorithmsSucceededWithoutFindings
    assert "incomplete: 2 images without an answer; not for diagnosis" in texts_of(report)


def test_the_sentence_is_written_only_on_request(tmp_path: Path) -> None:
    results = asked(True, False)
    reading = Reading(text=results[3].text, read_as="the lesion", understood="no")
    results = [*results[:3], *(replace(result, reading=reading) for result in results[3:])]
    report = written(results, tmp_path)
    assert TEXT.encode() not in (tmp_path / "sr.dcm").read_bytes()
    assert "Lesion 2, nothing found: sentence not understood" in texts_of(report)
    assert "Lesion 1" in texts_of(report)
    said = texts_of(written(results, tmp_path, include_text=True))
    assert f"Lesion 1: {TEXT} 1" in said
    assert f"Lesion 2, nothing found: {TEXT} 2; read as: the lesion; sentence not understood" in said


def test_written_again_it_is_the_same(tmp_path: Path) -> None:
    results, files, uids = asked(True, False), [], set()
    for options in ({}, {}, {"when": None}, {"include_text": True}, {"not_read": 1}):
        uids.add(written(results, tmp_path, **options).SOPInstanceUID)
        files.append((tmp_path / "sr.dcm").read_bytes())
    assert files[0] == files[1] and len(set(files)) == 4
    # As with the Segmentation, the date is not part of the UIDs.
    assert len(uids) == 3 and all(uid.startswith("2.25.") for uid in uids)


def test_a_lesion_needs_the_segmentation_of_the_same_results(tmp_path: Path) -> None:
    results, sr = asked(True), tmp_path / "sr.dcm"
    with pytest.raises(InputError, match="needs its DICOM SEG; write it first"):
        write_sr(results, sr, seg=None, engine_digest=DIGEST)
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        write_sr(results, sr, seg=tmp_path / "none.dcm", engine_digest=DIGEST)
    write_seg(asked(True)[:2], tmp_path / "seg.dcm", engine_digest=DIGEST)
    with pytest.raises(InputError, match="the DICOM SEG is of other results"):
        write_sr(results, sr, seg=tmp_path / "seg.dcm", engine_digest=DIGEST)
    (tmp_path / "seg.dcm").write_text("dear diary")
    with pytest.raises(InputError):
        write_sr(results, sr, seg=tmp_path / "seg.dcm", engine_digest=DIGEST)
    assert not sr.exists()


@pytest.mark.parametrize("seg_type", ["binary", "labelmap"])
def test_a_multi_frame_file(tmp_path: Path, seg_type: Any) -> None:
    ds = enhanced()
    for name, value in {**UIDS, **EMPTY_ALLOWED}.items():
        setattr(ds, name, value)
    results = [answer(ct, n) for n, ct in enumerate(slices_from_dataset(ds))]
    write_seg(results, tmp_path / "seg.dcm", engine_digest=DIGEST, seg_type=seg_type)
    write_sr(results, tmp_path / "sr.dcm", seg=tmp_path / "seg.dcm", engine_digest=DIGEST)
    dciodvfy.check(tmp_path / "sr.dcm", "Comprehensive3DSR", OF_LABELMAPS if seg_type == "labelmap" else ())
    (group,) = highdicom.sr.srread(tmp_path / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    images = group.referenced_segment.source_images_for_segmentation
    frames = [image.referenced_frame_numbers for image in images]
    assert sorted(frame for numbers in frames for frame in numbers) == [result.ct.frame + 1 for result in results]


def test_names_in_other_character_sets(tmp_path: Path) -> None:
    results = answers(along_z(0, 3), PatientName="Jörg^北", SpecificCharacterSet="ISO_IR 192")
    results = [replace(result, text="größte Läsion 北") for result in results]
    report = written(results, tmp_path, include_text=True)
    assert str(report.PatientName) == "Jörg^北" and "Lesion: größte Läsion 北" in texts_of(report)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(MachineError, match=r"a DICOM SR needs highdicom; pip install 'lsms-rt\[seg\]'"):
        write_sr(asked(False), tmp_path / "sr.dcm", seg=None, engine_digest=DIGEST)
