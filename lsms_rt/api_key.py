"""The key of a server: where it stands, for the server and for its clients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .errors import InputError

VARIABLE = "LSMS_RT_API_KEY"
MIN_KEY = 16


def read_key(path: Path | None, environment: Mapping[str, str]) -> str | None:
    """Return the key from a file, else from the environment; None if neither has one.

    Raises:
        InputError: the file cannot be read, or the key is too short or not plain text.
    """
    try:
        key = environment.get(VARIABLE) if path is None else path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise InputError("--api-key-file cannot be read as ASCII text; check its path and permissions") from error
    if key is None:
        return None
    if len(key) < MIN_KEY or not key.isascii() or not key.isprintable() or " " in key:
        where = VARIABLE if path is None else "--api-key-file"
        raise InputError(f"{where}: the key has under {MIN_KEY} characters or others than printable ASCII; make one "
                         "with: openssl rand -hex 32")  # fmt: skip
    return key
