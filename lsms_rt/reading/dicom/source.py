"""Where the bytes of a DICOM file come from: a path, or (archive.py) a member of an archive."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from lsms_rt.errors import InputError
from lsms_rt.privacy import label

MAX_FILE_BYTES = 512 * 2**20  # of one file, of one member of an archive, and of what a deflated file inflates to
MAX_FILES = 20_000  # in a folder, of an archive's members, of a DICOMDIR's records
HEAD_BYTES = 144  # enough to tell DICOM from other files
MOST_INFLATION = 64  # times its packed size may become, beyond the first
FREE_INFLATION = 64 * 2**20  # bytes; CT images shrink to a half or a third, bombs to a thousandth
_LARGE_READ = 2**20


class Source(Protocol):
    """Bytes that may be a DICOM file."""

    @property
    def label(self) -> str:
        """What messages call it."""

    def head(self) -> bytes:
        """The first HEAD_BYTES, or all there are; of any file, however large. Raises like `open`."""

    def open(self, *, header_only: bool = False) -> AbstractContextManager[BinaryIO]:
        """A seekable binary file. InputError if it is empty or over a limit; OSError if it cannot be opened."""


@dataclass(frozen=True)
class FileSource:
    path: Path
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
    """No more is asked for than there is: a length in a file may be anything, and memory is set aside for it."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _LARGE_READ:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


def inflation_limit(packed: int) -> int:
    """Bytes that so many packed ones may become: what a CT image may need, and less than a bomb wants."""
    return min(MAX_FILE_BYTES, max(FREE_INFLATION, MOST_INFLATION * packed))


def check_size(size: int, source: str) -> None:
    """InputError for a file of no bytes, or of more than MAX_FILE_BYTES."""
    if size == 0:
        raise InputError(f"{source}: the file is empty; export it again")
    if size > MAX_FILE_BYTES:
        limit = f"{MAX_FILE_BYTES / 2**20:.0f} MiB"
        raise InputError(f"{source}: {size / 2**20:.0f} MiB is over the limit of {limit}; give a smaller file")


def file_sources(paths: Sequence[Path], noun: str = "file") -> list[FileSource]:
    """Files in their order, called ``file 1 of 3`` and so on."""
    return [FileSource(p, label(p, f"{noun} {n} of {len(paths)}")) for n, p in enumerate(paths, 1)]


def sources_of_folder(folder: Path, name: str) -> list[FileSource]:
    """All visible files below a folder, sorted by path; InputError if there are too many, or it cannot be read."""
    visible: list[tuple[str, Path]] = []
    try:
        for path in _files(folder):
            visible.append((path.relative_to(folder).as_posix(), path))
            check_count(len(visible), name, "files")
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check its permissions") from error
    return file_sources([path for _, path in sorted(visible)])


def _files(folder: Path) -> Iterator[Path]:
    """Visible files.  OSError for a folder below that cannot be listed: a series may lie in it."""

    def stop(error: OSError) -> None:
        raise error

    for root, inner, names in os.walk(folder, onerror=stop):
        inner[:] = [name for name in inner if is_visible((name,))]
        yield from (path for name in names if is_visible((name,)) and (path := Path(root, name)).is_file())


def is_visible(parts: Sequence[str]) -> bool:
    """Whether no part of a path begins with a dot."""
    return not any(part.startswith(".") for part in parts)


def check_count(count: int, name: str, noun: str) -> None:
    """InputError for more than MAX_FILES."""
    if count > MAX_FILES:
        raise InputError(f"{name}: {count} {noun}, over the limit of {MAX_FILES}; give one series only")
