"""Write a phantom slice as a CT image file that any DICOM reader accepts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .case import Case


def write_slice(path: Path, case: Case, index: int, case_id: str) -> None:
    """Write slice ``index`` of ``case`` as CT Image Storage, 16 bit signed, rescale 1 / -1024, HU within 0.5.

    Rows run from anterior to posterior and columns from the patient's right to left (orientation 1,0,0,0,1,0); the
    case's slices are ordered from head to feet, so z decreases.  UIDs depend on the seed and the matrix alone.
    """
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    item = case.slices[index]
    uid = [
        f"refhl-phantom-{case.seed}-{item.hu.shape[0]}-{name}"
        for name in ("study", "series", "frame", f"image-{index}")
    ]
    study, series, frame, instance = (generate_uid(entropy_srcs=[name]) for name in uid)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, instance
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.Modality, ds.ImageType = "CT", ["DERIVED", "PRIMARY", "AXIAL"]
    ds.Manufacturer, ds.SeriesDescription = "lsms-rt", f"RefHL-Phantom, synthetic, {case.phase}"
    ds.PatientName, ds.PatientID, ds.PatientSex, ds.PatientBirthDate = "Phantom^RefHL", case_id, "O", ""
    ds.PatientPosition = "HFS"
    ds.StudyID, ds.AccessionNumber, ds.SeriesNumber, ds.InstanceNumber = "1", "", 1, index + 1
    ds.StudyDate = ds.StudyTime = ds.ReferringPhysicianName = ""
    height, width = item.hu.shape
    left, top = -0.5 * (width - 1) * case.spacing_mm, -0.5 * (height - 1) * case.spacing_mm
    ds.ImagePositionPatient = [f"{left:.4f}", f"{top:.4f}", f"{-item.z_mm:.4f}"]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [f"{case.spacing_mm:.5f}"] * 2
    ds.SliceThickness, ds.KVP = f"{case.thickness_mm:.3f}", str(case.kvp)
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = height, width, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "-1024", "1", "HU"
    ds.WindowCenter, ds.WindowWidth = "50", "400"
    ds.PixelData = (item.hu.astype(np.int32) + 1024).astype("<i2").tobytes()
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
