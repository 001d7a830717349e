"""What was done, a JSON line each: rows of the ledger, counts, reasons; never a name, an identifier or a sentence."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

NAME = "audit.jsonl"


class Audit:
    """Appends lines, which are whole also where several workers write.

    Args:
        folder: where the file is; only its owner may read it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, event: str, **facts: str | int | float) -> None:
        """Append a line; OSError if the disk is full."""
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "event": event, "process": os.getpid(), **facts}).encode() + b"\n"
        if os.write(self._file, line) < len(line):
            raise OSError(28, "no space left for the audit log")

    def close(self) -> None:
        os.close(self._file)
