"""Encoders that pydicom has not: JPEG by Pillow, and whatever GDCM writes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from pydicom.uid import UID


def jpeg(a: np.ndarray) -> bytes:
    """A baseline JPEG stream of uint8 (H, W)."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(a).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def by_gdcm(source: Path, syntax: UID, target: Path, *, lossy: bool = False) -> Path:
    """The DICOM file ``source`` in another transfer syntax, written to ``target``."""
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(source))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    if lossy:
        codec = gdcm.JPEGCodec()
        codec.SetLossless(False)
        codec.SetQuality(98)
        change.SetUserCodec(codec)
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return target
