"""CT images from DICOM files, datasets, folders and archives. pydicom is imported only when something is read."""

from __future__ import annotations

from .read import read_file, read_slices, slice_from_dataset, slices_from_dataset
from .series import feet_to_head, read_archive, read_dicom, read_dicomdir, read_series

__all__ = [
    "feet_to_head",
    "read_archive",
    "read_dicom",
    "read_dicomdir",
    "read_file",
    "read_series",
    "read_slices",
    "slice_from_dataset",
    "slices_from_dataset",
]
