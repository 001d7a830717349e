"""Bytes -> pydicom Dataset, within limits. Other files, DICOMDIRs and damaged files are refused.

Nothing that is read from a file stands in a message: values and pydicom's texts may hold a patient's data.
"""

from __future__ import annotations

import io
import logging
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from lsms_rt.errors import InputError, LsmsError

from .source import HEAD_BYTES, Source, inflation_limit

if TYPE_CHECKING:
    from pydicom import Dataset

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_DEFLATED = "1.2.840.10008.1.2.1.99"
# What the first element of a data set without preamble may be: file meta, or up to SOPInstanceUID.
_FIRST_ELEMENTS = {0x0002: range(0x0011), 0x0008: range(0x0019)}
_FIRST_VRS = (b"UL", b"OB", b"UI", b"CS", b"SH", b"DA", b"TM", b"DT")
MAX_ITEMS = 100_000  # of sequences in a header, items in items too; pydicom makes an object of each
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # little and big endian
_lock = threading.RLock()


class Opened(NamedTuple):
    """A data set, and what had to be assumed to read it."""

    ds: Dataset
    notes: tuple[str, ...] = ()


class IsDicomdir(InputError):
    """A DICOMDIR where an image was expected."""


@contextmanager
def quiet_pydicom(*others: str) -> Iterator[None]:
    """No warnings or log lines from pydicom, nor log lines of `others`, which use it.

    The switches belong to the whole process, hence the lock.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", *others)]
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file that begins so is DICOM: DICM after 128 bytes, or at once what an image's data set begins with.

    Old exports lack the preamble, and some the file meta too. Their first element must be a known one, little endian,
    with a known type (explicit VR) or with a plausible length (implicit VR).
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 12:
        return False
    group, element = (int.from_bytes(head[at : at + 2], "little") for at in (0, 2))
    if element not in _FIRST_ELEMENTS.get(group, ()):
        return False
    return head[4:6] in _FIRST_VRS or (group == 0x0008 and int.from_bytes(head[4:8], "little") <= 1024)


def open_dataset(source: Source, *, header_only: bool = False, dicomdir: bool = False) -> Opened:
    """Parse a DICOM file within the size limits; InputError if it is not DICOM or damaged.

    dicomdir: whether a DICOMDIR is wanted; otherwise one raises IsDicomdir.
    """
    with quiet_pydicom():
        try:
            with source.open(header_only=header_only) as file:
                counted = _ItemCounter(file)
                try:
                    return _parse(cast(BinaryIO, counted), source.label, header_only, dicomdir)
                except Exception as error:
                    if counted.items > MAX_ITEMS:  # pydicom makes an OSError of it
                        raise InputError(_too_many_items(source.label)) from error
                    raise
        except (LsmsError, MemoryError):
            raise
        except OSError as error:
            if error.errno is None:  # not the system's: pydicom's, of what it cannot parse
                raise InputError(f"{source.label}: damaged or truncated DICOM (OSError); export it again") from error
            why = error.strerror or type(error).__name__
            raise InputError(f"{source.label}: cannot be opened ({why}); check the path") from error
        except Exception as error:  # pydicom raises almost anything, some texts holding values
            kind = type(error).__name__
            raise InputError(f"{source.label}: damaged or truncated DICOM ({kind}); export it again") from error


def _parse(file: BinaryIO, name: str, header_only: bool, dicomdir: bool) -> Opened:
    from pydicom import dcmread
    from pydicom.filereader import _read_file_meta_info, read_preamble

    if not looks_like_dicom(file.read(HEAD_BYTES)):
        raise InputError(f"{name}: not DICOM (no DICM at byte 128); give a DICOM, .npy, .png, .nii or .zip file")
    file.seek(0)
    read_preamble(file, force=True)  # force: a missing one was judged above
    meta = _read_file_meta_info(file)
    if meta.get("MediaStorageSOPClassUID") == DICOMDIR_CLASS and not dicomdir:
        raise IsDicomdir(f"{name}: a DICOMDIR, not an image; give its path alone, or the folder of one series")
    if meta.get("TransferSyntaxUID") == _DEFLATED:  # from here, not from the group length, which may lie
        _check_inflated_size(file, name)
    file.seek(0)
    ds = dcmread(file, stop_before_pixels=header_only, force=True)
    if ds.file_meta.get("TransferSyntaxUID"):
        return Opened(ds)
    implicit, little = ds.original_encoding  # which pydicom found by looking at the first element
    if not little:
        raise InputError(f"{name}: big endian without a TransferSyntaxUID; export it again")
    ds.file_meta.TransferSyntaxUID = _IMPLICIT if implicit else _EXPLICIT
    kind = "implicit" if implicit else "explicit"
    return Opened(ds, (f"TransferSyntaxUID is missing: {kind} VR little endian is assumed",))


def _check_inflated_size(file: BinaryIO, name: str) -> None:
    """pydicom inflates a deflated file in one go; count first, a megabyte at a time."""
    begin = file.tell()
    limit = inflation_limit(file.seek(0, io.SEEK_END) - begin)
    file.seek(begin)
    inflate, total, items = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    while not inflate.eof and (data := inflate.unconsumed_tail or file.read(2**16)):
        piece = inflate.decompress(data, 2**20)
        total, items = total + len(piece), items + sum(map(piece.count, _ITEM_TAGS))
        if total > limit:
            raise InputError(f"{name}: inflates to over the limit of {limit / 2**20:.0f} MiB; give a smaller file")
        if items > MAX_ITEMS:
            raise InputError(_too_many_items(name))


class _ItemCounter(io.RawIOBase):
    """A file whose reader is stopped at MAX_ITEMS items: a megabyte of empty ones would take a thousand times that."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.items = file, 0

    def read(self, size: int | None = -1) -> bytes:
        data = self._file.read(-1 if size is None else size)
        self.items += sum(map(data.count, _ITEM_TAGS))
        if self.items > MAX_ITEMS:
            raise ValueError("too many items")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _too_many_items(name: str) -> str:
    return f"{name}: over {MAX_ITEMS} items in sequences, more than any CT image has; export it again"
