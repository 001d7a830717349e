"""One opened engine for all tests of the command line."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _bundled_engine_opened_once(bundled_engine_opened_once: None) -> None:
    pass
