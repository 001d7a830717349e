"""Which workers live: each locks a file of its own, and the system ends the lock with the process, however it ends.

A file is made, locked and deleted in a change of the ledger, so that nobody finds one that is not locked yet.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from lsms_rt.errors import InputError


class Owner:
    """A worker of this process.

    Args:
        folder: the state folder, on a disk of this machine.
        number: the worker's number in the ledger.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self._path = _path(folder, number)
        self._lock = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise InputError("a worker runs whose ledger was deleted; stop it, then start this one") from error

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._lock)


def sweep_locks(folder: Path) -> None:
    """Delete the files of workers that live no more."""
    for path in folder.glob("worker*.lock"):
        is_alive(folder, int(path.stem.removeprefix("worker")))


def is_alive(folder: Path, number: int) -> bool:
    """Return whether a worker lives; the file of one that does not is deleted."""
    path = _path(folder, number)
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        with suppress(OSError):
            path.unlink()
        return False
    finally:
        os.close(descriptor)


def _path(folder: Path, number: int) -> Path:
    return folder / f"worker{number}.lock"
