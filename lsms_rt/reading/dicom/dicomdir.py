"""Read a DICOMDIR: the CT images that its records refer to, as sources.

A DICOMDIR is an index that came with the data: its paths are checked, not trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lsms_rt.errors import InputError, LsmsError
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.limits import check_count
from lsms_rt.reading.quiet import quiet_pydicom

from .parse import DICOMDIR_CLASS, MAX_ITEMS, open_dataset
from .read import is_ct_class
from .source import FileSource, file_sources

if TYPE_CHECKING:
    from pydicom import Dataset

# a record has about 500 bytes
MAX_DICOMDIR_BYTES = 64 * 2**20

_ITEM_TAG = b"\xfe\xff\x00\xe0"
_IN_USE = 0xFFFF


def sources_of_dicomdir(path: Path, name: str, left_out: LeftOut | None = None) -> list[FileSource]:
    """Return the CT images of a DICOMDIR, each once, in the order of its records.

    Args:
        path: the DICOMDIR.
        name: its name in messages.
        left_out: gets a message for each missing file; None: a missing file rejects the DICOMDIR.

    Raises:
        InputError: not a DICOMDIR, damaged, too many records, a missing file, or a record that refers outside of the
            folder.
    """
    records = _image_records(path, name)
    root = path.parent.resolve()
    files = [_inside(root, record.parts, name) for record in records if record.is_ct]
    existing = list(dict.fromkeys(file for file in files if file.is_file()))
    lost = [n for n, file in enumerate(files, 1) if not file.is_file()]
    messages = [f"CT image {n} of {len(files)} of the DICOMDIR is missing; copy the whole disc again" for n in lost]
    if left_out is not None:
        left_out.damaged += messages
    elif existing and messages:
        raise InputError(f"{name}: {messages[0]}")
    if not existing:
        what = f"{len(records)} image records, {len(files)} of CT, {len(lost)} of them missing"
        raise InputError(f"{name}: no CT image in the DICOMDIR ({what}); give the folder of the images")
    return file_sources(existing, name, "image")


class _Image(NamedTuple):
    """An image record: ``parts`` of its path, none if it names no file; and whether its class is CT or not stated."""

    parts: list[str]
    is_ct: bool


def _image_records(path: Path, name: str) -> list[_Image]:
    with quiet_pydicom():
        try:
            size = path.stat().st_size
            if size > MAX_DICOMDIR_BYTES:
                limit = f"{MAX_DICOMDIR_BYTES / 2**20:.0f} MiB"
                raise InputError(f"{name}: a DICOMDIR of {size / 2**20:.0f} MiB, over the limit of {limit}")
            items = path.read_bytes().count(_ITEM_TAG)
            if items > MAX_ITEMS:
                raise InputError(f"{name}: a DICOMDIR of {items} items, over the limit of {MAX_ITEMS}")
            ds = open_dataset(FileSource(path, name), dicomdir=True).ds
            if ds.file_meta.get("MediaStorageSOPClassUID") != DICOMDIR_CLASS:
                raise InputError(f"{name}: not a DICOMDIR; give a DICOMDIR, or the folder of the images")
            records = ds.get("DirectoryRecordSequence") or []
            check_count(len(records), name, "records")
            images = (r for r in records if r.get("DirectoryRecordType") == "IMAGE" and _in_use(r))
            return [_Image(_parts(r), is_ct_class(r.get("ReferencedSOPClassUIDInFile"), absent=True)) for r in images]
        except (LsmsError, MemoryError):
            raise
        except Exception as error:
            # pydicom raises almost any class
            kind = type(error).__name__
            raise InputError(f"{name}: a damaged DICOMDIR ({kind}); give the folder of the images") from error


def _in_use(record: Dataset) -> bool:
    """Whether a record is valid: deleted ones may remain in the file, with the flag 0."""
    return bool(record.get("RecordInUseFlag", _IN_USE) != 0)


def _parts(record: Dataset) -> list[str]:
    value = record.get("ReferencedFileID") or []
    return [value] if isinstance(value, str) else [str(part) for part in value]


def _inside(root: Path, parts: Sequence[str], name: str) -> Path:
    """Return the referenced file, with links resolved; InputError unless it is inside ``root``.

    Names on media are in upper case; a copied disc often has lower case instead.
    """
    try:
        exact, lower = (root.joinpath(*(change(p) for p in parts)).resolve() for change in (str, str.lower))
        file = lower if not exact.exists() and lower.exists() else exact
    except (OSError, ValueError, RuntimeError) as error:
        # a NUL, a loop of links, a name that is too long
        raise InputError(f"{name}: a record of the DICOMDIR contains an invalid path; do not trust it") from error
    if not file.is_relative_to(root):
        raise InputError(f"{name}: a record of the DICOMDIR refers to a file outside of its folder; do not trust it")
    return file
