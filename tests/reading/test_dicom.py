"""Files written here with pydicom, one deviation at a time; what is unsafe ends in a one-line error."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from fake_dicom import dataset, enhanced, save
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from lsms_rt.errors import InputError, MachineError
from lsms_rt.reading import limits
from lsms_rt.reading.dicom.read import slices_from_dataset
from lsms_rt.reading.dicom.series import read_file
from lsms_rt.reading.load import load_slice, load_slices
from lsms_rt.reading.stated import Stated


def test_plain_slice(tmp_path: Path) -> None:
    ds = dataset()
    ct = load_slice(save(ds, tmp_path / "a"))
    np.testing.assert_array_equal(ct.hu, ds.pixel_array.astype(np.float32) - 1024)
    assert ct.hu.dtype == np.float32 and ct.spacing_mm == (0.8, 0.5) and ct.position_mm == 5
    assert ct.source == "the file" and ct.sop_instance_uid == ds.SOPInstanceUID and ct.notes == ()
    np.testing.assert_array_equal(load_slice(ds).hu, load_slice(str(tmp_path / "a")).hu)


@pytest.mark.parametrize("row_sign", [1, -1])
@pytest.mark.parametrize("column_sign", [1, -1])
@pytest.mark.parametrize("transposed", [False, True])
def test_marked_pixel_in_every_orientation(tmp_path: Path, row_sign: int, column_sign: int, transposed: bool) -> None:
    """One bright pixel, whose place in the patient is known from the standard's own equation."""
    raw = np.zeros((37, 101), np.uint16)
    raw[4, 90] = 2000
    along_row, along_column = np.array([row_sign, 0.0, 0]), np.array([0.0, column_sign, 0])
    if transposed:
        along_row, along_column = along_column, along_row
    ct = load_slice(save(dataset(raw, ImageOrientationPatient=[*along_row, *along_column]), tmp_path / "a"))
    # Millimeters to the patient's left and back.
    x, y, _ = along_row * 90 * 0.5 + along_column * 4 * 0.8
    corners = [along_row * c * 0.5 + along_column * r * 0.8 for r in (0, 36) for c in (0, 100)]
    left, front = min(p[0] for p in corners), min(p[1] for p in corners)
    assert ct.transposed == transposed and ct.spacing_mm == ((0.5, 0.8) if transposed else (0.8, 0.5))
    row, column = np.argwhere(ct.hu > 0)[0]
    assert (row * ct.spacing_mm[0], column * ct.spacing_mm[1]) == pytest.approx((y - front, x - left))
    assert np.argwhere(ct.to_input_grid(ct.hu) > 0).tolist() == [[4, 90]]
    # Towards the head, whichever way the normal points.
    assert ct.position_mm == 5


def test_gantry_tilt_is_axial() -> None:
    ct = load_slice(dataset(ImageOrientationPatient=[1, 0, 0, 0, 0.9272, -0.3746]))
    assert ct.flips == (False, False) and not ct.transposed


@pytest.mark.parametrize(
    ("orientation", "words"),
    [
        ([0, 1, 0, 0, 0, -1], "sagittal"),
        ([1, 0, 0, 0, 0, -1], "coronal"),
        ([1, 0, 0, 0, 0.7071, 0.7071], "coronal|oblique"),
        ([0.7071, 0.7071, 0, -0.7071, 0.7071, 0], "45 degrees"),
        ([1, 0, 0, 1, 0, 0], "right angles"),
        ([0, 0, 0, 0, 0, 0], "right angles"),
        ([1, 0, 0], "has 3 values; 6 finite numbers"),
    ],
)
def test_orientations_refused(orientation: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_slice(dataset(ImageOrientationPatient=orientation))


def test_signed_twelve_bit_and_monochrome1() -> None:
    raw = np.array([[-2048, -1, 0, 2047] * 8] * 16, np.int16)
    ct = load_slice(dataset(raw, RescaleIntercept=0))
    assert ct.hu[0, :4].tolist() == [-1024, -1, 0, 2047]
    # Sign in bit 11, upper bits unused.
    twelve = (raw & 0x0FFF).astype(np.uint16)
    ct = load_slice(dataset(twelve, RescaleIntercept=0, BitsStored=12, HighBit=11, PixelRepresentation=1))
    assert ct.hu[0, :4].tolist() == [-1024, -1, 0, 2047]
    ct = load_slice(dataset(raw, RescaleIntercept=0, PhotometricInterpretation="MONOCHROME1"))
    assert ct.hu[0, :4].tolist() == [-1024, -1, 0, 2047]
    ct = load_slice(dataset(raw, RescaleIntercept=0, PresentationLUTShape="INVERSE", WindowCenter=9, WindowWidth=2))
    assert ct.hu[0, :4].tolist() == [-1024, -1, 0, 2047]
    ct = load_slice(dataset(raw, RescaleSlope=2, RescaleIntercept=0))
    assert ct.hu[0, :4].tolist() == [-1024, -2, 0, 3071]
    ct = load_slice(dataset(raw, RescaleSlope=0.5, RescaleIntercept=10))
    assert ct.hu[0, :4].tolist() == [-1014, 9.5, 10, 1033.5]


def test_padding() -> None:
    raw = np.array([[-2000, 1000, 1010, 1020] * 8] * 16, np.int16)
    ds = dataset(raw, RescaleIntercept=1024)
    # It is -2000 with the wrong signedness.
    ds.add_new("PixelPaddingValue", "US", 63536)
    assert load_slice(ds).hu[0, :4].tolist() == [-1024, 2024, 2034, 2044]
    ds.add_new("PixelPaddingValue", "SS", -1980)
    ds.add_new("PixelPaddingRangeLimit", "SS", -2020)
    assert load_slice(ds).hu[0, :4].tolist() == [-1024, 2024, 2034, 2044]


@pytest.mark.parametrize("empty", ["absent", "empty"])
def test_missing_tags_are_stated_and_said(empty: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = (
        "RescaleSlope",
        "RescaleIntercept",
        "ImageOrientationPatient",
        "PixelSpacing",
        "ImagePositionPatient",
    )
    ds = dataset(PatientName="Secret^Name", **(dict.fromkeys(names) if empty == "absent" else {}))
    if empty == "empty":
        for name in names:
            setattr(ds, name, "")
    ct = load_slice(save(ds, tmp_path / "file"), stated=Stated(orientation="axial", rescale=(1, 0)))
    assert ct.hu.min() >= 0 and ct.spacing_mm is None and ct.position_mm is None
    assert [name in caplog.text for name in names] == [True, True, True, True, False]
    assert "Secret" not in caplog.text and "1.2.3.4" not in caplog.text


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"Modality": "MR"}, "Modality is MR"),
        ({"Modality": "DOE"}, "Modality is another, not CT"),
        ({"Modality": None}, "absent"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "Secondary Capture"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"PixelData": None}, "no pixel data"),
        ({"PixelData": b"\0" * 100}, "damaged or truncated pixels"),
        ({"BitsAllocated": None}, "BitsAllocated absent"),
        ({"PixelRepresentation": None}, "PixelRepresentation absent"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "a color image"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a color image"),
        ({"Rows": 30000, "Columns": 30000}, "30000x30000"),
        ({"Rows": 4096, "Columns": 4096, "NumberOfFrames": 17}, "the limits of 1 to 4096 frames and 2\\*\\*28 pixels"),
        ({"NumberOfFrames": -1}, "outside the limits of 1 to 4096 frames"),
        ({"Rows": 4, "Columns": 4}, "4x4"),
        ({"SOPClassUID": "1.2.777.1"}, "SOP class is unknown"),
        ({"RescaleType": "US"}, "RescaleType is US"),
        ({"RescaleType": "Doe^John"}, "RescaleType is another unit"),
        ({"PhotometricInterpretation": "DOE"}, "of another kind"),
        ({"ModalityLUTSequence": [Dataset()], "RescaleSlope": None}, "uses a Modality LUT, which is not supported"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"PixelSpacing": [0, 1]}, "PixelSpacing"),
        ({"PixelSpacing": [1, 1, 1]}, "PixelSpacing"),
    ],
)
def test_refusals(tags: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        slices_from_dataset(dataset(**tags), "file.dcm")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("file.dcm: ")


def test_hostile_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save(dataset(), tmp_path / "good").read_bytes()

    def refused(data: bytes, words: str) -> None:
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(InputError, match=words) as caught:
            load_slice(tmp_path / "bad")
        assert "\n" not in str(caught.value) and str(caught.value).startswith("the file: ")

    refused(b"", "empty")
    refused(b"just text\n" * 100, "not DICOM")
    refused(good[:140], "no pixel data|damaged|absent")
    for cut in range(200, len(good) - 2, 397):
        refused(good[:cut], "damaged|absent|no pixel data|is not CT|malformed")
    rng = np.random.default_rng(0)
    # Flipped bytes lead to a slice or to one of our errors, never to another error.
    for _ in range(60):
        data = bytearray(good)
        for place in rng.integers(132, 1200, 8):
            data[place] = rng.integers(256)
        (tmp_path / "bad").write_bytes(bytes(data))
        with contextlib.suppress(InputError):
            read_file(tmp_path / "bad")
    with pytest.raises(InputError, match="cannot be opened"):
        read_file(tmp_path / "nothing")
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 1000)
    refused(good, "limit")


def test_deflated_is_counted_before_it_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = dataset(np.zeros((512, 512), np.uint16))
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = save(ds, tmp_path / "a")
    assert load_slice(path).hu.shape == (512, 512)
    monkeypatch.setattr(limits, "MAX_FILE_BYTES", 100_000)
    with pytest.raises(InputError, match="inflates"):
        load_slice(path)
    data = bytearray(path.read_bytes())
    # A group length that points past the end of the file.
    data[140:144] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(InputError, match="inflates"):
        load_slice(path)


def test_missing_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", False)
    ds = dataset()
    for syntax, package in (
        ("80", "pyjpegls"),
        ("90", "openjpeg"),
        ("201", "openjpeg"),
        ("70", "python-gdcm"),
    ):
        ds.file_meta.TransferSyntaxUID = UID(f"1.2.840.10008.1.2.4.{syntax}")
        with pytest.raises(MachineError, match=f"pip install .*{package}"):
            load_slice(ds)
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.100")
    with pytest.raises(InputError, match="is not supported"):
        load_slice(ds)
    ds.file_meta.TransferSyntaxUID = UID("1.2.777.1")
    with pytest.raises(InputError, match="of an unknown kind") as caught:
        load_slice(ds)
    assert "777" not in str(caught.value)
    del ds.file_meta.TransferSyntaxUID
    with pytest.raises(InputError, match="TransferSyntaxUID"):
        load_slice(ds)


def test_rle() -> None:
    ds = dataset()
    before = load_slice(ds).hu
    ds.compress("1.2.840.10008.1.2.5", encoding_plugin="pydicom", generate_instance_uid=False)
    np.testing.assert_array_equal(load_slice(ds).hu, before)


def test_pydicoms_own_ct() -> None:
    path = str(get_testdata_file("CT_small.dcm"))
    ct = load_slice(path)
    ds = pydicom.dcmread(path)
    assert ct.hu.shape == (128, 128) and ct.spacing_mm == pytest.approx((0.661468, 0.661468))
    inside = ds.pixel_array != -2000
    np.testing.assert_array_equal(ct.hu[inside], np.clip(ds.pixel_array[inside] - 1024.0, -1024, 3071))
    with pytest.raises(InputError, match="Modality is MR"):
        load_slice(get_testdata_file("MR_small.dcm"))


def test_real_abdomen_with_reversed_rows() -> None:
    pytest.importorskip("data_store", reason="pydicom-data")
    ct = load_slice(get_testdata_file("explicit_VR-UN.dcm", download=False))
    assert ct.flips == (True, False) and ct.hu.shape == (512, 512)
    air = ct.hu < -800
    # The table lies behind the patient: at the bottom.
    assert air[:60].mean() > air[-60:].mean()


def test_enhanced_ct(tmp_path: Path) -> None:
    path = save(enhanced(), tmp_path / "a")
    slices = load_slices(path)
    assert [ct.frame for ct in slices] == [2, 1, 0] and [ct.position_mm for ct in slices] == [-20, -10, 0]
    assert [float(ct.hu[0, 0]) for ct in slices] == [207, -800, -1000]
    assert all(ct.spacing_mm == (0.8, 0.5) and ct.side_known for ct in slices)
    assert [ct.frame for ct in slices_from_dataset(enhanced())] == [0, 1, 2]
    with pytest.raises(InputError, match="contains 3 slices"):
        load_slice(path)
    with pytest.raises(InputError, match="RescaleType is US"):
        slices_from_dataset(enhanced(RescaleType="US"))
    with pytest.raises(InputError, match="localizer"):
        slices_from_dataset(enhanced(flavor="LOCALIZER"))
    assert len(slices_from_dataset(enhanced(1))) == 1


def test_pydicom_stays_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # pydicom warns of the excess.
    ds = dataset(PixelData=dataset().PixelData + b"\0" * 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_slice(ds)
    assert capfd.readouterr().err == ""


def test_a_slice_keeps_its_header_without_pixels(tmp_path: Path) -> None:
    ds = dataset(PatientID="x")
    ds.add_new(0x00091001, "LO", "private")
    ds.add_new(0x60003000, "OW", b"\0\0")
    ct = load_slice(save(ds, tmp_path / "a"))
    assert ct.header.PatientID == "x" and ct.header.SOPInstanceUID == ds.SOPInstanceUID
    assert ct.header.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert "PixelData" not in ct.header and 0x00091001 not in ct.header and 0x60003000 not in ct.header
    assert "PixelData" in ds and ct.header.Rows == ct.hu.shape[0]
