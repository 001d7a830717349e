"""Masks written as DICOM SEG lie where the standard's own equation puts the image's pixels."""

from __future__ import annotations

import copy
import logging
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dciodvfy
import numpy as np
import pydicom
import pytest
from fake_dicom import enhanced, save
from fake_results import (
    DIGEST,
    EMPTY_ALLOWED,
    ORIENTATIONS,
    TEXT,
    TILTED,
    UIDS,
    along_z,
    answer,
    answers,
    header,
    in_patient,
)  # fmt: skip
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from lsms_rt.atomic import atomic_file
from lsms_rt.errors import InputError, MachineError
from lsms_rt.reading.dicom.read import slices_from_dataset
from lsms_rt.reading.load import load_slice
from lsms_rt.sentences import Reading
from lsms_rt.writing import write_nifti, write_rtstruct, write_sc, write_seg, write_sr


def read_seg(path: Path) -> Dataset:
    dciodvfy.check(path, "Segmentation")
    return pydicom.dcmread(path)


def frames_of(seg: Dataset) -> list[tuple[np.ndarray, Dataset, Dataset]]:
    """(pixels, reference to the source image, a Dataset with the frame's place), frame by frame."""
    pixels = np.atleast_3d(seg.pixel_array).reshape(-1, seg.Rows, seg.Columns)
    shared, found = seg.SharedFunctionalGroupsSequence[0], []
    for values, group in zip(pixels, seg.PerFrameFunctionalGroupsSequence, strict=True):
        place = Dataset()
        place.ImagePositionPatient = group.PlanePositionSequence[0].ImagePositionPatient
        place.ImageOrientationPatient = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        place.PixelSpacing = shared.PixelMeasuresSequence[0].PixelSpacing
        (derivation,) = group.DerivationImageSequence
        (source,) = derivation.SourceImageSequence
        found.append((values.astype(bool), source, place))
    return found


def test_dciodvfy_is_installed_or_its_absence_is_reported() -> None:
    """A skip in the report says that the tests below did not validate the objects."""
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy (package dicom3tools) is not installed: objects are read back, not validated")


@pytest.mark.parametrize("orientation", [*ORIENTATIONS, TILTED])
def test_seg_frames_lie_over_their_images(tmp_path: Path, orientation: list[float]) -> None:
    pytest.importorskip("highdicom")
    results = answers(along_z(5, -10, 20, 1, 7), empty=(1,), ImageOrientationPatient=orientation)
    before = [copy.deepcopy(result.ct.header) for result in results]
    assert write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    assert [result.ct.header for result in results] == before
    seg = read_seg(tmp_path / "a.dcm")
    by_uid = {result.ct.sop_instance_uid: result for result in results}
    frames = frames_of(seg)
    assert len(frames) == seg.NumberOfFrames == 4
    assert {source.ReferencedSOPInstanceUID for _, source, _ in frames} == {
        uid for uid, result in by_uid.items() if result.found
    }
    for pixels, source, place in frames:
        result = by_uid[source.ReferencedSOPInstanceUID]
        np.testing.assert_array_equal(pixels, result.mask)
        for row, column in ((0, 0), (36, 0), (0, 100), (13, 57)):
            expected = in_patient(result.ct.header, row, column)
            np.testing.assert_allclose(in_patient(place, row, column), expected, atol=1e-6)
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == UIDS["SeriesInstanceUID"]
    assert {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence} == set(by_uid)
    assert {item.ReferencedSOPInstanceUID for item in seg.SourceImageSequence} == set(by_uid)
    assert seg.FrameOfReferenceUID == UIDS["FrameOfReferenceUID"]
    assert seg.StudyInstanceUID == UIDS["StudyInstanceUID"] and seg.SeriesInstanceUID != UIDS["SeriesInstanceUID"]


def test_seg_says_what_it_is(tmp_path: Path) -> None:
    highdicom: Any = pytest.importorskip("highdicom")
    results = answers(along_z(0, 3, 6))
    assert write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    seg = read_seg(tmp_path / "a.dcm")
    assert (seg.Modality, seg.SegmentationType, seg.Manufacturer) == ("SEG", "BINARY", "lsms-rt")
    assert "not for diagnosis" in seg.SeriesDescription
    (segment,) = seg.SegmentSequence
    codes = [
        (item.CodeValue, item.CodingSchemeDesignator)
        for item in (segment.SegmentedPropertyCategoryCodeSequence[0], segment.SegmentedPropertyTypeCodeSequence[0])
    ]
    assert codes == [("49755003", "SCT"), ("52988006", "SCT")]
    assert segment.SegmentAlgorithmType == "AUTOMATIC" and segment.SegmentAlgorithmName == "lsms-rt"
    (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
    assert DIGEST in algorithm.AlgorithmParameters
    assert seg.DeviceSerialNumber in DIGEST and len(seg.DeviceSerialNumber) == 64
    assert {name: str(seg[name].value) for name in EMPTY_ALLOWED} == EMPTY_ALLOWED
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (2.5, 3)
    # highdicom's own reader, which looks planes up by their source
    uids = [result.ct.sop_instance_uid for result in results]
    pixels = highdicom.seg.segread(tmp_path / "a.dcm").get_pixels_by_source_instance(uids)
    np.testing.assert_array_equal(pixels[..., 0], [result.mask for result in results])


@pytest.mark.parametrize("wanted", [(0, 1, 2), (2,), (2, 0)])
def test_seg_of_a_multi_frame_file(tmp_path: Path, wanted: tuple[int, ...]) -> None:
    pytest.importorskip("highdicom")
    ds = enhanced()
    for name, value in {**UIDS, **EMPTY_ALLOWED}.items():
        setattr(ds, name, value)
    slices = slices_from_dataset(ds)
    results = [answer(slices[n], n) for n in wanted]
    assert write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    seg = read_seg(tmp_path / "a.dcm")
    frames = frames_of(seg)
    by_frame = {result.ct.frame: result for result in results}
    assert sorted(int(source.ReferencedFrameNumber) - 1 for _, source, _ in frames) == sorted(wanted)
    for pixels, source, place in frames:
        frame = int(source.ReferencedFrameNumber) - 1
        assert source.ReferencedSOPInstanceUID == ds.SOPInstanceUID
        np.testing.assert_array_equal(pixels, by_frame[frame].mask)
        assert list(place.ImagePositionPatient) == [0, 0, -10 * frame] and list(place.PixelSpacing) == [0.8, 0.5]
    assert write_seg([answer(slices[2], found=False)], tmp_path / "b.dcm", engine_digest=DIGEST, write_empty=True)
    ((pixels, source, place),) = frames_of(read_seg(tmp_path / "b.dcm"))
    assert not pixels.any() and source.ReferencedFrameNumber == 3 and place.ImagePositionPatient[2] == -20


def test_seg_of_multi_frame_files_that_cannot_be_one(tmp_path: Path) -> None:
    two = [enhanced(), enhanced()]
    for ds in two:
        for name, value in UIDS.items():
            setattr(ds, name, value)
    slices = [slices_from_dataset(ds)[0] for ds in two]
    with pytest.raises(InputError, match="2 multi-frame files"):
        write_seg([answer(ct) for ct in slices], tmp_path / "a.dcm", engine_digest=DIGEST)
    with pytest.raises(InputError, match="one sentence, 1 of a slice that has one; ask it once"):
        write_seg([answer(slices[0]), answer(slices[0])], tmp_path / "a.dcm", engine_digest=DIGEST)
    del two[0].PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    slices = slices_from_dataset(two[0])
    with pytest.raises(InputError, match="ImagePositionPatient absent"):
        write_seg([answer(slices[0])], tmp_path / "a.dcm", engine_digest=DIGEST)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*EMPTY_ALLOWED, "SliceThickness", "SeriesNumber", "Modality"])
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_seg_without_what_may_be_empty(tmp_path: Path, name: str, how: str) -> None:
    pytest.importorskip("highdicom")
    results = answers(along_z(0, 4))
    for result in results:
        if how == "absent":
            delattr(result.ct.header, name)
        else:
            setattr(result.ct.header, name, "")
    assert write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    seg = read_seg(tmp_path / "a.dcm")
    if name in EMPTY_ALLOWED:
        assert name in seg and not seg[name].value
    # It is the distance between slices.
    if name == "SliceThickness":
        assert seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 4
    assert all((name in result.ct.header) == (how == "empty") for result in results)


def test_seg_invents_no_thickness(tmp_path: Path) -> None:
    """Of one slice whose thickness is unknown; dciodvfy calls it an error, so this one is not shown to it."""
    pytest.importorskip("highdicom")
    results = answers(along_z(0))
    del results[0].ct.header.SliceThickness
    assert write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    seg = pydicom.dcmread(tmp_path / "a.dcm")
    assert "SliceThickness" not in seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("PatientSex", "unknown"), ("PatientBirthDate", "in May"), ("StudyDate", "2020"), ("StudyTime", "noon")],
)
def test_seg_drops_what_an_attribute_may_not_hold(tmp_path: Path, name: str, value: str) -> None:
    pytest.importorskip("highdicom")
    results = answers(along_z(0))
    # `DataElement` does not check the value.
    results[0].ct.header[name] = pydicom.DataElement(name, "LO", value)
    assert write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    assert not read_seg(tmp_path / "a.dcm")[name].value


@pytest.mark.parametrize(
    "name",
    [
        "SOPClassUID",
        "SOPInstanceUID",
        "StudyInstanceUID",
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "Rows",
        "Columns",
    ],
)
@pytest.mark.parametrize("how", ["absent", "empty"])
def test_seg_refuses_headers_without_what_it_needs(tmp_path: Path, name: str, how: str) -> None:
    results = answers(along_z(0, 3, 6))
    bad = results[1].ct.header
    if how == "absent":
        delattr(bad, name)
    else:
        setattr(bad, name, None if name in ("Rows", "Columns") else "")
    with pytest.raises(InputError, match=f"{name}.* absent.*; export") as caught:
        write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    assert "Secret" not in str(caught.value) and "1.2." not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SOPInstanceUID", "1.2.x", "SOPInstanceUID is not a UID"),
        ("FrameOfReferenceUID", "1." * 40 + "1", "FrameOfReferenceUID is not a UID"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7", "not that of a CT image"),
        ("Rows", 36, "a mask of 37x101 for 36x101"),
        ("SeriesInstanceUID", "1.2.77.9", "2 different SeriesInstanceUID"),
        ("FrameOfReferenceUID", "1.2.77.9", "2 different FrameOfReferenceUID"),
        ("ImageOrientationPatient", [1, 0, 0, 0, -1, 0], "ImageOrientationPatient of 1 of 3"),
        ("PixelSpacing", [0.8, 0.6], "PixelSpacing of 1 of 3"),
        ("ImagePositionPatient", [0, 0, 6], "1 of 3 slices have duplicate positions"),
        ("ImagePositionPatient", [0, 6], "3 finite numbers"),
    ],
)
def test_seg_refuses_what_does_not_belong_together(tmp_path: Path, name: str, value: Any, words: str) -> None:
    results = answers(along_z(0, 3, 6))
    element = results[1].ct.header[name]
    results[1].ct.header[name] = pydicom.DataElement(name, element.VR, value, validation_mode=pydicom.config.IGNORE)
    with pytest.raises(InputError, match=words) as caught:
        write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    assert "1.2." not in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["PatientID", "PatientName", "PatientBirthDate"])
def test_results_of_two_patients_are_never_one_file(tmp_path: Path, name: str) -> None:
    texts = ("19500101", "19510101") if name.endswith("Date") else ("Doe", "Roe")
    first, second = (answers(along_z(z, z + 3), **{name: text}) for z, text in zip((0, 6), texts, strict=True))
    for write in (write_nifti, partial(write_seg, engine_digest=DIGEST)):
        with pytest.raises(InputError, match="^4 results of 2 patients; write each series separately$"):
            write([*first, *second], tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_the_same_before_and_after_it_was_read(tmp_path: Path) -> None:
    results = []
    for place, name in zip(along_z(0, 3), ("Müller^Eva", "MÜLLER^EVA^"), strict=True):
        image = header(ImagePositionPatient=list(place), SpecificCharacterSet="ISO_IR 100", PatientName=name)
        results.append(answer(load_slice(save(image, tmp_path / "image"))))
    assert results[0].ct.header.PatientName
    write_nifti(results, tmp_path / "a.nii")
    write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)


def test_seg_refuses_other_images_and_slices_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    with pytest.raises(InputError, match="array: not a DICOM image.*write NIfTI or PNG"):
        write_seg([answer(load_slice(np.full((40, 50), -5.0)))], path, engine_digest=DIGEST)
    with pytest.raises(InputError, match="there are no results"):
        write_seg([], path, engine_digest=DIGEST)
    first, second = answers(along_z(0, 3))
    again = replace(first, ct=replace(first.ct))
    for twice in (first, again):
        with pytest.raises(InputError, match="^2 results for one sentence, 1 of a slice that has one; ask it once$"):
            write_seg([first, twice], path, engine_digest=DIGEST)
    second.ct.header.SOPInstanceUID = first.ct.header.SOPInstanceUID
    with pytest.raises(InputError, match="different slices with the same SOPInstanceUID"):
        write_seg([first, second], path, engine_digest=DIGEST)
    assert list(tmp_path.iterdir()) == []


def test_nothing_found_is_written_only_on_request(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    results = answers(along_z(3, 0, 6), empty=(0, 1, 2))
    assert write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST) is False
    assert list(tmp_path.iterdir()) == []
    assert write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST, write_empty=True) is True
    seg = read_seg(tmp_path / "a.dcm")
    ((pixels, source, place),) = frames_of(seg)
    assert not pixels.any() and pixels.shape == (37, 101)
    assert source.ReferencedSOPInstanceUID == results[0].ct.sop_instance_uid
    assert list(place.ImagePositionPatient) == [-12.5, 31.25, 3]
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 3


def test_the_sentence_is_written_only_on_request(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    results = answers(along_z(0))
    write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    assert b"lesion of Mr" not in (tmp_path / "a.dcm").read_bytes()
    write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST, include_text=True)
    seg = read_seg(tmp_path / "a.dcm")
    assert seg.SegmentSequence[0].SegmentDescription == TEXT and "SpecificCharacterSet" not in seg


@pytest.mark.parametrize(("length", "end"), [(1000, "x...; "), (950, "x; "), (20, "x; read as: "), (2000, "x...; ")])
def test_a_long_sentence_fits(tmp_path: Path, length: int, end: str) -> None:
    """First how it is read is left out, then its end; never what is missing."""
    pytest.importorskip("highdicom")
    reading = Reading(text="x" * length, read_as="the lesion " * 20, understood="partly")
    results = [replace(result, text="x" * length, reading=reading) for result in answers(along_z(0))]
    options: dict[str, Any] = {"engine_digest": DIGEST, "include_text": True}
    for missing in (0, 7):
        write_seg(results, tmp_path / "a.dcm", not_read=missing, **options)
        description = read_seg(tmp_path / "a.dcm").SegmentSequence[0].SegmentDescription
        always = "sentence partly understood" + ("; incomplete: 7 images without an answer" if missing else "")
        assert len(description) <= 1024 and description.endswith(always)
        assert end in description
        assert ("read as" in description) == (length == 20)
        if length <= 950:
            assert "x" * length in description
    assert write_rtstruct(results, tmp_path / "b.dcm", **options)
    assert write_sc(results, lambda number: tmp_path / "c.dcm", **options) == [1]


@pytest.mark.parametrize("seg", [True, False])
def test_what_was_asked_makes_an_object_another_one(tmp_path: Path, seg: bool) -> None:
    """An archive drops what has the UID of something that it holds: "no cyst" is not "no tumor"."""
    pytest.importorskip("highdicom")
    slices, uids, tracking = answers(along_z(0, 3)), set(), set()
    for text in ("the cyst", "the cyst", "the tumor"):
        results = [answer(result.ct, n, found=seg, text=text) for n, result in enumerate(slices)]
        write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST, write_empty=True)
        write_sr(results, tmp_path / "b.dcm", seg=tmp_path / "a.dcm", engine_digest=DIGEST)
        write_rtstruct(results, tmp_path / "c.dcm", engine_digest=DIGEST)
        write_sc(results, lambda number: tmp_path / "d.dcm", engine_digest=DIGEST)
        found = [pydicom.dcmread(path) for path in sorted(tmp_path.iterdir())]
        assert len(found) == (4 if seg else 2)
        uids |= {ds.SOPInstanceUID for ds in found} | {ds.SeriesInstanceUID for ds in found}
        tracking.add(found[0].SegmentSequence[0].TrackingUID)
    assert len(uids) == 2 * 2 * len(found) and len(tracking) == 2


@pytest.mark.parametrize(
    ("name", "value", "copied"),
    [
        ("PositionReferenceIndicator", "XY", True),
        ("PositionReferenceIndicator", "sternal notch", True),
        ("PositionReferenceIndicator", "Secret", False),
        ("PositionReferenceIndicator", "X" * 65, False),
        ("StudyDescription", "a" * 65, False),
        ("StudyDescription", "a" * 64, True),
        ("AccessionNumber", "1" * 17, False),
        ("PatientName", "Secret^" + "x" * 58, False),
        ("PatientName", "x" * 60 + "^x", True),
    ],
)
def test_a_value_is_copied_if_the_attribute_may_hold_it(tmp_path: Path, name: str, value: str, copied: bool) -> None:
    pytest.importorskip("highdicom")
    results = answers(along_z(0))
    vr = pydicom.datadict.dictionary_VR(name)
    results[0].ct.header[name] = pydicom.DataElement(name, vr, value, validation_mode=pydicom.config.IGNORE)
    write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    assert str(read_seg(tmp_path / "a.dcm").get(name, "")) == (value if copied else "")


@pytest.mark.parametrize(
    ("understood", "said"),
    [("yes", ""), ("partly", "sentence partly understood"), ("no", "sentence not understood")],
)
def test_an_object_says_whether_its_sentence_is_understood(tmp_path: Path, understood: Any, said: str) -> None:
    """Also without the sentence, in the label that a viewer shows."""
    pytest.importorskip("highdicom")
    reading = Reading(text=TEXT, read_as="the low-density lesion", understood=understood)
    results = [replace(answers(along_z(0))[0], reading=reading)]
    segments = []
    for include_text in (False, True):
        write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST, include_text=include_text)
        (segment,) = read_seg(tmp_path / "a.dcm").SegmentSequence
        assert segment.SegmentLabel == ("Lesion" + (f", {said}" if said else ""))
        segments.append(segment)
    assert segments[0].get("SegmentDescription", "") == said
    read_as = f"{TEXT}; read as: the low-density lesion"
    assert segments[1].SegmentDescription == (f"{read_as}; {said}" if said else read_as)


def test_an_archive_gets_the_same_object_once(tmp_path: Path) -> None:
    """Equal results have equal UIDs; all that is seen in the object changes them, and nothing else does."""
    pytest.importorskip("highdicom")

    def uids(results: list[Any], **changes: Any) -> tuple[str, ...]:
        write_seg(results, tmp_path / "a.dcm", **{"engine_digest": DIGEST} | changes)
        seg = read_seg(tmp_path / "a.dcm")
        return seg.SOPInstanceUID, seg.SeriesInstanceUID, seg.DimensionOrganizationSequence[0].DimensionOrganizationUID

    first = answers(along_z(0, 3))
    same = uids(first)
    assert len(set(same)) == 3 and all(uid.startswith("2.25.") and len(uid) <= 64 for uid in same)
    assert uids(first) == same
    others = [
        # The sentence is not in the object; what was asked makes it another one.
        uids([answer(result.ct, n, text="the cyst") for n, result in enumerate(first)]),
        uids(first, engine_digest="sha256:" + "f" * 64),
        uids(first, include_text=True),
        uids(first, not_read=1),
        uids(answers(along_z(0, 3), empty=(1,))),
        uids(answers(along_z(0, 3), SeriesInstanceUID="1.2.77.9")),
        uids(answers(along_z(0, 3, 6))),
    ]
    assert len({uid for found in (same, *others) for uid in found}) == 3 * 8


def test_an_incomplete_object_says_so(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    for count, words in (
        (0, "research, "),
        (1, "incomplete: 1 image without an answer; "),
        (20_000, "incomplete: 20000 images without an answer; "),
    ):
        write_seg(answers(along_z(0)), tmp_path / "a.dcm", engine_digest=DIGEST, not_read=count)
        seg = read_seg(tmp_path / "a.dcm")
        assert seg.ContentDescription == words + "not for diagnosis" and len(seg.ContentDescription) <= 64
        assert ("incomplete" in seg.SeriesDescription) is (count > 0)


@pytest.mark.parametrize(
    ("character_set", "name"),
    [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 192", "Jörg^北"), ("ISO_IR 144", "Ирина^Щукина")],
)
def test_names_in_other_character_sets(tmp_path: Path, character_set: str, name: str) -> None:
    pytest.importorskip("highdicom")
    ds = header(SpecificCharacterSet=character_set, PatientName=name, StudyDescription=name)
    ct = load_slice(save(ds, tmp_path / "image.dcm"))
    text = "größte Läsion 北"
    write_seg([answer(ct, text=text)], tmp_path / "a.dcm", engine_digest=DIGEST, include_text=True)
    seg = read_seg(tmp_path / "a.dcm")
    assert (str(seg.PatientName), seg.StudyDescription) == (name, name)
    assert seg.SegmentSequence[0].SegmentDescription == text


def test_seg_of_a_real_file(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    result = answer(load_slice(str(get_testdata_file("CT_small.dcm"))))
    assert write_seg([result], tmp_path / "a.dcm", engine_digest="")
    ((pixels, source, _),) = frames_of(pydicom.dcmread(tmp_path / "a.dcm"))
    np.testing.assert_array_equal(pixels, result.mask)
    assert source.ReferencedSOPInstanceUID == result.ct.sop_instance_uid


def test_seg_stays_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("highdicom")
    # highdicom warns of a name without ^, and prints it.
    results = answers(along_z(0), PatientName="Secret")
    too_long = pydicom.DataElement("PatientID", "LO", "Secret" * 20, validation_mode=pydicom.config.IGNORE)
    # pydicom warns, and prints other kinds of values.
    results[0].ct.header["PatientID"] = too_long
    with caplog.at_level(logging.DEBUG):
        write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    assert "Secret" not in caplog.text and "1.2." not in caplog.text and capfd.readouterr() == ("", "")
    assert pydicom.dcmread(tmp_path / "a.dcm").PatientID == ""


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = answers(along_z(0))
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MachineError, match=r"pip install 'lsms-rt\[seg\]'"):
        write_seg(results, tmp_path / "a.dcm", engine_digest=DIGEST)
    with pytest.raises(MachineError, match=r"pip install 'lsms-rt\[nifti\]'"):
        write_nifti(results, tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []


# whole files


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    with atomic_file(path) as part:
        assert part.parent == tmp_path and part.name.endswith(".nii.gz") and part != path
        part.write_text("first")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_file(path) as part:  # noqa: PT012
        part.write_text("half")
        _ = 1 / 0
    with (
        pytest.raises(MachineError, match=r"the output cannot be written \(No space left on device\)"),
        atomic_file(path),
    ):
        raise OSError(28, "No space left on device", str(path))
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written_to(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    pytest.importorskip("nibabel")
    results = answers(along_z(0))
    (tmp_path / "folder.nii").mkdir()
    for place in (tmp_path / "secret" / "a.nii", tmp_path / "folder.nii"):
        for write in (lambda p: write_seg(results, p, engine_digest=DIGEST), lambda p: write_nifti(results, p)):
            with pytest.raises(InputError, match=r"the output cannot be written \(.+\)") as caught:
                write(place)
            assert "secret" not in str(caught.value) and "folder" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.nii"]
