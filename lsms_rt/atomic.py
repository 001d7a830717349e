"""Atomic writes: a file or a folder appears complete, or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically: yield the path of a temporary file, which becomes ``path`` at the end.

    The temporary file lies in the same folder and has the same extension, since libraries choose a format by it.  After
    an error it is removed, and a file that was at ``path`` stays as it was.

    Args:
        path: the file to write.  Its folder must exist.

    Raises:
        InputError: the file cannot be written (disk full, read-only, no such folder); no file name is in the message.
    """
    path = Path(path)
    if not path.name:
        raise InputError("the output has no file name; give one")
    part = path.with_name(f".{secrets.token_hex(8)}.part{_extension(path)}")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise unwritable(error) from error
    finally:
        # After a success the temporary file no longer exists.
        with suppress(OSError):
            part.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, atomically; raises as :func:`atomic_file`."""
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` in which its content is made; it is removed at the end.

    Args:
        target: the folder to write with :func:`move_folder`.  Its parent is created where it does not exist.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as folder:
        yield Path(folder)


def move_folder(finished: Path, target: Path) -> None:
    """Move a finished folder out of its :func:`work_folder` to ``target``, in place of a folder that is there.

    The replaced folder is moved into the work folder, with which it is removed.
    """
    if target.exists():
        target.rename(finished.parent / "replaced")
    finished.rename(target)


def unwritable(error: OSError) -> InputError:
    """Return the error to raise for a failed write: the reason, without the file name that ``error`` may hold."""
    reason = error.strerror or type(error).__name__
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = "free some disk space, or choose another output" if full else "choose another output"
    return InputError(f"the output cannot be written ({reason}); {fix}")


def _extension(path: Path) -> str:
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
