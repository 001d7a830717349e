"""Write one CT slice as a DICOM file that any reader opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class CtNames:
    """Texts from which the UIDs of a file are made; equal texts make equal UIDs."""

    study: str
    series: str
    frame_of_reference: str
    instance: str


def write_ct(path: Path, hu: np.ndarray, names: CtNames, header: Mapping[str, Any]) -> None:
    """Write CT Image Storage, 16 bit signed, rescale 1 / -1024.

    Rows run from anterior to posterior and columns from the patient's right to left (orientation 1,0,0,0,1,0).

    Args:
        path: the file to write.
        hu: integer (H, W) in HU, -1024 to 3071.
        names: what the UIDs are made of.
        header: further attributes by keyword: the patient, the series, position, spacing, thickness.
    """
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    study, series, frame, instance = (
        generate_uid(entropy_srcs=[name])
        for name in (names.study, names.series, names.frame_of_reference, names.instance)
    )
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, instance
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.Modality, ds.ImageType, ds.Manufacturer = "CT", ["DERIVED", "PRIMARY", "AXIAL"], "lsms-rt"
    ds.PatientSex, ds.PatientBirthDate, ds.PatientPosition = "O", "", "HFS"
    ds.StudyID, ds.AccessionNumber, ds.SeriesNumber = "1", "", 1
    ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ""
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.Rows, ds.Columns = hu.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    ds.WindowCenter, ds.WindowWidth = "50", "400"
    for name, value in header.items():
        setattr(ds, name, value)
    ds.PixelData = (hu.astype(np.int32) + 1024).astype("<i2").tobytes()
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
