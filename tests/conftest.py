"""Shared fixtures: a small random model, engines, phantom slices.  Nothing here needs a GPU or a network."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

# Kernels run in Triton's interpreter, on the CPU.  It must be chosen before they are defined; what needs the compiler
# (tests of aot.py) runs in processes of its own.
os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def demo_engine() -> Path:
    from lsms_rt import demo_engine

    return demo_engine()


@pytest.fixture(scope="session")
def phantom_case():
    """One phantom case with lesions; generated once."""
    from lsms_rt.datasets.phantom.case import generate_case

    return generate_case(4242, 6, 128)


@pytest.fixture
def abdomen() -> np.ndarray:
    """float32 (96, 96) in HU: air, a body, a liver with a dark and a bright spot.  Enough for plumbing."""
    y, x = np.mgrid[:96, :96]
    hu = np.full((96, 96), -1000.0, np.float32)
    hu[(x - 48) ** 2 / 40**2 + (y - 48) ** 2 / 32**2 < 1] = 40
    hu[(x - 32) ** 2 + (y - 44) ** 2 < 18**2] = 105
    hu[(x - 28) ** 2 + (y - 40) ** 2 < 5**2] = 10
    return hu
