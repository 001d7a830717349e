from __future__ import annotations

import pytest

from lsms_rt.training.phantom_slices import write_phantom_slices
from lsms_rt.training.slices import Slices, read_slices


@pytest.fixture(scope="session")
def phantom_slices(tmp_path_factory: pytest.TempPathFactory) -> Slices:
    """Two cases of three slices at 96x96, with organs and lesions."""
    folder = tmp_path_factory.mktemp("phantom-slices")
    write_phantom_slices(folder, [77, 78], 3, 96, 1)
    return read_slices(folder)
