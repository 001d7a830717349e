"""DICOM files as they are met: without preamble, with odd ends; and what messages say about them, and do not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_dicom import as_bytes, dataset, save, shown_names
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lsms_rt.errors import InputError
from lsms_rt.reading.load import load_slice, load_slices


def end_of_meta(data: bytes) -> int:
    return 144 + int.from_bytes(data[140:144], "little")


def read_bytes(data: bytes, folder: Path) -> Any:
    (folder / "x").write_bytes(data)
    (ct,) = load_slices(folder / "x")
    return ct


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_files_without_preamble_or_meta(syntax: UID, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ds = dataset()
    ds.file_meta.TransferSyntaxUID = syntax
    data = as_bytes(ds)
    whole = read_bytes(data, tmp_path)
    assert whole.notes == ()
    without_preamble = read_bytes(data[132:], tmp_path)
    assert without_preamble.notes == () and np.array_equal(without_preamble.hu, whole.hu)
    assert not caplog.records
    kind = "implicit" if syntax == ImplicitVRLittleEndian else "explicit"
    for cut in (data[end_of_meta(data) :], data[:132] + data[end_of_meta(data) :]):
        bare = read_bytes(cut, tmp_path)
        assert bare.notes == (f"TransferSyntaxUID is missing: {kind} VR little endian is assumed",)
        assert bare.header.file_meta.TransferSyntaxUID == syntax
        np.testing.assert_array_equal(bare.hu, whole.hu)
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    "head",
    [
        # No value at all.
        b"\x08\x00\x05\x00",
        # A length past any plausible one.
        b"\x08\x00\x05\x00\xff\xff\xff\x7f" + b"ISO_IR 100",
        # Not what a data set begins with.
        b"\x08\x00\x60\x00CS\x02\x00CT" + b"\0" * 20,
        b"\x10\x00\x10\x00PN\x04\x00Doe^" + b"\0" * 20,
        # File meta is explicit VR.
        b"\x02\x00\x10\x00\x04\x00\x00\x00abcd" + b"\0" * 20,
        # Big endian.
        b"\x00\x08\x00\x05CS\x00\x0aISO_IR 100" + b"\0" * 20,
        b"\0" * 200,
        b"GIF89a" + b"\0" * 200,
    ],
)
def test_other_files_are_not_taken_for_dicom(head: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not DICOM"):
        read_bytes(head, tmp_path)


def test_irregular_files_that_can_be_read(tmp_path: Path) -> None:
    good = as_bytes(dataset(PatientName="Abc"))
    expected = read_bytes(good, tmp_path)
    place = good.index(b"PN\x04\x00Abc ")
    no_class = dataset()
    del no_class.file_meta.MediaStorageSOPClassUID
    irregular = {
        "no group length": good[:132] + good[144:],
        "an element of odd length": good[:place] + b"PN\x03\x00Abc" + good[place + 8 :],
        "no class in the meta": as_bytes(no_class),
        **{f"{n} zeros after the end": good + bytes(n) for n in (1, 8, 1000)},
        **{f"{n} random bytes after the end": good + np.random.default_rng(n).bytes(n) for n in (1, 8, 1000)},
    }
    for what, data in irregular.items():
        np.testing.assert_array_equal(read_bytes(data, tmp_path).hu, expected.hu, err_msg=what)


def test_compressed_pixels_without_a_transfer_syntax_are_refused(tmp_path: Path) -> None:
    ds = dataset()
    ds.compress("1.2.840.10008.1.2.5", encoding_plugin="pydicom", generate_instance_uid=False)
    data = as_bytes(ds)
    with pytest.raises(InputError, match="compressed pixels, but"):
        read_bytes(data[end_of_meta(data) :], tmp_path)


def test_rescale_type_with_spaces() -> None:
    for text in ("HU ", " HU", "HU"):
        ds = dataset()
        ds.add_new("RescaleType", "SH", text)
        assert load_slice(ds).notes == ()


MARK, MARKED_UID = "Zebra", "1.2.770077007700.5"


def damaging() -> list[dict[str, Any]]:
    """Tags whose values a message could repeat, a patient's name or number being where it should not."""
    return [
        {"Modality": MARK},
        {"Modality": ["CT", MARK]},
        {"SOPClassUID": MARKED_UID},
        {"ImageType": ["ORIGINAL", MARK, "LOCALIZER"]},
        {"RescaleType": MARK},
        {"PhotometricInterpretation": MARK},
        {"PixelData": None},
        {"PixelData": b"\0" * 100},
        {"BitsStored": None},
        {"Rows": 4},
        {"NumberOfFrames": 77007700},
        {"RescaleSlope": 0},
        {"PixelSpacing": [0, 1]},
        {"ImageOrientationPatient": [0, 770077007700, 0, 0, 0, 1]},
        {"ImagePositionPatient": [770077007700, 0]},
        {"transfer_syntax": MARKED_UID},
        {"transfer_syntax": "1.2.840.10008.1.2.4.100"},
        {"cut": 700},
        {"cut": 20},
        {"cut": 0},
    ]


def marked(folder: Path, change: dict[str, Any]) -> Path:
    """A file that is wrong in one respect and holds MARK wherever it can."""
    change = dict(change)
    syntax, cut = change.pop("transfer_syntax", None), change.pop("cut", None)
    tags = {"PatientName": MARK, "PatientID": MARK, "SeriesDescription": MARK, "SeriesInstanceUID": MARKED_UID}
    tags |= {"SOPInstanceUID": MARKED_UID, "StudyInstanceUID": MARKED_UID, "ImageType": ["ORIGINAL", MARK]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = as_bytes(dataset(**(tags | change)))
    if syntax:
        data = data.replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI" + bytes([len(syntax), 0]) + syntax.encode())
    (folder / MARK).mkdir()
    path = folder / MARK / f"{MARK}.dcm"
    path.write_bytes(data[:cut])
    return path


@pytest.mark.parametrize("change", damaging(), ids=lambda change: f"{change}"[:40])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_no_message_identifies_a_patient(
    what: str, change: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = marked(tmp_path, change)
    # pydicom warned while the file was written.
    caplog.clear()
    with pytest.raises(InputError) as caught:
        load_slices(path if what == "file" else path.parent)
    said = f"{caught.value} {caplog.text}"
    assert str(caught.value).startswith(("the file: ", "file 1 of 1: ", "the folder: "))
    assert not [word for word in (MARK, "7700") if word.lower() in said.lower()], said


def test_names_are_shown_on_request(tmp_path: Path) -> None:
    path = marked(tmp_path, {"cut": 700})
    save(dataset(), tmp_path / "a.dcm")
    assert load_slice(tmp_path / "a.dcm").source == "the file"
    with shown_names():
        with pytest.raises(InputError, match=f"^{MARK}.dcm: .*export it again from the scanner or PACS$"):
            load_slices(path)
        with pytest.raises(InputError, match=f"^{MARK}.dcm: "):
            load_slices(path.parent)
        assert load_slice(tmp_path / "a.dcm").source == "a.dcm"
        with pytest.raises(InputError, match=r"^b\.dcm: .*no such file"):
            load_slices(tmp_path / "b.dcm")
    with pytest.raises(InputError, match=r"^the input: no such file.*--names"):
        load_slices(tmp_path / "b.dcm")
