"""One opened engine for all tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lsms_rt import segmenter
from lsms_rt.data import demo_engine
from lsms_rt.engine import Backend, EngineDirectory


class _KeptOpen:
    """A backend that stays open when its Segmenter is closed."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def opened_engines() -> Iterator[dict[tuple[Any, ...], Backend]]:
    opened: dict[tuple[Any, ...], Backend] = {}
    yield opened
    for backend in opened.values():
        backend.close()


@pytest.fixture(autouse=True)
def bundled_engine_opened_once(opened_engines: dict[tuple[Any, ...], Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    """Open the bundled engine once per set of options, which takes 0.25 s; all other engines each time, as users do."""
    open_backend = segmenter.open_backend

    def open_once(directory: EngineDirectory, *options: Any) -> Any:
        if directory.path != demo_engine():
            return open_backend(directory, *options)
        if options not in opened_engines:
            opened_engines[options] = open_backend(directory, *options)
        return _KeptOpen(opened_engines[options])

    monkeypatch.setattr(segmenter, "open_backend", open_once)
