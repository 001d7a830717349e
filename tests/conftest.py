"""Shared fixtures: a small random model, engines, phantom slices.  Nothing here needs a GPU or a network."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

# Kernels run in Triton's interpreter, on the CPU.  It must be chosen before they are defined; what needs the compiler
# (tests of aot.py) runs in processes of its own.
os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package's cache for this session: no test reads or writes the user's, and builds export a model once.

    An export takes half a minute; processes that a test starts use the same cache.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("LSMS_RT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def exported_graphs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], Path]:
    """``exported_graphs(size, dtype)``: a folder with text.onnx and image.onnx of the demo checkpoint.

    ``dtype`` is "fp32" or "fp16".  Each pair is exported once in a session, builds of that size included: use 128, as
    most tests do.  Mark every test that calls it as slow.
    """

    @functools.cache
    def export(size: int, dtype: str) -> Path:
        from lsms_rt.data import demo_checkpoint
        from lsms_rt.export.checkpoint import load_model
        from lsms_rt.export.graphs import export_named

        model = load_model(demo_checkpoint(), size)
        folder = tmp_path_factory.mktemp(f"graphs-{size}-{dtype}")
        for name, data in export_named(model.half() if dtype == "fp16" else model).items():
            (folder / name).write_bytes(data)
        return folder

    return export


@pytest.fixture(scope="session")
def small_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An fp32 engine of the demo checkpoint at 128, another size than the bundled engine's.  For slow tests."""
    from lsms_rt.export.build import build_engine
    from lsms_rt.export.options import BuildOptions

    path = tmp_path_factory.mktemp("build") / "small.engine"
    build_engine(BuildOptions(image_size=128, max_batch=4, verify_slices=2), path)
    return path


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
