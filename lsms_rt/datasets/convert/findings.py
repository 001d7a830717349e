"""Checks that the sources with sentences share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lsms_rt.errors import InputError


def read_json(path: Path, name: str) -> Any:
    """Read a JSON file; ``name`` is its name in messages."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise InputError(f"{name}: not JSON in UTF-8; get it again from the source") from error


def sentences_by_number(table: Any, name: str) -> dict[int, str]:
    """Check a table {"0": sentence}, and return it with whole numbers as keys.

    Raises:
        InputError: another structure, or an empty sentence.
    """
    expected = 'expected a table of numbers and sentences, as in {"0": "a nodule in the right lung"}'
    if not isinstance(table, dict) or not table:
        raise InputError(f"{name}: {'an empty table' if table == {} else type(table).__name__}; {expected}")
    sentences = {}
    for key, value in table.items():
        if not str(key).isdecimal() or not isinstance(value, str):
            raise InputError(f"{name}: entry {str(key)[:20]!r} is of type {type(value).__name__}; {expected}")
        if not value.strip():
            raise InputError(f"{name}: entry {key!r} has an empty sentence; remove it")
        sentences[int(key)] = " ".join(value.split())
    return sentences
