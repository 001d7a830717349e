"""A folder for what was sent or fetched: of this user alone, locked while its process lives, else swept."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "lsms-rt-serve-"


class PrivateFolder:
    """A new folder below the system's folder for temporary files.

    Args:
        prefix: of its name.

    Attributes:
        path: the folder, with permissions 0700.
    """

    def __init__(self, prefix: str = PREFIX) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix))
            # The system ends the lock with the process, however that ends.
            try:
                self._lock = os.open(self.path, os.O_RDONLY)
            except FileNotFoundError:
                # A server that starts at the same time has swept it.
                continue
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            # It may have been swept before the lock, too.
            if self.path.is_dir():
                return
            os.close(self._lock)

    def close(self) -> None:
        """Delete the folder; once is enough."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep(prefix: str = PREFIX) -> int:
    """Delete the folders of this user's processes that live no more; return how many there were."""
    return sum(_delete(path) for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"))


def _delete(path: Path) -> bool:
    try:
        # Not what a link names: it may be somebody else's.
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if os.fstat(lock).st_uid != os.getuid():
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    except OSError:
        # Its server lives.
        return False
    finally:
        os.close(lock)
