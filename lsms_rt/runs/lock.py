"""One run at a time in an output folder."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

from lsms_rt.errors import InputError

LOCK_FILE = ".progress.lock"
# What file systems answer that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_log = logging.getLogger("lsms_rt")


class BusyError(InputError):
    """Another run is writing to the output folder."""


def lock(descriptor: int, folder: Path) -> Callable[[], None]:
    """Lock an output folder for this run.

    The lock is that of an open file, and ends with the process, however it ends.  Where the file system has no such
    locks, a file is the lock, which a warning tells: a run that is killed leaves it behind.

    Args:
        descriptor: of the folder's journal, open for writing.
        folder: the folder.

    Returns:
        What ends the lock; closing the journal is needed too.

    Raises:
        BusyError: another run has the lock.
        OSError: the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:
        # Windows
        return _lock_file(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(
            "another run is writing to the output folder; wait for its end, or choose another folder with -o"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return _lock_file(folder)
    return lambda: None


def _lock_file(folder: Path) -> Callable[[], None]:
    path = folder / LOCK_FILE
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError as error:
        raise BusyError(
            f"another run is writing to the output folder, or was killed; wait for its end, or delete {LOCK_FILE} if "
            "there is none"
        ) from error
    _log.warning("the output folder's file system has no locks, so %s guards it; delete it after a crash", LOCK_FILE)
    return lambda: path.unlink(missing_ok=True)
