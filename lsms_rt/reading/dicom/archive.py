"""Members of a ZIP archive as sources, read in memory: nothing is extracted, and member paths are never used.

A few kilobytes can claim or inflate to terabytes, so a member is inflated only as far as it is read, and never over a
limit, whatever sizes the archive states.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from lsms_rt.errors import InputError
from lsms_rt.privacy import label
from lsms_rt.reading.budget import Budget
from lsms_rt.reading.environment import raise_if_machine
from lsms_rt.reading.limits import check_count, check_size, inflation_limit

from .source import HEAD_BYTES, ends_like_dicom, is_visible

# of the archive's own directory, which zipfile reads at once
MAX_DIRECTORY_BYTES = 4 * 2**20
# of a member up to its pixels; an Enhanced CT with a few thousand frames needs a tenth
MAX_HEADER_BYTES = 32 * 2**20
# a slice's header, and little of its pixels
_CHUNK = 2**14
# zipfile inflates others without a limit on memory
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# flag bit
_ENCRYPTED = 0x1


@contextmanager
def sources_of_archive(path: Path, name: str) -> Iterator[list[MemberSource]]:
    """Open an archive and yield its visible members, sorted by path; InputError for other files, or too many."""
    try:
        file = _Guarded(path, name)
    except OSError as error:
        raise_if_machine(error, name)
        raise InputError(f"{name}: cannot be opened ({error.strerror}); check the path") from error
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except (InputError, MemoryError):
            raise
        except Exception as error:
            # BadZipFile, NotImplementedError, struct.error, UnicodeDecodeError ...
            kind = type(error).__name__
            raise InputError(
                f"{name}: not a readable ZIP archive ({kind}); create it again, or give the folder"
            ) from error
        with archive:
            check_count(len(archive.infolist()), name, "members")
            # info.is_dir() fails for an empty name
            members = [(_parts(info), info) for info in archive.infolist() if not info.filename.endswith("/")]
            members = sorted((m for m in members if is_visible(m[0])), key=lambda m: "/".join(m[0]))
            budget = Budget(name, packed=path.stat().st_size)
            yield [
                MemberSource(archive, info, label(info.filename, f"member {n} of {len(members)}"), budget)
                for n, (_, info) in enumerate(members, 1)
            ]


def _parts(info: zipfile.ZipInfo) -> tuple[str, ...]:
    return tuple(part for part in info.filename.split("/") if part not in ("", ".", ".."))


class _Guarded(io.FileIO):
    """A file that rejects large reads: zipfile reads the directory at once, and its stated size may be wrong."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path)
        self._label = name

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            limit = f"{MAX_DIRECTORY_BYTES / 2**20:.0f} MiB"
            raise InputError(f"{self._label}: its directory is over the limit of {limit}; archive one series only")
        return super().read(size) or b""


@dataclass(frozen=True)
class MemberSource:
    """A member of an archive; ``label`` is its name in messages."""

    archive: zipfile.ZipFile = field(repr=False)
    info: zipfile.ZipInfo = field(repr=False)
    label: str
    budget: Budget = field(repr=False)

    @property
    def named_dicom(self) -> bool:
        return ends_like_dicom(self.info.filename)

    def head(self) -> bytes:
        with self._inflated(_CHUNK) as file:
            return file.read(HEAD_BYTES)

    def open(self, *, header_only: bool = False) -> BinaryIO:
        check_size(self.info.file_size, self.label)
        # The member's size is only stated; the archive's is real.
        packed = min(self.info.compress_size, self.budget.packed)
        limit = inflation_limit(packed)
        return self._inflated(min(MAX_HEADER_BYTES, limit) if header_only else limit)

    def _inflated(self, limit: int) -> BinaryIO:
        if self.info.flag_bits & _ENCRYPTED:
            raise InputError(f"{self.label}: encrypted; unpack the archive with its password and give the folder")
        if self.info.compress_type not in _METHODS:
            method = self.info.compress_type
            raise InputError(
                f"{self.label}: compression method {method} is not supported; unpack the archive and give the folder"
            )
        try:
            return cast(BinaryIO, _Inflated(self.archive.open(self.info), limit, self.label, self.budget))
        except Exception as error:
            # BadZipFile, NotImplementedError ..., whose texts contain names
            kind = type(error).__name__
            raise InputError(f"{self.label}: damaged in the archive ({kind}); create the archive again") from error


class _Inflated(io.RawIOBase):
    """A member as a seekable file: inflated as far as it is read, and kept, since pydicom seeks back and forth."""

    def __init__(self, member: IO[bytes], limit: int, name: str, budget: Budget) -> None:
        self._member, self._limit, self._name, self._budget = member, limit, name, budget
        self._kept, self._size = io.BytesIO(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._kept.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            self._inflate_to(None)
        return self._kept.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        everything = size is None or size < 0
        self._inflate_to(None if everything else self._kept.tell() + cast(int, size))
        return self._kept.read(size)

    def _inflate_to(self, end: int | None) -> None:
        if end is not None and end <= self._size:
            return
        here = self._kept.tell()
        self._kept.seek(self._size)
        while (end is None or self._size < end) and (chunk := self._next()):
            self._size += self._kept.write(chunk)
        self._kept.seek(here)

    def _next(self) -> bytes:
        try:
            chunk = self._member.read(_CHUNK)
        except Exception as error:
            # zlib.error, BadZipFile (whose text contains the name), EOFError
            kind = type(error).__name__
            raise InputError(f"{self._name}: damaged in the archive ({kind}); create the archive again") from error
        if self._size + len(chunk) > self._limit:
            limit = f"{self._limit / 2**20:.0f} MiB"
            raise InputError(f"{self._name}: inflates to more than the limit of {limit}; give a smaller file")
        self._budget.add_inflated(len(chunk))
        return chunk

    def close(self) -> None:
        self._member.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
