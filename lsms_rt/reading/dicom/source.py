"""Sources of bytes that may be a DICOM file: files here, members of an archive in ``archive``."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol

from lsms_rt.errors import InputError
from lsms_rt.privacy import label
from lsms_rt.reading.budget import Budget
from lsms_rt.reading.environment import raise_if_machine
from lsms_rt.reading.limits import check_count, check_size

# of a folder: hidden files and folders too, which are walked over
MAX_ENTRIES = 200_000
# endings of names of DICOM files; many have none
_ENDINGS = (".dcm", ".dicom", ".dic", ".ima")
# enough to tell DICOM from other files
HEAD_BYTES = 144
_LARGE_READ = 2**20


class Source(Protocol):
    """Bytes that may be a DICOM file."""

    @property
    def label(self) -> str:
        """Return its name in messages."""

    @property
    def named_dicom(self) -> bool:
        """Return whether its name ends like that of a DICOM file."""

    @property
    def budget(self) -> Budget:
        """Return what its input has spent so far; all sources of an input share it."""

    def head(self) -> bytes:
        """Return the first ``HEAD_BYTES``, or all bytes of a shorter file; raises as ``open``, without a size limit."""

    def open(self, *, header_only: bool = False) -> AbstractContextManager[BinaryIO]:
        """Open a seekable binary file; InputError if it is empty or over a limit, OSError if it cannot be opened."""


@dataclass(frozen=True)
class FileSource:
    """A file; ``label`` is its name in messages."""

    path: Path = field(repr=False)
    label: str
    budget: Budget = field(default_factory=Budget, repr=False, compare=False)

    @property
    def named_dicom(self) -> bool:
        return ends_like_dicom(self.path.name)

    def head(self) -> bytes:
        with self._opened() as file:
            return file.read(HEAD_BYTES)

    def open(self, *, header_only: bool = False) -> BinaryIO:
        file = _Clamped(self._opened())
        try:
            size = os.fstat(file.fileno()).st_size
            check_size(size, self.label)
            self.budget.add_file(self.path, size)
        except InputError:
            file.close()
            raise
        return file

    def _opened(self) -> io.FileIO:
        try:
            return self.path.open("rb", buffering=0)
        except OSError as error:
            raise_if_machine(error, self.label)
            raise


class _Clamped(io.BufferedReader):
    """Never request more bytes than the file has: a length in a file may be wrong, and memory is allocated for it."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _LARGE_READ:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


@dataclass(frozen=True)
class LostSource:
    """An entry of a folder that may be a slice, and leads to no file; ``why`` is the end of its message."""

    path: Path
    label: str
    why: str
    budget: Budget = field(default_factory=Budget, repr=False, compare=False)

    @property
    def named_dicom(self) -> bool:
        return ends_like_dicom(self.path.name)

    def head(self) -> bytes:
        self._refuse()

    def open(self, *, header_only: bool = False) -> BinaryIO:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(f"{self.label}: {self.why}")


def ends_like_dicom(name: str) -> bool:
    """Return whether a file's name ends like that of a DICOM file."""
    return name.lower().endswith(_ENDINGS)


def file_sources(paths: Sequence[Path], name: str, noun: str = "file") -> list[FileSource]:
    """Return sources for the files of the input ``name`` in their order, labeled ``file 1 of 3`` and so on."""
    budget = Budget(name)
    return [FileSource(p, label(p, f"{noun} {n} of {len(paths)}"), budget) for n, p in enumerate(paths, 1)]


def sources_of_folder(folder: Path, name: str) -> list[FileSource | LostSource]:
    """Return all visible files and links below a folder, sorted by path.

    A link to a file is that file.  Any other link is a :class:`LostSource`: links to folders are not followed, since
    they may lead anywhere.

    Raises:
        InputError: too many entries, or a folder that cannot be listed; it may contain a series.
    """
    visible: list[str] = []
    try:
        for path in _files(folder, name):
            visible.append(path)
            check_count(len(visible), name, "files")
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); check its permissions") from error
    # As bytes, like sort in the C locale; names may be in any encoding.
    files = file_sources([Path(path) for path in sorted(visible, key=os.fsencode)], name)
    return [LostSource(file.path, file.label, why) if (why := _lost(file.path)) else file for file in files]


def _files(folder: Path, name: str) -> Iterator[str]:
    """Yield the visible files and links, in any order."""
    folders, entries = [os.fspath(folder)], 0
    while folders:
        with os.scandir(folders.pop()) as listed:
            for entry in listed:
                entries += 1
                if entries > MAX_ENTRIES:
                    what = f"over {MAX_ENTRIES} files and folders, hidden ones included"
                    raise InputError(f"{name}: {what}; give the folder of one series")
                if not is_visible((entry.name,)):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                    yield entry.path


def _lost(path: Path) -> str:
    """Return why a link leads to no file; "" if it does, or if the path is no link."""
    if not path.is_symlink():
        return ""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return f"a link that cannot be followed ({error.strerror}); copy the file that it stands for"
    if stat.S_ISDIR(mode):
        return "a link to a folder, which is not followed; give that folder, or copy it here"
    return "" if stat.S_ISREG(mode) else "a link to something that is no file; give files only"


def is_visible(parts: Sequence[str]) -> bool:
    """Return whether no part of a path begins with a dot."""
    return not any(part.startswith(".") for part in parts)
