"""DICOM files written with pydicom, for the tests of the reader."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from lsms_rt.privacy import show_names

CT = UID("1.2.840.10008.5.1.4.1.1.2")
STANDARD = [1, 0, 0, 0, 1, 0]


def dataset(raw: Any = None, **tags: Any) -> Dataset:
    """A CT image; a tag given as None is left out."""
    if raw is None:
        raw = np.random.default_rng(0).integers(0, 2000, (37, 101)).astype(np.uint16)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = CT
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = CT, generate_uid(), "1.2.3.4"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.Modality, ds.SeriesNumber, ds.ImageType = "CT", 3, ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = raw.shape[-2:]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, int(raw.dtype.kind == "i")
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    ds.ImageOrientationPatient, ds.ImagePositionPatient, ds.PixelSpacing = STANDARD, [0, 0, 5], [0.8, 0.5]
    ds.PixelData = raw.tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    return ds


def save(ds: Dataset, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(path, enforce_file_format=True)
    return path


def as_bytes(ds: Dataset) -> bytes:
    """The file, with the preamble and with as much file meta as the data set has."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.preamble = bytes(128)
        ds.save_as(file, enforce_file_format="MediaStorageSOPClassUID" in ds.file_meta)
    return file.getvalue()


def series(folder: Path, positions: Any, prefix: str = "", **tags: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for n, z in enumerate(positions):
        raw = np.full((20, 24), 1000 + int(z), np.uint16)
        # air, without which values are no HU
        raw[9, 9] = 24
        save(
            dataset(raw, **({"ImagePositionPatient": [1, 2, z], "InstanceNumber": n} | tags)),
            folder / f"{prefix}{n}.dcm",
        )


@contextmanager
def shown_names() -> Iterator[None]:
    show_names()
    try:
        yield
    finally:
        show_names(False)


def enhanced(frames: int = 3, **tags: Any) -> Dataset:
    raw = np.stack([np.full((20, 24), 100 * n, np.uint16) for n in range(frames)])
    names = ("RescaleSlope", "RescaleIntercept", "RescaleType", "ImageOrientationPatient")
    gone = dict.fromkeys((*names, "ImagePositionPatient", "PixelSpacing"))
    ds = dataset(raw, **gone, SOPClassUID=CT + ".1", NumberOfFrames=frames)
    shared, value, plane, measures = Dataset(), Dataset(), Dataset(), Dataset()
    value.RescaleSlope, value.RescaleIntercept, value.RescaleType = 2, -1000, tags.get("RescaleType", "HU")
    plane.ImageOrientationPatient, measures.PixelSpacing = STANDARD, [0.8, 0.5]
    shared.PixelValueTransformationSequence = [value]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for n in range(frames):
        group, position, kind = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, -10 * n]
        kind.FrameType = ["ORIGINAL", "PRIMARY", tags.get("flavor", "VOLUME"), "NONE"]
        group.PlanePositionSequence, group.CTImageFrameTypeSequence = [position], [kind]
        groups.append(group)
    own = Dataset()
    own.RescaleSlope, own.RescaleIntercept = 1, 7
    groups[-1].PixelValueTransformationSequence = [own]
    ds.PerFrameFunctionalGroupsSequence = groups
    return ds
