"""What a record says of the machine."""

from __future__ import annotations

import os

import pytest

from lsms_rt.bench import provenance


@pytest.mark.parametrize(("usable", "words"), [(8, "8 cores"), (2, "2 of 8 cores")])
def test_the_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch, usable: int, words: str) -> None:
    monkeypatch.setattr(provenance, "cpu_count", lambda: usable)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert provenance.provenance()["device"]["processor"].endswith(f", {words}")
