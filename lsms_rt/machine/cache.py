"""The folder for files that can be computed again, and files in it that only this user can have written."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# Environment variable: the folder to use instead; empty for none.
CACHE = "LSMS_RT_CACHE"


def cache_folder() -> Path | None:
    """Return the user's cache folder of this package, by the platform's convention; None if caching is disabled.

    The folder may not exist yet.
    """
    configured = os.environ.get(CACHE)
    if configured is not None:
        return Path(configured) if configured else None
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "lsms-rt"


@contextmanager
def open_private(file: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; PermissionError if somebody else owns it or its folder, or may write to them."""
    with open(os.open(file, os.O_RDONLY | _PLAIN), "rb") as opened:
        _check_ours(os.stat(file.parent))
        _check_ours(os.fstat(opened.fileno()))
        yield opened


def make_private_folder(folder: Path) -> None:
    """Make a folder for this user alone, where it is missing; PermissionError if it is or may become another's."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _check_ours(os.stat(folder))


def read_private(file: Path, purpose: str) -> bytes | None:
    """Return the content of a file that :func:`write_private` wrote for ``purpose``; None if there is none.

    Raises:
        PermissionError: somebody else owns the file or its folder, or may write to them.
        ValueError: the content has changed, or was written for something else.
        OSError: the file cannot be read.
    """
    try:
        with open_private(file) as opened:
            digest, data = opened.read(_DIGEST_BYTES), opened.read()
    except FileNotFoundError:
        return None
    if digest != _digest(purpose, data):
        raise ValueError("it has changed since it was written")
    return data


def write_private(file: Path, purpose: str, data: bytes) -> None:
    """Write a file for :func:`read_private`, atomically; folders that are missing are made for this user alone.

    Raises:
        PermissionError: somebody else owns the folder, or may write to it.
        OSError: the file cannot be written.
    """
    make_private_folder(file.parent)
    part = file.with_name(f".{secrets.token_hex(8)}.part")
    try:
        # A new file, never one that is there or a link to another.
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, 0o600), "wb") as opened:
            opened.write(_digest(purpose, data) + data)
        part.replace(file)
    finally:
        with suppress(OSError):
            part.unlink()


_DIGEST_BYTES = hashlib.sha256().digest_size
# No link is followed, no pipe is waited for.  Windows has neither flag, and needs O_BINARY.
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def _digest(purpose: str, data: bytes) -> bytes:
    return hashlib.sha256(purpose.encode() + b"\0" + data).digest()


def _check_ours(status: os.stat_result) -> None:
    """Raise PermissionError unless a file or folder is this user's (or root's), and only they may write to it."""
    if not hasattr(os, "geteuid"):
        return
    if status.st_uid not in (os.geteuid(), 0):
        raise PermissionError("it belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError("other users may write to it")
