"""Record of what was written into an output folder, so that an interrupted command resumes and nothing is mixed."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any

from lsms_rt.atomic import sync
from lsms_rt.errors import InputError

from .lock import LOCK_FILE, lock

NAME = "progress.jsonl"
FORMAT = 3
# The header is shorter.
HEAD_BYTES = 4096
# Makes it slow to guess the sentence and the paths from the request's digest.
ROUNDS = 200_000
FOREIGN = "the output folder is not empty and holds no results of this command; choose an empty or new folder with -o"


class Journal:
    """JSON lines: a header that identifies the request, then one line per finished slice or file.

    Every line holds the request's digest, and lines of other requests are ignored.  The journal is locked while it is
    open.  A line is written before its files get their names: a file whose digest is in no line is not ours.

    Args:
        folder: an existing folder.
        request: everything that the answers depend on, in plain types.

    Attributes:
        salt: of the folder's digests.
        started: when the journal was created, with the time zone of that place: what is written again for the same
            request has the same dates.
        digests: name of a file -> all digests that files of this name had.

    Raises:
        InputError: another run has the lock, or the folder holds other files or results of another request.
        OSError: the journal cannot be written.
    """

    def __init__(self, folder: Path, request: Sequence[object]) -> None:
        self.digests: dict[str, set[str]] = {}
        self._records: dict[str, dict[str, Any]] = {}
        self._file = _open(folder)
        try:
            self._unlock = lock(self._file.fileno(), folder)
            try:
                self._read_or_start(folder, request)
            except BaseException:
                self._unlock()
                raise
        except BaseException:
            self._file.close()
            raise

    def _read_or_start(self, folder: Path, request: Sequence[object]) -> None:
        self._file.seek(0)
        first = self._file.read(HEAD_BYTES)
        if not first:
            # Created a moment ago, by this run or by one that ended at once.
            if {path.name for path in folder.iterdir()} - {NAME, LOCK_FILE}:
                raise InputError(FOREIGN)
            self.salt = secrets.token_hex(16)
            self._request = request_digest(self.salt, request)
            self.started = datetime.now().astimezone().replace(microsecond=0)
            self._append({"format": FORMAT, "salt": self.salt, "started": self.started.isoformat()})
            sync(folder / NAME)
            sync(folder)
            return
        head = _parsed(first.partition(b"\n")[0].decode("utf-8", "replace"))
        self.salt = str(head.get("salt"))
        self._request = request_digest(self.salt, request)
        started = _time(head.get("started"))
        if head.get("request") != self._request or head.get("format") != FORMAT or started is None:
            raise InputError(
                "the output folder holds results of another input, sentence, engine, window, version or --names "
                "setting; choose another folder with -o"
            )
        self.started = started
        _, *lines = (first + self._file.readall()).decode("utf-8", "replace").split("\n")
        for line in lines:
            self._take(_parsed(line))
        # A line that was cut off must not merge with the next one.
        if lines[-1:] != [""]:
            self._write(b"\n")

    def _take(self, entry: Mapping[str, Any]) -> None:
        """Remember one line, if it is of this request."""
        files = entry.get("files")
        if entry.get("request") != self._request or not isinstance(files, dict):
            return
        for name, digest in files.items():
            if Path(name).name != name:
                return
            self.digests.setdefault(name, set()).add(str(digest))
        if isinstance(entry.get("record"), dict):
            self._records[str(entry.get("key"))] = dict(entry)

    def find(self, key: str) -> tuple[dict[str, Any], dict[str, str]] | None:
        """Return the last record with this key and the digests of its files by their names; None if there is none."""
        entry = self._records.get(key)
        return None if entry is None else (entry["record"], entry["files"])

    def __bool__(self) -> bool:
        """Return whether there is any record."""
        return bool(self._records)

    def add(self, files: Mapping[str, str], *, key: str = "", record: Mapping[str, Any] | None = None) -> None:
        """Record files that are about to get their names.

        Args:
            files: name -> digest.
            key: identifies a slice.
            record: the slice's entry in results.json; None for other files.
        """
        entry = {"files": dict(files)} | ({} if record is None else {"key": key, "record": dict(record)})
        self._append(entry)
        self._take(entry | {"request": self._request})

    def close(self) -> None:
        """End the lock."""
        self._unlock()
        self._file.close()

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._write(json.dumps({"request": self._request, **entry}, allow_nan=False).encode() + b"\n")

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) :]


def _open(folder: Path) -> FileIO:
    """Open or create the journal; InputError where a folder is not ours, which is left as it is."""
    path = folder / NAME
    flags = os.O_RDWR | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    if not os.path.lexists(path):
        if any(folder.iterdir()):
            raise InputError(FOREIGN)
        try:
            return _opened(os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            # Another run was faster.
            pass
    return _opened(os.open(path, flags | getattr(os, "O_NONBLOCK", 0)))


def _opened(descriptor: int) -> FileIO:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(FOREIGN)
    return FileIO(descriptor, "a+")


def request_digest(salt: str, request: Sequence[object]) -> str:
    """Return a digest of everything the answers depend on.

    It is salted and slow: neither equal requests of two folders nor a list of names are found out from it.
    """
    return hashlib.pbkdf2_hmac("sha256", json.dumps(request, default=str).encode(), salt.encode(), ROUNDS).hex()


def _time(text: Any) -> datetime | None:
    """Parse when a journal was created; None in a head that this command did not write."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _parsed(line: str) -> dict[str, Any]:
    """Parse one line; return an empty dict for a line that was cut off."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
