"""A small series, and one opened engine for all tests of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from predictions import SLICES

from lsms_rt.datasets.phantom.dicom import write_slice


@pytest.fixture(autouse=True)
def _bundled_engine_opened_once(bundled_engine_opened_once: None) -> None:
    pass


@pytest.fixture
def series(tmp_path: Path, phantom_case: Any) -> Path:
    folder = tmp_path / "series"
    folder.mkdir()
    for index in range(SLICES):
        write_slice(folder / f"{index}.dcm", phantom_case, index, "case")
    return folder
