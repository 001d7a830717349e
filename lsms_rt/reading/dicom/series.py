"""Read one series, from feet to head, from a folder, an archive or a DICOMDIR with many DICOM files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lsms_rt.ct_slice import CtSlice, wide_steps
from lsms_rt.errors import InputError
from lsms_rt.privacy import label, with_hint
from lsms_rt.reading.budget import OverBudgetError
from lsms_rt.reading.left_out import LeftOut
from lsms_rt.reading.limits import MAX_SLICES, MAX_VOXELS
from lsms_rt.reading.stated import NOTHING, Stated

from .archive import sources_of_archive
from .dicomdir import sources_of_dicomdir
from .geometry import EXPORT_AGAIN, SAME_POSITION_MM
from .parse import looks_like_dicom, open_dataset
from .read import slices_from_dataset
from .select_series import Header, choose, header_of
from .source import Source, file_sources, sources_of_folder

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

    Missing files are logged; a record that refers outside of the DICOMDIR's folder is an InputError too.
    """
    path = Path(path)
    name = label(path, "the file")
    return _read(sources_of_dicomdir(path, name, left_out), name, series, stated, left_out)


def feet_to_head(
    slices: list[CtSlice], source: str | None = None, acquisitions: dict[str, int] | None = None
) -> list[CtSlice]:
    """Sort slices by their position along the normal; gaps are logged.

    Args:
        slices: the slices of one series.
        source: its name in messages; None takes the first slice's.
        acquisitions: number of files per AcquisitionNumber, for the message about duplicate positions.

    Raises:
        InputError: positions are unknown, or several slices have the same one.
    """
    if len(slices) < 2:
        return slices
    source = source or slices[0].source
    unknown = sum(ct.position_mm is None for ct in slices)
    if unknown:
        raise InputError(
            f"{source}: {unknown} of {len(slices)} slices have no ImagePositionPatient or no "
            f"ImageOrientationPatient, so their order is unknown; {EXPORT_AGAIN}, or give single slices"
        )
    slices = sorted(slices, key=lambda ct: ct.position_mm or 0.0)
    steps = np.diff([ct.position_mm or 0.0 for ct in slices])
    same = int(np.count_nonzero(steps < SAME_POSITION_MM))
    if same:
        listed = ", ".join(f"{name or 'absent'}: {n} files" for name, n in sorted((acquisitions or {}).items()))
        raise InputError(
            f"{source}: {same} of {len(slices)} slices have duplicate positions (several phases, or copies); "
            f"put each phase in its own folder{f' (AcquisitionNumber {listed})' if listed else ''}"
        )
    gaps = int(np.count_nonzero(wide_steps(steps)))
    if gaps:
        _log.warning(
            "gaps: %d steps between slices are over 1.5 x the median of %.2f mm, slices may be missing",
            gaps,
            np.median(steps),
        )
    return slices


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


def _read(
    sources: Sequence[Source], name: str, series: str | int | None, stated: Stated, left_out: LeftOut | None
) -> list[CtSlice]:
    unreadable = _UnreadableFiles(left_out)
    headers = choose(_headers(sources, name, unreadable), series, name)
    count = sum(header.frames for header in headers)
    pixels = count * headers[0].key.rows * headers[0].key.columns
    if count > MAX_SLICES or pixels > MAX_VOXELS:
        limits = f"the limits are {MAX_SLICES} slices and 2**30 pixels"
        raise InputError(f"{name}: {count} slices, {pixels} pixels; {limits}; split the series")
    slices: list[CtSlice] = []
    for header in headers:
        try:
            opened = open_dataset(header.source)
            slices += slices_from_dataset(opened.ds, header.source.label, opened.notes, stated, header.source.budget)
        except InputError as error:
            unreadable(error)
    if not slices:
        raise InputError(with_hint(f"{name}: none of {len(headers)} files could be read (the last: {unreadable.last})"))
    acquisitions = Counter("" if h.acquisition is None else str(h.acquisition) for h in headers)
    return feet_to_head(_without_copies(slices), name, dict(acquisitions))


def _headers(sources: Sequence[Source], name: str, unreadable: _UnreadableFiles) -> list[Header]:
    """Read the headers of all CT images; InputError if there are none."""
    headers: list[Header] = []
    not_dicom = not_ct = 0
    last = ""
    for source in sources:
        try:
            head = _head(source)
            # A failed copy leaves such a file: it may have been a slice.
            if not head.strip(b"\0"):
                raise InputError(f"{source.label}: empty, or nothing but zeros; copy it again")
            header = header_of(source) if looks_like_dicom(head) else None
        except InputError as error:
            unreadable(error)
            continue
        if header is None:
            not_dicom += 1
        elif isinstance(header, Header):
            headers.append(header)
        else:
            not_ct, last = not_ct + 1, header
    if not headers:
        last = last or unreadable.last
        message = f"{name}: no CT slice in {len(sources)} files{f' (the last: {last})' if last else ''}"
        raise InputError((with_hint(message) if last else message) + "; give a folder of CT slices")
    if unreadable.left_out is not None:
        unreadable.left_out.not_dicom, unreadable.left_out.not_ct = not_dicom, not_ct
    if not_dicom or not_ct:
        _log.warning("skipped %d files that are not DICOM images and %d that are not CT slices", not_dicom, not_ct)
    return headers


def _head(source: Source) -> bytes:
    try:
        return source.head()
    except OSError as error:
        # No permission, or a broken disk.  The file may be a slice, so it is not skipped silently.
        why = error.strerror or type(error).__name__
        raise InputError(f"{source.label}: cannot be opened ({why}); check the path") from error


def _without_copies(slices: list[CtSlice]) -> list[CtSlice]:
    """Remove copies: slices with the same SOPInstanceUID, frame, geometry and pixels as another."""
    kept: list[CtSlice] = []
    # -> index in ``kept``
    by_instance: dict[tuple[str, int], int] = {}
    for ct in slices:
        key = (ct.sop_instance_uid or "", ct.frame)
        first = by_instance.get(key)
        if not ct.sop_instance_uid or first is None or not _are_copies(ct, kept[first]):
            by_instance.setdefault(key, len(kept))
            kept.append(ct)
        else:
            note = "the file of this slice exists more than once: identical copies are left out"
            if note not in kept[first].notes:
                kept[first] = replace(kept[first], notes=(*kept[first].notes, note))
    return kept


def _are_copies(a: CtSlice, b: CtSlice) -> bool:
    geometry = [(ct.position_mm, ct.spacing_mm, ct.flips, ct.transposed) for ct in (a, b)]
    return geometry[0] == geometry[1] and np.array_equal(a.hu, b.hu)
