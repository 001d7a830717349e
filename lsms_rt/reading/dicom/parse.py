"""Parse bytes into a pydicom Dataset, within limits; other files, DICOMDIRs and damaged files are rejected.

Messages contain nothing that was read from a file: values and pydicom's texts may contain a patient's data.
"""

from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from lsms_rt.errors import InputError, LsmsError
from lsms_rt.reading.environment import import_pydicom, raise_if_machine
from lsms_rt.reading.limits import inflation_limit
from lsms_rt.reading.quiet import quiet_pydicom

from .geometry import EXPORT_AGAIN
from .kept_header import check_values
from .source import HEAD_BYTES, Source

if TYPE_CHECKING:
    from pydicom import Dataset

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_DEFLATED = "1.2.840.10008.1.2.1.99"
# The possible first elements of a data set without preamble: file meta, or up to SOPInstanceUID.
_FIRST_ELEMENTS = {0x0002: range(0x0011), 0x0008: range(0x0019)}
_FIRST_VRS = (b"UL", b"OB", b"UI", b"CS", b"SH", b"DA", b"TM", b"DT")
_PIXELS = 0x7FE00010
# items of sequences in a header, nested ones included; pydicom makes an object of each
MAX_ITEMS = 100_000
# little and big endian
_ITEM_TAGS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")


class Opened(NamedTuple):
    """A data set, and the assumptions that were made to read it."""

    ds: Dataset
    notes: tuple[str, ...] = ()


class IsDicomdir(InputError):
    """The file is a DICOMDIR, and an image was expected."""


def looks_like_dicom(head: bytes) -> bool:
    """Return True if the first bytes look like DICOM: DICM after 128 bytes, or the first element of an image.

    Old exports have no preamble, and some no file meta either.  Their first element must be a known one, little endian,
    with a known type (explicit VR) or a plausible length (implicit VR).
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
    """Parse a DICOM file within the size limits.

    Args:
        source: the file.
        header_only: stop before the pixels.
        dicomdir: accept a DICOMDIR.

    Raises:
        InputError: not DICOM, damaged, over a limit, or it cannot be opened; IsDicomdir for an unexpected DICOMDIR.
    """
    import_pydicom()
    with source.budget.working(), quiet_pydicom():
        try:
            with source.open(header_only=header_only) as file:
                counted = _ItemCounter(file)
                try:
                    return _parse(cast(BinaryIO, counted), source.label, header_only, dicomdir)
                except Exception as error:
                    # pydicom turns the counter's error into an OSError
                    if counted.items > MAX_ITEMS:
                        raise InputError(_too_many_items(source.label)) from error
                    raise
        except (LsmsError, MemoryError):
            raise
        except OSError as error:
            raise_if_machine(error, source.label)
            # Without errno it is not the system's error but pydicom's, which could not parse the file.
            if error.errno is None:
                message = f"{source.label}: damaged or truncated DICOM (OSError); {EXPORT_AGAIN}"
                raise InputError(message) from error
            why = error.strerror or type(error).__name__
            raise InputError(f"{source.label}: cannot be opened ({why}); check the path") from error
        except Exception as error:
            raise_if_machine(error, source.label)
            # pydicom raises almost any class; its texts may contain values
            kind = type(error).__name__
            raise InputError(f"{source.label}: damaged or truncated DICOM ({kind}); {EXPORT_AGAIN}") from error


def _parse(file: BinaryIO, name: str, header_only: bool, dicomdir: bool) -> Opened:
    from pydicom import dcmread
    from pydicom.filereader import _read_file_meta_info, read_preamble

    if not looks_like_dicom(file.read(HEAD_BYTES)):
        raise InputError(f"{name}: not DICOM (no DICM at byte 128); give a DICOM, .npy, .png, .nii or .zip file")
    file.seek(0)
    # force: files without a preamble were checked above
    read_preamble(file, force=True)
    meta = _read_file_meta_info(file)
    if meta.get("MediaStorageSOPClassUID") == DICOMDIR_CLASS and not dicomdir:
        raise IsDicomdir(f"{name}: a DICOMDIR, not an image; pass the DICOMDIR itself, or one series folder")
    # Counted from here, not from the group length, which may be wrong.
    if meta.get("TransferSyntaxUID") == _DEFLATED:
        _check_inflated_size(file, name)
    file.seek(0)
    ds = dcmread(file, stop_before_pixels=header_only, force=True)
    _check_order(ds, name)
    check_values(ds, name)
    if ds.file_meta.get("TransferSyntaxUID"):
        return Opened(ds)
    # pydicom derived it from the first element
    implicit, little = ds.original_encoding
    if not little:
        raise InputError(f"{name}: big endian without a TransferSyntaxUID; {EXPORT_AGAIN}")
    ds.file_meta.TransferSyntaxUID = _IMPLICIT if implicit else _EXPLICIT
    kind = "implicit" if implicit else "explicit"
    return Opened(ds, (f"TransferSyntaxUID is missing: {kind} VR little endian is assumed",))


def _check_order(ds: Dataset, name: str) -> None:
    """Refuse attributes of the image behind its pixels: they replace earlier ones, which were the ones checked."""
    from pydicom.datadict import dictionary_has_tag

    pixels = _place_of(ds.get_item(_PIXELS)) if _PIXELS in ds else None
    if pixels is None:
        return
    for element in ds.values():
        place = _place_of(element)
        if place is None or place < pixels or not 0x0008 <= element.tag.group < 0x7FE0:
            continue
        # Bytes behind a file's end are read as elements too, but hardly ever as ones that exist.
        if dictionary_has_tag(element.tag):
            raise InputError(f"{name}: attributes of the image follow its pixels, where none may be; {EXPORT_AGAIN}")


def _place_of(element: Any) -> int | None:
    """The element's place in the file; None if it was not read from one."""
    place = getattr(element, "value_tell", None) or getattr(element, "file_tell", None)
    return None if place is None else int(place)


def _check_inflated_size(file: BinaryIO, name: str) -> None:
    """Count the inflated bytes, one megabyte at a time, before pydicom inflates the whole file at once."""
    begin = file.tell()
    limit = inflation_limit(file.seek(0, io.SEEK_END) - begin)
    file.seek(begin)
    inflate, total, items = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    while not inflate.eof and (data := inflate.unconsumed_tail or file.read(2**16)):
        piece = inflate.decompress(data, 2**20)
        total, items = total + len(piece), items + sum(map(piece.count, _ITEM_TAGS))
        if total > limit:
            raise InputError(f"{name}: inflates to more than the limit of {limit / 2**20:.0f} MiB; give a smaller file")
        if items > MAX_ITEMS:
            raise InputError(_too_many_items(name))


class _ItemCounter(io.RawIOBase):
    """A file that raises an error after ``MAX_ITEMS`` items: pydicom needs 1 GB for 1 MB of empty items."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.items = file, 0

    def read(self, size: int | None = -1) -> bytes:
        data = self._file.read(-1 if size is None else size)
        # Thousands of reads for each file, most of them of eight bytes.
        self.items += data.count(_ITEM_TAGS[0]) + data.count(_ITEM_TAGS[1])
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
    return f"{name}: over {MAX_ITEMS} items in sequences, more than any CT image has; {EXPORT_AGAIN}"
