"""What is asked of an engine that is measured: one bundled phantom slice, and one sentence."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from lsms_rt.data import DATA
from lsms_rt.reading.load import load_slice

SENTENCE = "the low-density lesion in the right lobe of the liver"


def example_bytes() -> bytes:
    """A DICOM file with one phantom slice."""
    return (DATA / "examples" / "phantom_1.dcm").read_bytes()


def example() -> np.ndarray:
    """The same in HU, float32 (H, W)."""
    return load_slice(dataset(example_bytes())).hu


def dataset(data: bytes) -> Any:
    """A DICOM file's bytes as pydicom's Dataset."""
    import pydicom

    return pydicom.dcmread(io.BytesIO(data))
