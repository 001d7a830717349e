"""The input of the benchmarks of an engine: one bundled phantom slice and one sentence."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from lsms_rt.data import DATA
from lsms_rt.reading.load import load_slice

SENTENCE = "the low-density lesion in the right lobe of the liver"


def example_bytes() -> bytes:
    """Return a DICOM file with one phantom slice."""
    return (DATA / "examples" / "phantom_1.dcm").read_bytes()


def example() -> np.ndarray:
    """Return the same slice in HU, float32 (H, W)."""
    return load_slice(dataset(example_bytes())).hu


def dataset(data: bytes) -> Any:
    """Parse the bytes of a DICOM file into a pydicom Dataset."""
    import pydicom

    return pydicom.dcmread(io.BytesIO(data))
