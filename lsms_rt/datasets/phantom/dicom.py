"""Write a phantom slice as a CT image file that any DICOM reader accepts."""

from __future__ import annotations

from pathlib import Path

from lsms_rt.datasets.ct_file import CtNames, write_ct

from .case import Case


def write_slice(path: Path, case: Case, index: int, case_id: str) -> None:
    """Write slice ``index`` of ``case`` as CT Image Storage, HU within 0.5.

    The case's slices are ordered from head to feet, so z decreases.  UIDs depend on the seed and the matrix alone.
    """
    item = case.slices[index]
    height, width = item.hu.shape
    names = CtNames(
        *(f"refhl-phantom-{case.seed}-{height}-{name}" for name in ("study", "series", "frame", f"image-{index}"))
    )
    left, top = -0.5 * (width - 1) * case.spacing_mm, -0.5 * (height - 1) * case.spacing_mm
    header = {
        "PatientName": "Phantom^RefHL",
        "PatientID": case_id,
        "SeriesDescription": f"RefHL-Phantom, synthetic, {case.phase}",
        "InstanceNumber": index + 1,
        "ImagePositionPatient": [f"{left:.4f}", f"{top:.4f}", f"{-item.z_mm:.4f}"],
        "PixelSpacing": [f"{case.spacing_mm:.5f}"] * 2,
        "SliceThickness": f"{case.thickness_mm:.3f}",
        "KVP": str(case.kvp),
    }
    write_ct(path, item.hu, names, header)
