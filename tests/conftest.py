"""Shared fixtures: a small random model, engines, phantom slices.  Nothing here needs a GPU or a network."""

from __future__ import annotations

import atexit
import functools
import gc
import logging
import os
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TESTS = Path(__file__).parent

# Kernels run in Triton's interpreter, on the CPU.  It must be chosen before they are defined; what needs the compiler
# (tests of aot.py) runs in processes of its own.
os.environ["TRITON_INTERPRET"] = "1"

# From here until all is imported: a million objects, of which none is garbage.
gc.disable()

# One of the processes of ``pytest -n``.
WORKER = os.environ.get("PYTEST_XDIST_WORKER")
if WORKER and hasattr(os, "sched_setaffinity"):
    # Each has its own cores, before a library counts them: PyTorch's and ONNX Runtime's threads would wait for others'.
    cores, workers = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    index = int(WORKER.removeprefix("gw"))
    os.sched_setaffinity(0, cores[index % len(cores) :: workers])
if WORKER:
    # To take apart all objects takes seconds.  What is registered later, by libraries, has run by then.
    atexit.register(os._exit, 0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Plan ``pytest -n``: a file's tests stay in one process, for their fixtures; what takes longest comes first.

    That is what is marked as a group of several files, "exports" of the same graphs and "page" in one browser, then the
    files with slow tests, then those with many.  Short ones at the end keep all processes busy.
    """
    if not WORKER:
        return
    joined = {mark.args[0] for item in items if (mark := item.get_closest_marker("xdist_group")) is not None}
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(TESTS).with_suffix("").as_posix()))
    groups = [item.get_closest_marker("xdist_group").args[0] for item in items]
    slow = {group for group, item in zip(groups, items, strict=True) if item.get_closest_marker("slow")}
    size = Counter(groups)
    order = sorted(range(len(items)), key=lambda i: (groups[i] not in joined, groups[i] not in slow, -size[groups[i]]))
    items[:] = [items[i] for i in order]


def pytest_collection_finish() -> None:
    """Spare each test what the many loggers and objects of libraries cost.

    Garbage is collected rarely, and not among what is imported: a million objects, 0.2 s each time.
    """
    # Pytest attaches its handlers to each logger that tells nothing to the root, six times a test: 57 are PyTorch's.
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.propagate = True
    gc.freeze()
    gc.set_threshold(50_000)
    gc.enable()


def pytest_unconfigure() -> None:
    """Let go of it: Triton's library would report what is still there at the end as leaked."""
    if not WORKER:
        gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package's cache for this session: no test reads or writes the user's, and builds export a model once.

    An export takes half a minute; processes that a test starts use the same cache.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("LSMS_RT_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def parser_made_once() -> Iterator[None]:
    """Make the command line's parser once, which takes 3 ms: tests call commands more than a thousand times."""
    from lsms_rt.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "make_parser", functools.cache(main.make_parser))
        yield


# Where a test looks neither at a picture nor for how long a digest takes: 20 ms and 80 ms with the product's numbers.
SMALL = {
    "lsms_rt.runs.journal.ROUNDS": 1,
    "lsms_rt.writing.sources.ROUNDS": 1,
    "lsms_rt.writing.overlay._MIN_SIDE": 64,
    "lsms_rt.datasets.phantom.sheet.TILE": 64,
}


@pytest.fixture(scope="session", autouse=True)
def sizes_of_the_product() -> Iterator[dict[str, int]]:
    """Make small what ``SMALL`` names, for the session; its value is what the product has."""
    had = {name: pkgutil.resolve_name(name) for name in SMALL}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(name, value)
        yield had


@pytest.fixture
def nothing_is_small(sizes_of_the_product: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what ``SMALL`` names as in the product: for tests of pictures and of digests."""
    for name, value in sizes_of_the_product.items():
        monkeypatch.setattr(name, value)


@pytest.fixture(scope="session", autouse=True)
def phantom_of_gates_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Generate the gates' phantom once, for all processes, with slices of 128 x 128 whatever the engine's size.

    To generate it takes longer than to ask about it.
    """
    from filelock import FileLock

    from lsms_rt.calibration.gate import PHANTOM_SEED
    from lsms_rt.datasets.phantom import dataset
    from lsms_rt.datasets.phantom.spec import PhantomSpec
    from lsms_rt.digest import sha256_of_json

    write = dataset.write_phantom
    # The folders of the processes of ``pytest -n`` are in one of the run.
    base = tmp_path_factory.getbasetemp()
    run = base.parent if WORKER else base

    def made(spec: PhantomSpec) -> Path:
        folder = run / f"gate-{sha256_of_json(asdict(spec))[:12]}"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                write(folder, spec)
        return folder

    @functools.wraps(write)
    def linked(folder: Path, spec: PhantomSpec, workers: int | None = None) -> int:
        if spec.seed != PHANTOM_SEED:
            return write(folder, spec, workers)
        # A gate only reads it; thousands of files to copy take a second.
        folder.symlink_to(made(replace(spec, matrix=128)))
        return sum(spec.slices_per_case())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "write_phantom", linked)
        yield


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


class _KeptOpen:
    """A backend that stays open when its Segmenter is closed."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def opened_engines() -> Iterator[dict[tuple[Any, ...], Any]]:
    opened: dict[tuple[Any, ...], Any] = {}
    yield opened
    for backend in opened.values():
        backend.close()


@pytest.fixture
def bundled_engine_opened_once(
    opened_engines: dict[tuple[Any, ...], Any], demo_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open the bundled engine once per set of options, which takes 0.25 s; all other engines each time, as users do."""
    from lsms_rt import segmenter

    open_backend = segmenter.open_backend

    def open_once(directory: Any, *options: Any) -> Any:
        if directory.path != demo_engine:
            return open_backend(directory, *options)
        if options not in opened_engines:
            opened_engines[options] = open_backend(directory, *options)
        return _KeptOpen(opened_engines[options])

    monkeypatch.setattr(segmenter, "open_backend", open_once)


@pytest.fixture
def engines_are_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let engines predict what is bright, for tests of what is done with any masks.

    Opening the bundled engine takes 0.25 s, a slice of it 80 ms.
    """
    from fake_backend import FakeBackend

    from lsms_rt import segmenter

    monkeypatch.setattr(segmenter, "open_backend", lambda *_: FakeBackend())


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
