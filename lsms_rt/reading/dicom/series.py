"""Read one series, from feet to head, from a folder, an archive or a DICOMDIR with many DICOM files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError
from lsms_rt.privacy import label, with_hint
from lsms_rt.reading.budget import Budget, OverBudgetError
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.limits import MAX_SLICES, MAX_VOXELS
from lsms_rt.reading.quiet import quiet_pydicom
from lsms_rt.reading.stated import NOTHING, Stated

from .archive import sources_of_archive
from .broken import beginning_of, may_be_broken_dicom
from .dicomdir import sources_of_dicomdir
from .header import Header, frames_of, header_from, header_of
from .order import feet_to_head, without_copies
from .parse import looks_like_dicom, open_dataset
from .phases import check_one_phase
from .read import slices_from_dataset
from .select_series import choose
from .source import FileSource, Source, file_sources, sources_of_folder
from .unnamed import check_unnamed

if TYPE_CHECKING:
    from pydicom import Dataset

# of all files of a folder or archive: what is known of each is kept until a series is chosen
MAX_FRAMES = 100_000
_log = logging.getLogger("lsms_rt")


def read_series(
    folder: str | Path, series: str | int | None = None, *, stated: Stated = NOTHING, left_out: LeftOut | None = None
) -> list[CtSlice]:
    """Read the CT series in a folder and its subfolders; slices from feet to head.

    Files are labeled ``file 12 of 80`` in messages, see ``privacy``.  Files that are not DICOM, other objects and
    localizers are skipped, with one warning that counts them.

    Args:
        folder: the folder.
        series: which one of several: a SeriesNumber, "3:2" for the second that is listed with number 3, or the end of a
            SeriesInstanceUID.
        stated: facts that the files do not hold.
        left_out: filled with what is skipped, unreadable files among it; if None, a series with one is rejected.

    Raises:
        InputError: no series, several, or slices whose positions are unknown or equal.
        MissingDependencyError: the decoder of the pixels is not installed.
    """
    folder = Path(folder)
    name = label(folder, "the folder")
    return _read(sources_of_folder(folder, name), name, series, stated, left_out)


@quiet_pydicom()
def read_file(path: str | Path, series: str | int | None = None, stated: Stated = NOTHING) -> list[CtSlice]:
    """Read all slices of one DICOM file, from feet to head; IsDicomdir for a DICOMDIR."""
    source = FileSource(Path(path), label(path, "the file"))
    # A file of another series than the one that was asked for is refused, too.
    if series is not None and isinstance(header := header_of(source), Header):
        choose([header], series, source.label)
    opened = open_dataset(source)
    return slices_of_file(opened.ds, source.label, opened.notes, stated, source.budget)


def read_files(paths: Sequence[Path], name: str) -> list[CtSlice]:
    """Read the CT series whose files are ``paths`` as :func:`read_series`; ``name`` is its name in messages."""
    return _read(file_sources(paths, name), name, None, NOTHING, None)


def read_archive(
    path: str | Path, series: str | int | None = None, *, stated: Stated = NOTHING, left_out: LeftOut | None = None
) -> list[CtSlice]:
    """Read a series from a ZIP archive as :func:`read_series`, in memory; labels are ``member 12 of 80``."""
    path = Path(path)
    name = label(path, "the archive")
    with sources_of_archive(path, name) as sources:
        return _read(sources, name, series, stated, left_out)


def read_dicomdir(
    path: str | Path, series: str | int | None = None, *, stated: Stated = NOTHING, left_out: LeftOut | None = None
) -> list[CtSlice]:
    """Read a series that a DICOMDIR refers to as :func:`read_series`; labels are ``image 12 of 80``.

    A missing file counts as unreadable; a record that refers outside of the DICOMDIR's folder is an InputError too.
    """
    path = Path(path)
    name = label(path, "the file")
    return _read(sources_of_dicomdir(path, name, left_out), name, series, stated, left_out)


def slices_of_file(
    ds: Dataset, name: str, notes: tuple[str, ...] = (), stated: Stated = NOTHING, budget: Budget | None = None
) -> list[CtSlice]:
    """Read all slices of one Dataset, from feet to head; frames of several phases are an InputError."""
    slices = slices_from_dataset(ds, name, notes, stated, budget)
    if len(slices) > 1:
        check_one_phase(frames_of(ds, len(slices), name), name)
    return feet_to_head(slices)


@dataclass
class _UnreadableFiles:
    """The error policy for unreadable files: skip and record them, or reject the series."""

    left_out: LeftOut | None
    last: str = ""

    def __call__(self, error: InputError) -> None:
        if isinstance(error, OverBudgetError):
            raise error
        if self.left_out is None:
            raise InputError(with_hint(str(error))) from error
        self.last = str(error)
        self.left_out.damaged.append(self.last)


# Over all files: to silence and restore loggers for each takes longer than to parse a header.
@quiet_pydicom()
def _read(
    sources: Sequence[Source], name: str, series: str | int | None, stated: Stated, left_out: LeftOut | None
) -> list[CtSlice]:
    unreadable = _UnreadableFiles(left_out)
    headers = choose(_headers(sources, name, unreadable), series, name)
    count = sum(header.count for header in headers)
    pixels = count * headers[0].key.rows * headers[0].key.columns
    if count > MAX_SLICES or pixels > MAX_VOXELS:
        limits = f"the limits are {MAX_SLICES} slices and 2**30 pixels"
        raise InputError(f"{name}: {count} slices, {pixels} pixels; {limits}; split the series")
    assumed = check_unnamed(headers, stated, name)
    slices: list[CtSlice] = []
    for header in headers:
        try:
            slices += _slices(header, assumed, stated)
        except InputError as error:
            unreadable(error)
    if not slices:
        raise InputError(with_hint(f"{name}: none of {len(headers)} files could be read (the last: {unreadable.last})"))
    numbers = Counter(frame.phase[0] for header in headers for frame in header.frames)
    acquisitions = {f"{int(n)}" if isinstance(n, float) else "": files for n, files in numbers.items()}
    return feet_to_head(without_copies(slices), name, acquisitions)


def _slices(header: Header, assumed: tuple[str, ...], stated: Stated) -> list[CtSlice]:
    """Read a file, which must still be what its header was: the limits and the choice were made by that."""
    source = header.source
    opened = open_dataset(source)
    if header_from(opened.ds, source) != header:
        raise InputError(f"{source.label}: changed while it was read; wait until it is copied, then repeat")
    if len(header.frames) > 1:
        check_one_phase(header.frames, source.label)
    return slices_from_dataset(opened.ds, source.label, (*opened.notes, *assumed), stated, source.budget)


def _headers(sources: Sequence[Source], name: str, unreadable: _UnreadableFiles) -> list[Header]:
    """Read the headers of all CT images; InputError if there are none."""
    headers: list[Header] = []
    others: list[tuple[Source, bytes]] = []
    beginnings: set[bytes] = set()
    not_ct = frames = 0
    last = ""
    for source in sources:
        try:
            head = _head(source)
            # A failed copy leaves such a file: it may have been a slice.
            if not head.strip(b"\0"):
                raise InputError(f"{source.label}: empty, or nothing but zeros; copy it again")
            if not looks_like_dicom(head):
                others.append((source, head))
                continue
            beginnings.add(beginning_of(head))
            header = header_of(source)
        except InputError as error:
            unreadable(error)
            continue
        if isinstance(header, str):
            not_ct, last = not_ct + 1, header
            continue
        headers.append(header)
        frames += len(header.frames)
        if frames > MAX_FRAMES:
            raise InputError(f"{name}: over {MAX_FRAMES} frames in all; give one series only")
    not_dicom = _count_others(others, beginnings, unreadable)
    if unreadable.left_out is not None:
        unreadable.left_out.not_dicom, unreadable.left_out.not_ct = not_dicom, not_ct
    if not headers:
        last = last or unreadable.last
        message = f"{name}: no CT slice in {len(sources)} files{f' (the last: {last})' if last else ''}"
        raise InputError((with_hint(message) if last else message) + "; give a folder of CT slices")
    if not_dicom or not_ct:
        _log.warning("skipped %d files that are not DICOM images and %d that are not CT slices", not_dicom, not_ct)
    return headers


def _count_others(others: Sequence[tuple[Source, bytes]], beginnings: set[bytes], unreadable: _UnreadableFiles) -> int:
    """Count the files that are not DICOM; those that may be damaged slices are reported instead."""
    count = 0
    for source, head in others:
        if may_be_broken_dicom(head, source.named_dicom, beginnings):
            unreadable(InputError(f"{source.label}: not DICOM, but it begins or is named like a slice; copy it again"))
        else:
            count += 1
    return count


def _head(source: Source) -> bytes:
    try:
        return source.head()
    except OSError as error:
        # No permission, or a broken disk.  The file may be a slice, so it is not skipped silently.
        why = error.strerror or type(error).__name__
        raise InputError(f"{source.label}: cannot be opened ({why}); check the path") from error
