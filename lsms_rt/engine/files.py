"""Read a file of an engine.  Engines come from elsewhere: a name may lead to a pipe, a device or an endless file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lsms_rt.errors import EngineFileMissingError, EngineInvalidError

# Without the first one, opening a pipe waits for its writer.  Windows has neither, and needs O_BINARY.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def read_file(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file of at most ``limit`` bytes.

    Raises:
        FileNotFoundError: there is none.
        EngineFileMissingError: it cannot be opened or read.
        EngineInvalidError: it is not a regular file, or larger.
    """
    try:
        with open(os.open(path, _FLAGS), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise EngineInvalidError(f"{path} is not a regular file; copy the engine again, with all its files")
            if status.st_size > limit:
                raise EngineInvalidError(
                    f"{path} has {status.st_size} bytes, over the limit of {limit >> 20} MiB; copy the engine again"
                )
            data = file.read(status.st_size + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(str(path)) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise EngineFileMissingError(f"{path} cannot be read ({why}); check the engine's permissions") from error
    # One byte more: it grows, or is none of a disk's.
    if len(data) > status.st_size:
        raise EngineInvalidError(f"{path} has more bytes than its size says; copy the engine again")
    return data
