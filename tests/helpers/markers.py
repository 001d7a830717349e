"""Markers where a patient's name and numbers would be, and a look at what comes out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pydicom

MARKER = "zqxjkwv"  # in no word, path or number of ours
DIGITS = "73519264807"  # the same for identifiers, which are numbers
UID = f"1.2.{DIGITS}"
TEXT = f"the lesion of {MARKER} in the liver"
TAGS = {
    **dict.fromkeys(
        (
            "PatientName", "PatientID", "PatientAddress", "OtherPatientNames", "InstitutionName", "AccessionNumber",
            "ReferringPhysicianName", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments",
            "StudyID", "StationName", "OperatorsName", "PatientComments", "RequestingPhysician", "BodyPartExamined",
        ),
        MARKER,
    ),
    **dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"), UID),
}  # fmt: skip
BREAK = {  # what is done to one slice -> the error path it takes
    "modality": lambda ds: setattr(ds, "Modality", MARKER.upper()),
    "no pixels": lambda ds: delattr(ds, "PixelData"),
    "short pixels": lambda ds: setattr(ds, "PixelData", ds.PixelData[:100]),
    "rescale type": lambda ds: setattr(ds, "RescaleType", MARKER),
    "image type": lambda ds: setattr(ds, "ImageType", ["ORIGINAL", MARKER, "LOCALIZER"]),
    "sop class": lambda ds: setattr(ds, "SOPClassUID", UID),
    "photometric": lambda ds: setattr(ds, "PhotometricInterpretation", MARKER),
    "orientation": lambda ds: setattr(ds, "ImageOrientationPatient", [0, 1, 0, 0, 0, -1]),
    "syntax": lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", UID),
    "rows": lambda ds: setattr(ds, "Rows", 3),
    "frames": lambda ds: setattr(ds, "NumberOfFrames", DIGITS),
}


def mark(ds: pydicom.Dataset, index: int) -> None:
    for name, value in TAGS.items():
        setattr(ds, name, value)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{UID}.{index}"
    ds.add_new(0x00091001, "LO", MARKER)


def change(file: Path, how: Callable[[pydicom.Dataset], object]) -> None:
    """Rewrite a file; what pydicom thinks of such values is no matter here, but would be in what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(file)
        how(ds)
        ds.save_as(file)


def hidden(text: str | bytes) -> bool:
    data = text.encode() if isinstance(text, str) else text
    return MARKER.encode() not in data.lower() and DIGITS[:6].encode() not in data
