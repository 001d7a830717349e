"""SHA-256 digests of bytes, files and JSON values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256(data: bytes) -> str:
    """Return the hexadecimal digest of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal digest of a file's content."""
    return sha256(path.read_bytes())


def sha256_of_json(value: Any) -> str:
    """Return the hexadecimal digest of a JSON value; the order of an object's keys does not matter."""
    return sha256(json.dumps(value, sort_keys=True).encode())
