"""Write results to files: DICOM Segmentation, NIfTI, PNG.

Libraries are imported when a file is written.
"""

from __future__ import annotations

from .nifti import write_nifti
from .seg import write_seg

__all__ = ["write_nifti", "write_seg"]
