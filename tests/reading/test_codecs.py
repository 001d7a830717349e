"""Compressed CT, encoded here by other libraries and read back: exactly where the compression is lossless."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_codecs import by_gdcm, jpeg
from fake_dicom import dataset, save
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from lsms_rt.errors import MachineError
from lsms_rt.reading.load import load_slice

JPEG2000 = UID("1.2.840.10008.1.2.4.91")
LOSSLESS = [
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless,
    JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless,
]  # fmt: skip
# Allowed deviation in HU.
LOSSY = {JPEGLSNearLossless: 3, JPEG2000: 6, JPEGBaseline8Bit: 16}


def anatomy(bits: int) -> np.ndarray:
    """Smooth, at an odd size, and over the whole range of ``bits``."""
    y, x = np.mgrid[:53, :71]
    return ((np.sin(x / 9) * np.cos(y / 7) * 0.45 + 0.5) * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)


def image(syntax: UID, signed: bool = False) -> Any:
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    raw = anatomy(11).astype(np.int16) - 1024 if signed else anatomy(bits)
    ds = dataset(raw, RescaleIntercept=0 if signed else -1024)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * raw.dtype.itemsize, bits, bits - 1
    return ds


def encoded(syntax: UID, path: Path, signed: bool = False) -> Path:
    """A CT of that transfer syntax, by pydicom where it can encode it, by GDCM or Pillow otherwise."""
    ds = image(syntax, signed)
    if syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        ds.compress(syntax)
    elif syntax == JPEGLSNearLossless:
        ds.compress(syntax, jls_error=2)
    elif syntax == JPEG2000:
        ds.compress(syntax, j2k_cr=[4])
    elif syntax == JPEGBaseline8Bit:
        ds.PixelData, ds.file_meta.TransferSyntaxUID = encapsulate([jpeg(anatomy(8))]), syntax
    elif syntax == ExplicitVRBigEndian:
        ds.PixelData = ds.pixel_array.astype(">i2" if signed else ">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = syntax
    elif syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        pytest.importorskip("gdcm")
        return by_gdcm(save(ds, path.with_suffix(".plain")), syntax, path, lossy=syntax == JPEGExtended12Bit)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
    return save(ds, path)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_ct_comes_back_exactly(tmp_path: Path, syntax: UID, signed: bool) -> None:
    pytest.importorskip("pylibjpeg")
    pytest.importorskip("jpeg_ls")
    ct = load_slice(encoded(syntax, tmp_path / "a.dcm", signed))
    np.testing.assert_array_equal(ct.hu, anatomy(11 if signed else 12).astype(np.float32) - 1024)


@pytest.mark.parametrize("syntax", list(LOSSY), ids=lambda syntax: syntax.name)
def test_lossy_ct_comes_back_nearly(tmp_path: Path, syntax: UID) -> None:
    pytest.importorskip("pylibjpeg")
    pytest.importorskip("jpeg_ls")
    ct = load_slice(encoded(syntax, tmp_path / "a.dcm"))
    wanted = anatomy(8 if syntax == JPEGBaseline8Bit else 12).astype(np.float32) - 1024
    assert np.abs(ct.hu - wanted).max() <= LOSSY[syntax]


def test_twelve_bit_jpeg_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Pillow and GDCM read eight bits of it, and pydicom knows that; nothing permissive reads twelve."""
    pytest.importorskip("gdcm")
    if importlib.util.find_spec("libjpeg"):
        pytest.skip("pylibjpeg-libjpeg is installed, which reads it")
    with pytest.raises(MachineError, match="12-bit lossy JPEG"):
        load_slice(encoded(JPEGExtended12Bit, tmp_path / "a.dcm"))
