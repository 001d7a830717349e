"""The files that a client sends."""

from __future__ import annotations

import logging
from pathlib import Path

from lsms_rt.errors import InputError, MachineError

_log = logging.getLogger("lsms_rt")


def slice_files(folder: Path) -> list[Path]:
    """Return the DICOM files below a folder, as ``predict`` finds them; InputError if one may be a damaged slice."""
    # Our reader's own parts; none of them is an engine library.
    from lsms_rt.reading.dicom.broken import beginning_of, may_be_broken_dicom
    from lsms_rt.reading.dicom.parse import looks_like_dicom
    from lsms_rt.reading.dicom.source import sources_of_folder

    found: list[Path] = []
    others: list[tuple[str, bool, bytes]] = []
    beginnings: set[bytes] = set()
    for source in sources_of_folder(folder, "the folder"):
        try:
            head = source.head()
        except OSError as error:
            raise InputError(f"{source.label}: cannot be read ({error.strerror}); check its permissions") from error
        if looks_like_dicom(head):
            beginnings.add(beginning_of(head))
            found.append(source.path)
        else:
            others.append((source.label, source.named_dicom, head))
    for label, named, head in others:
        if not head.strip(b"\0") or may_be_broken_dicom(head, named, beginnings):
            raise InputError(f"{label}: empty, or a damaged DICOM file; copy it again, or remove it")
    if not found:
        raise InputError(f"no DICOM file in {len(others)} files; give a folder with a series")
    if others:
        _log.warning("skipped %d files that are not DICOM images", len(others))
    return found


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"the input cannot be read ({error.strerror}); check its path and permissions") from error
    except MemoryError:
        raise MachineError("the input is larger than this machine's memory") from None
