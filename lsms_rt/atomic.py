"""Files that appear whole, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields the path of a new file beside ``path``, with the same ending; what was written there becomes ``path``.

    Whatever fails, the new file is removed and what was at ``path`` stays.  OSError (disk full, read only, no such
    folder) becomes an InputError without a file name in it.
    """
    path = Path(path)
    if not path.name:
        raise InputError("the output has no file name; give one")
    part = path.with_name(f".{secrets.token_hex(8)}.part{_ending(path)}")  # libraries go by the ending
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise unwritable(error) from error
    finally:
        with suppress(OSError):
            part.unlink()  # not there any more, unless something failed


def unwritable(error: OSError) -> InputError:
    """The error to raise instead: why, without the file name that ``error`` may hold."""
    why = error.strerror or type(error).__name__
    fix = (
        "make room, or choose another place" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another place"
    )
    return InputError(f"the output cannot be written ({why}); {fix}")


def _ending(path: Path) -> str:
    """.nii.gz, .dcm: the known double ending, or the last one."""
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
