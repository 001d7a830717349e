"""The file of rows: one JSON line each, on the disk as soon as it arrives, and never lost to a disk that is full."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

from lsms_rt.errors import InputError

Row = dict[str, Any]


class RowFile:
    """Appends rows to a file; those that cannot be written are kept and tried again with the next one.

    Attributes:
        problem: why the last write failed; None if it did not.
    """

    def __init__(self, path: Path) -> None:
        self.problem: str | None = None
        self._path = path
        self._unsaved = b""
        self._descriptor: int | None = None
        self._lock = threading.Lock()

    def add(self, row: Row) -> None:
        """Write a row; rows of several threads do not mix."""
        with self._lock:
            self._unsaved += json.dumps(row, allow_nan=False).encode() + b"\n"
            self._write()

    def _write(self) -> None:
        try:
            if self._descriptor is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            while self._unsaved:
                # May write a part of a line; the rest follows as soon as there is room.
                self._unsaved = self._unsaved[os.write(self._descriptor, self._unsaved) :]
            self.problem = None
        except OSError as error:
            self.problem = error.strerror or str(error)

    def close(self) -> str:
        """Try once more, close the file, and return the text that could not be written."""
        with self._lock:
            self._write()
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            return self._unsaved.decode()


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file; a last line that was cut off is left out.

    Raises:
        InputError: the file cannot be read, or another line is not a row.
    """
    fix = "pass the rows.jsonl that make gpu-check wrote"
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({type(error).__name__}); {fix}") from error
    try:
        return [json.loads(line) for line in lines[:-1] if line]
    except ValueError as error:
        raise InputError(f"{path} has a line that is not JSON; {fix}") from error
