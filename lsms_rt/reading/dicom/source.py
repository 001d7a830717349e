"""Sources of bytes that may be a DICOM file: files here, members of an archive in ``archive``."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from lsms_rt.errors import InputError
from lsms_rt.privacy import label
from lsms_rt.reading.limits import check_count, check_size

# enough to tell DICOM from other files
HEAD_BYTES = 144
_LARGE_READ = 2**20


class Source(Protocol):
    """Bytes that may be a DICOM file."""

    @property
    def label(self) -> str:
        """Return its name in messages."""

    def head(self) -> bytes:
        """Return the first ``HEAD_BYTES``, or all bytes of a shorter file; raises as ``open``, without a size limit."""

    def open(self, *, header_only: bool = False) -> AbstractContextManager[BinaryIO]:
        """Open a seekable binary file; InputError if it is empty or over a limit, OSError if it cannot be opened."""


@dataclass(frozen=True)
class FileSource:
    """A file; ``label`` is its name in messages."""

    path: Path = field(repr=False)
    label: str

    def head(self) -> bytes:
        with self.path.open("rb") as file:
            return file.read(HEAD_BYTES)

    def open(self, *, header_only: bool = False) -> BinaryIO:
        file = _Clamped(self.path.open("rb", buffering=0))
        try:
            check_size(os.fstat(file.fileno()).st_size, self.label)
        except InputError:
            file.close()
            raise
        return file


class _Clamped(io.BufferedReader):
    """Never request more bytes than the file has: a length in a file may be wrong, and memory is allocated for it."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _LARGE_READ:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def file_sources(paths: Sequence[Path], noun: str = "file") -> list[FileSource]:
    """Return sources for ``paths`` in their order, labeled ``file 1 of 3`` and so on."""
    return [FileSource(p, label(p, f"{noun} {n} of {len(paths)}")) for n, p in enumerate(paths, 1)]


def sources_of_folder(folder: Path, name: str) -> list[FileSource]:
    """Return all visible files below a folder, sorted by path; InputError for too many, or an unreadable folder."""
    visible: list[tuple[str, Path]] = []
    try:
        for path in _files(folder):
            visible.append((path.relative_to(folder).as_posix(), path))
            check_count(len(visible), name, "files")
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check its permissions") from error
    return file_sources([path for _, path in sorted(visible)])


def _files(folder: Path) -> Iterator[Path]:
    """Yield the visible files; OSError for a subfolder that cannot be listed, since it may contain a series."""

    def stop(error: OSError) -> None:
        raise error

    for root, inner, names in os.walk(folder, onerror=stop):
        inner[:] = [name for name in inner if is_visible((name,))]
        yield from (path for name in names if is_visible((name,)) and (path := Path(root, name)).is_file())


def is_visible(parts: Sequence[str]) -> bool:
    """Return whether no part of a path begins with a dot."""
    return not any(part.startswith(".") for part in parts)
