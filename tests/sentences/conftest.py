"""Readers: of the bundled engine, and of one with an open vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lsms_rt.sentences import Reader
from lsms_rt.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def reader(demo_engine: Path) -> Reader:
    return Reader(Tokenizer((demo_engine / "tokenizer.json").read_bytes(), 32))


@pytest.fixture(scope="session")
def open_reader_(demo_engine: Path) -> Reader:
    """A vocabulary that spells words from pieces, as BERT's does: it knows nearly every word."""
    values = json.loads((demo_engine / "tokenizer.json").read_text())
    vocabulary = values["model"]["vocab"]
    pairs = [f"##{a}{b}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnopqrstuvwxyz"]
    for piece in (*pairs, "spleen", "vii", "lung", "12", "mm", "la", "du", "not", "no", "der"):
        vocabulary.setdefault(piece, len(vocabulary))
    return Reader(Tokenizer(json.dumps(values).encode(), 32))
