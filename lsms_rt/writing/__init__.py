"""Write results to files: DICOM objects, NIfTI, PNG.

Libraries are imported when a file is written.
"""

from __future__ import annotations

from .nifti import write_nifti
from .rtstruct import write_rtstruct
from .secondary_capture import write_sc
from .seg import write_seg
from .sr import write_sr

__all__ = ["write_nifti", "write_rtstruct", "write_sc", "write_seg", "write_sr"]
