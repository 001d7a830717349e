"""Almost every test here exports something."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _exporter(exporter_without_repeats: None) -> None:
    pass
