"""Results -> files that other programs open: DICOM Segmentation and NIfTI.

Their libraries are loaded when a file is written.
"""

from __future__ import annotations

from .nifti import write_nifti
from .seg import write_seg

__all__ = ["write_nifti", "write_seg"]
