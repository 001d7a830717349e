"""Which series were begun, and how each ended: files that every process sees, and that outlive all of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lsms_rt.atomic import sync, unwritable, write_text
from lsms_rt.errors import InputError

SERIES = "series"
# A series whose process died so often is not tried again.
MAX_TRIES = 2


class State:
    """The state of every series of an archive, by its number.

    Args:
        folder: the output folder of the archive.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun, self._ended = folder / "state" / "begun", folder / "state" / "ended"

    def create(self) -> None:
        """Create the folders; InputError or MachineError if they cannot be written."""
        try:
            for folder in (self._begun, self._ended, self._folder / SERIES):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(error) from error

    def place(self, number: int) -> Path:
        """Return the output folder of a series."""
        return self._folder / SERIES / name(number)

    def begin(self, number: int) -> None:
        """Record that a series is begun; it is on the disk before anything is computed that may kill the process."""
        try:
            descriptor = os.open(self._begun / name(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            # Its name, too: a series may bring the machine down.
            sync(self._begun)
        except OSError as error:
            raise unwritable(error) from error

    def tries(self, number: int) -> int:
        """Return how often a series was begun since it last ended."""
        try:
            return (self._begun / name(number)).stat().st_size
        except FileNotFoundError:
            return 0

    def withdraw(self, number: int) -> None:
        """Take back that a series was begun: it was stopped, and for no fault of it."""
        if (tries := self.tries(number)) > 0:
            os.truncate(self._begun / name(number), tries - 1)

    def end(self, number: int, record: dict[str, Any]) -> None:
        """Record how a series ended: ``kind``, "" with results, and ``error``; raises if that cannot be written."""
        write_text(self._ended / name(number), json.dumps(record, allow_nan=False) + "\n", durable=True, private=True)
        self._forget(number)

    def has_ended(self, number: int) -> bool:
        """Return whether it is recorded how a series ended."""
        return (self._ended / name(number)).exists()

    def ended(self) -> dict[int, dict[str, Any]]:
        """Return how series ended, by their numbers.

        Raises:
            InputError: a record cannot be read.
        """
        try:
            files = [path for path in self._ended.iterdir() if path.name.isdecimal()]
            records = {int(path.name): json.loads(path.read_text(encoding="utf-8")) for path in files}
            return {number: {"kind": record["kind"], **record} for number, record in records.items()}
        except (OSError, ValueError, LookupError, TypeError) as error:
            kind = type(error).__name__
            raise InputError(f"the state of a series cannot be read ({kind}); choose another folder with -o") from error

    def reopen(self, number: int) -> None:
        """Let a series be tried again."""
        (self._ended / name(number)).unlink(missing_ok=True)
        self._forget(number)

    def _forget(self, number: int) -> None:
        (self._begun / name(number)).unlink(missing_ok=True)


def name(number: int) -> str:
    """Return the name of a series' files: sorted by name, they are sorted by number."""
    return f"{number:08d}"
