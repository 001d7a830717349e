"""Whose answer is this: every result is of the file that it is paired with, and every series of one patient's scan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_backend import FakeBackend
from fake_dicom import CT, as_bytes, dataset, save, series
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from lsms_rt import InputError, Segmenter
from lsms_rt.engine import open_directory
from lsms_rt.errors import MissingDependencyError
from lsms_rt.reading.dicom.select_series import LISTED
from lsms_rt.reading.dicom.series import read_series
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.load import load_slice, load_slices
from lsms_rt.reading.quiet import quiet_pydicom
from lsms_rt.reading.stated import Stated
from lsms_rt.tokenizer import Tokenizer

PIXELS = np.zeros((20, 24), np.uint16)
TEXT = "the cyst in the liver"
ROUNDS = 40
# Of every scan, 5 mm apart.
FILES = 5


@pytest.fixture
def segmenter(demo_engine: Path) -> Segmenter:
    directory = open_directory(demo_engine)
    tokenizer = Tokenizer(directory.read("tokenizer.json"), directory.manifest.max_tokens)
    return Segmenter.from_backend(FakeBackend(), directory.manifest, tokenizer)


SCANS = ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID", "SeriesNumber")
PHASES = ("AcquisitionNumber", "AcquisitionTime", "ConvolutionKernel")


def owners(rng: np.random.Generator, name: str) -> Iterator[dict[str, Any]]:
    """Tags of two to four scans that differ in one attribute; the others may be empty."""
    common: dict[str, Any] = {"PatientID": "7", "StudyInstanceUID": "1.2.5", "FrameOfReferenceUID": "1.2.6"}
    common |= {"SeriesInstanceUID": "1.2.8", "SeriesNumber": 3, "PatientName": "Doe"}
    common = {tag: "" if tag != name and rng.random() < 0.4 else value for tag, value in common.items()}
    for n in range(int(rng.integers(2, 5))):
        yield common | {name: f"1.2.9.{n}" if name.endswith("UID") else n + 1 if "Number" in name else f"10101{n}"}


def scans(folder: Path, rng: np.random.Generator) -> dict[Path, tuple[int, str]]:
    """Files of scans that lie between or behind each other, under shuffled names -> their scan and SOPInstanceUID."""
    names, written = iter(rng.permutation(100)), {}
    name = str(rng.choice([*SCANS, *PHASES]))
    # Acquisitions that follow each other are one series, those of two patients are not.
    offset = float(rng.choice([*np.round(np.arange(0.1, 5, 0.2), 1), *([5 * FILES] * 3 if name in SCANS else [])]))
    for owner, tags in enumerate(owners(rng, name)):
        for n in range(FILES):
            uid, path = str(generate_uid()), folder / f"{next(names):02d}"
            place = [0, 0, 5 * n + offset * owner]
            save(dataset(PIXELS, **tags, SOPInstanceUID=uid, ImagePositionPatient=place, InstanceNumber=n), path)
            written[path] = owner, uid
    return written


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_every_answer_is_of_its_own_file(tmp_path: Path, segmenter: Segmenter, seed: int) -> None:
    rng = np.random.default_rng(seed)
    files = scans(tmp_path, rng)
    uids = {uid: owner for owner, uid in files.values()}
    paths = [list(files)[n] for n in rng.permutation(len(files))][: int(rng.integers(1, 20))]
    results = list(segmenter.predict_series(iter(paths), TEXT, batch=2))
    assert [r.ct.sop_instance_uid for r in results] == [files[path][1] for path in paths]
    assert [r.index for r in results] == list(range(len(paths)))

    # An unreadable one shifts no answer to another's place.
    broken = int(rng.integers(len(paths)))
    whole = paths[broken].read_bytes()
    paths[broken].write_bytes(whole[: int(rng.integers(150, 400))])
    with pytest.raises(InputError, match=rf"^images\[{broken}\]: "):
        segmenter.predict_series(paths, TEXT)
    told = LeftOut()
    for wanted in [None, *chosen(tmp_path)]:
        try:
            slices = load_slices(tmp_path, series=wanted, left_out=told)
        except InputError:
            assert wanted is None or "without a SeriesInstanceUID" in message(tmp_path, wanted)
            continue
        assert len({uids[ct.sop_instance_uid or ""] for ct in slices}) == 1
        assert [ct.position_mm for ct in slices] == sorted(ct.position_mm or 0.0 for ct in slices)
    assert len(told.damaged) >= 1


def chosen(folder: Path) -> list[str]:
    """What the error lists, as --series wants it."""
    return re.findall(r"(\S+) \(\d+ slices", message(folder, None))


def message(folder: Path, wanted: str | None) -> str:
    with pytest.raises(InputError) as caught:
        read_series(folder, wanted, left_out=LeftOut())
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("PatientID", ("A", "B"), "patient (PatientID, PatientName or PatientBirthDate)"),
        ("PatientName", ("A^B", "A^C"), "patient (PatientID, PatientName or PatientBirthDate)"),
        ("PatientBirthDate", ("19700101", ""), "patient (PatientID, PatientName or PatientBirthDate)"),
        ("StudyInstanceUID", ("1.2.5", "1.2.6"), "StudyInstanceUID"),
        ("FrameOfReferenceUID", ("1.2.5", "1.2.6"), "FrameOfReferenceUID"),
        ("SeriesInstanceUID", ("1.2.5", ""), "SeriesInstanceUID"),
    ],
)
@pytest.mark.parametrize("uid", ["1.2.3.4", ""])
def test_one_uid_for_several_scans_merges_none(
    tmp_path: Path, name: str, values: tuple[str, str], said: str, uid: str
) -> None:
    for n, value in enumerate(values):
        series(tmp_path, [15 * n, 15 * n + 5, 15 * n + 10], str(n), **{"SeriesInstanceUID": uid, name: value})
    assert message(tmp_path, None).endswith(
        f"3:1 (3 slices 20x24); 3:2 (3 slices 20x24); those of one number differ in {said}"
    )
    assert [ct.position_mm for ct in read_series(tmp_path, "3:2")] == [15, 20, 25]


def test_ways_to_write_one_name_are_one_patient(tmp_path: Path) -> None:
    for n, name in enumerate(("DOE^JOHN", "Doe^John^^ ", "doe^john")):
        series(tmp_path, [5 * n], str(n), PatientName=name)
    assert len(read_series(tmp_path)) == 3


def test_names_in_other_alphabets_are_told_apart(tmp_path: Path) -> None:
    """Two bytes of GB 18030 that differ as those of a capital and a small letter do."""
    for n, name in enumerate((b"\xb0\xc1", b"\xb0\xe1")):
        data = as_bytes(dataset(PIXELS, ImagePositionPatient=[0, 0, 5 * n], PatientName="XX"))
        (tmp_path / str(n)).write_bytes(data.replace(b"PN\2\0XX", b"PN\2\0" + name))
    with pytest.raises(InputError, match="2 series or stacks.*differ in patient"):
        read_series(tmp_path)


BARE = dict.fromkeys(
    ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID", "SOPClassUID"), ""
)


@pytest.mark.parametrize("uid", ["", "0", "ANONYMIZED", None])
def test_a_series_that_was_anonymized_to_the_bone_is_read(tmp_path: Path, uid: str | None) -> None:
    with quiet_pydicom():
        series(tmp_path, [0, 5, 10], **(BARE | {"SeriesInstanceUID": uid}))
    slices = read_series(tmp_path)
    note = "SeriesInstanceUID is missing: the files agree in all else, and are taken as one series"
    assert [ct.position_mm for ct in slices] == [0, 5, 10] and {ct.notes for ct in slices} == {(note,)}
    assert load_slices(tmp_path / "0.dcm")[0].notes == ()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([{"ImagePositionPatient": [0, 0, 16]}], "slices are 5.00 to 6.00 mm apart"),
        ([{"ImagePositionPatient": [0, 0, 15], "AcquisitionNumber": 2}], "2 values of AcquisitionNumber"),
        ([{"ImagePositionPatient": [0, 0, 15], "PixelSpacing": [0.8, 0.8]}], "2 values of PixelSpacing"),
        ([{"ImagePositionPatient": [0, 0, 15], "InstanceNumber": 1}], "1 values of InstanceNumber occur more"),
        ([{"ImagePositionPatient": None}], "ImagePositionPatient is absent"),
        ([{"ImagePositionPatient": [0, 0, 15], "SeriesInstanceUID": "ID_f8"}], "2 values that are no UIDs stand in"),
    ],
)
def test_files_without_a_uid_must_agree(tmp_path: Path, more: list[dict[str, Any]], said: str) -> None:
    series(tmp_path, [0, 5, 10], **BARE)
    for n, tags in enumerate(more):
        with quiet_pydicom():
            save(dataset(PIXELS, **(BARE | {"InstanceNumber": 7 + n} | tags)), tmp_path / f"x{n}")
    text = message(tmp_path, None)
    assert f"the folder: 4 files without a SeriesInstanceUID may be several series ({said}" in text
    assert "--as-one-series" in text and "as_one_series=True" in text
    if "absent" not in said:
        slices = read_series(tmp_path, stated=Stated(as_one_series=True))
        assert len(slices) == 4 and "as stated" in slices[0].notes[0]


def test_a_statement_merges_no_patients_and_no_phases(tmp_path: Path) -> None:
    series(tmp_path / "a", [0, 5, 10], PatientID="A", SeriesInstanceUID="")
    series(tmp_path / "a", [15, 20], "b", PatientID="B", SeriesInstanceUID="")
    series(tmp_path / "b", [0, 5, 10], AcquisitionNumber=1, SeriesInstanceUID="")
    series(tmp_path / "b", [1, 6, 11], "b", AcquisitionNumber=2, SeriesInstanceUID="")
    for name in "ab":
        with pytest.raises(InputError, match="2 series or stacks"):
            read_series(tmp_path / name, stated=Stated(as_one_series=True))


@pytest.mark.parametrize(
    ("tags", "meta", "is_ct"),
    [
        ({"SOPClassUID": ""}, CT, True),
        ({"SOPClassUID": "", "ImageType": ""}, CT, True),
        ({"SOPClassUID": None}, None, True),
        ({"SOPClassUID": None, "ImageType": ["DERIVED", "SECONDARY", "OTHER"]}, None, False),
        ({"SOPClassUID": None, "ImageType": None}, None, False),
        ({"SOPClassUID": "", "Modality": "MR"}, CT, False),
        ({"SOPClassUID": ""}, "1.2.840.10008.5.1.4.1.1.7", False),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, CT, False),
        ({"SOPClassUID": "", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, CT, False),
    ],
)
def test_what_is_a_ct_image_without_its_class(tmp_path: Path, tags: dict[str, Any], meta: Any, is_ct: bool) -> None:
    ds = dataset(PIXELS, **tags)
    ds.file_meta.MediaStorageSOPClassUID = meta
    if meta is None:
        del ds.file_meta.MediaStorageSOPClassUID
    (tmp_path / "a").write_bytes(as_bytes(ds))
    for image in (tmp_path / "a", tmp_path, ds):
        if is_ct:
            assert len(load_slices(image)) == 1
        else:
            with pytest.raises(InputError, match="Modality|SOP class|localizer"):
                load_slices(image)


def test_a_list_has_no_series_to_choose_from(segmenter: Segmenter) -> None:
    with pytest.raises(InputError, match="^series chooses one of an input's series, and a list has several inputs"):
        segmenter.predict_series([dataset(), dataset()], TEXT, series=3)


def test_an_error_of_a_list_names_its_input_whatever_it_is(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_decoder(*_: Any, **__: Any) -> None:
        raise MissingDependencyError("no decoder for JPEG; install it")

    monkeypatch.setattr("lsms_rt.reading.load.slices_of_file", no_decoder)
    with pytest.raises(MissingDependencyError, match=r"^images\[1\]: no decoder for JPEG"):
        segmenter.predict_series([np.zeros((20, 24)), dataset()], TEXT)


def turned(angle: float) -> list[float]:
    return [np.cos(angle), 0, np.sin(angle), 0, 1, 0]


def test_jitter_of_the_orientation_reorders_nothing_and_splits_nothing(tmp_path: Path) -> None:
    for n, z in enumerate((3, 0, 2, 1)):
        angle = 0.0049 + 0.0002 * (n % 2)
        tags = {"ImageOrientationPatient": turned(angle), "ImagePositionPatient": [250, -250, z]}
        save(dataset(PIXELS, **tags), tmp_path / str(n))
    slices = read_series(tmp_path)
    assert [float(ct.header.ImagePositionPatient[2]) for ct in slices] == [0, 1, 2, 3]
    np.testing.assert_allclose(np.diff([ct.position_mm or 0.0 for ct in slices]), 1, atol=1e-4)


def test_slices_that_are_not_parallel_are_no_stack(tmp_path: Path) -> None:
    for n in range(4):
        tags = {"ImageOrientationPatient": turned(0.0045 * (-1) ** n), "ImagePositionPatient": [250, -250, n]}
        save(dataset(PIXELS, **tags), tmp_path / str(n))
    with pytest.raises(InputError, match=r"^the folder: 4 slices are not parallel, .* by up to 0\.0090; .* own folder"):
        read_series(tmp_path)


def followed_by(ds: Any, **tags: Any) -> bytes:
    """A file whose pixels are followed by other elements."""
    more = Dataset()
    more.file_meta = ds.file_meta
    for name, value in tags.items():
        setattr(more, name, value)
    data = as_bytes(more)
    return as_bytes(ds) + data[144 + int.from_bytes(data[140:144], "little") :]


@pytest.mark.parametrize(
    "tags", [{"SeriesInstanceUID": "1.2.99"}, {"RescaleIntercept": 0}, {"NumberOfFrames": 1}, {"PatientID": "B"}]
)
def test_attributes_behind_the_pixels_are_refused(tmp_path: Path, tags: dict[str, Any]) -> None:
    series(tmp_path, [0, 5, 10])
    (tmp_path / "1.dcm").write_bytes(followed_by(dataset(PIXELS, ImagePositionPatient=[1, 2, 5]), **tags))
    words = "attributes of the image follow its pixels"
    with pytest.raises(InputError, match=f"^the file: {words}"):
        load_slice(tmp_path / "1.dcm")
    told = LeftOut()
    assert len(load_slices(tmp_path, left_out=told)) == 2
    assert len(told.damaged) == 1 and told.damaged[0].startswith(f"file 2 of 3: {words}")


@pytest.mark.parametrize(
    "tags", [{"SOPInstanceUID": "1.2.3"}, {"PatientID": "B"}, {"ImagePositionPatient": [1, 2, 60]}, {"frames": 3}]
)
def test_a_file_that_changes_while_it_is_read_is_left_out(
    tmp_path: Path, tags: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lsms_rt.reading.dicom import series as series_module

    series(tmp_path, [0, 5, 10])
    choose = series_module.choose
    frames = tags.pop("frames", 1)
    raw = np.zeros((frames, 20, 24), np.uint16) if frames > 1 else PIXELS
    tags = {"ImagePositionPatient": [1, 2, 5], "NumberOfFrames": frames} | tags

    def replaced(*args: Any) -> Any:
        headers = choose(*args)
        save(dataset(raw, **tags), tmp_path / "1.dcm")
        return headers

    monkeypatch.setattr(series_module, "choose", replaced)
    told = LeftOut()
    assert [ct.position_mm for ct in load_slices(tmp_path, left_out=told)] == [0, 10]
    assert told.damaged == ["file 2 of 3: changed while it was read; wait until it is copied, then repeat"]


def test_a_list_of_many_series_is_cut_off(tmp_path: Path) -> None:
    for n in range(LISTED + 5):
        save(dataset(PIXELS, SeriesInstanceUID=f"1.2.{n + 1}"), tmp_path / str(n))
    text = message(tmp_path, None)
    assert text.count("slices 20x24") == LISTED and "; and 5 more; those of one number differ in" in text
    assert len(read_series(tmp_path, f"3:{LISTED + 3}")) == 1
