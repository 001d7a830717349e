"""Atomic writes: a file or a folder appears complete, or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError, LsmsError, MachineError

# Temporary files, in the folder of the file that is written.
PART = re.compile(r"\.[0-9a-f]{16}\.part(\.[A-Za-z0-9.]+)?")
# A write that fails by one of these is the machine's failure; by any other, of the chosen place.
MACHINE_FAILURES = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, getattr(errno, "ESTALE", -1))
)
# Network file systems that do not sync folders; folders that may be written to but not listed.
_NO_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, durable: bool = False, private: bool = False) -> Iterator[Path]:
    """Write a file atomically: yield the path of a temporary file, which becomes ``path`` at the end.

    The temporary file lies in the same folder and has the same extension, since libraries choose a format by it.  After
    an error it is removed, and a file that was at ``path`` stays as it was.

    Args:
        path: the file to write.  Its folder must exist.
        durable: wait until the file is on the disk, so that it survives a loss of power.
        private: let only the owner read the file (mode 0600), since it shows patients.

    Raises:
        InputError: the file cannot be written there (read-only, no such folder); no file name is in the message.
        MachineError: the machine failed (disk full, input or output error).
    """
    path = Path(path)
    if not path.name:
        raise InputError("the output has no file name; give one")
    part = part_of(path)
    try:
        if private:
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield part
        if durable:
            sync(part)
        part.replace(path)
        if durable:
            sync(path.parent)
    except OSError as error:
        raise unwritable(error) from error
    finally:
        # After a success the temporary file no longer exists.
        with suppress(OSError):
            part.unlink()


def part_of(path: Path) -> Path:
    """Return a new name for a temporary file beside ``path``; it matches ``PART`` and has the same extension."""
    return path.with_name(f".{secrets.token_hex(8)}.part{_extension(path)}")


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk, where the file system supports it."""
    # Windows cannot open a folder.
    if os.name == "nt" and path.is_dir():
        return
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def write_text(path: str | os.PathLike[str], text: str, *, durable: bool = False, private: bool = False) -> None:
    """Write ``text`` to ``path`` in UTF-8, atomically; arguments and errors as for :func:`atomic_file`."""
    with atomic_file(path, durable=durable, private=private) as part:
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

    The replaced folder is moved into the work folder, with which it is removed.  If ``finished`` cannot be moved, it is
    moved back.
    """
    replaced = finished.parent / "replaced"
    if target.exists():
        target.rename(replaced)
    try:
        finished.rename(target)
    except OSError:
        # Another build may have written `target` by now; that one is kept.
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise


def unwritable(error: OSError) -> LsmsError:
    """Return the error to raise for a failed write: the reason, without the file name that ``error`` may hold."""
    reason = error.strerror or type(error).__name__
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    fix = "free some disk space, or choose another output" if full else "choose another output"
    kind = MachineError if error.errno in MACHINE_FAILURES else InputError
    return kind(f"the output cannot be written ({reason}); {fix}")


def _extension(path: Path) -> str:
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix
