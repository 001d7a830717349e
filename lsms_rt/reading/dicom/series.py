"""Many DICOM files, from a folder, an archive or a DICOMDIR -> the slices of one series, from feet to head."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lsms_rt.ct_slice import MAX_VOXELS, CtSlice, wide_steps
from lsms_rt.errors import InputError
from lsms_rt.privacy import label, with_hint

from .archive import ArchiveTooLarge, sources_of_archive
from .dicomdir import sources_of_dicomdir
from .parse import IsDicomdir, looks_like_dicom, open_dataset
from .read import log_notes, read_slices, slices_of
from .source import Source, sources_of_folder
from .stacks import MAX_SLICES, Header, choose, header_of

SAME_PLACE_MM = 0.01
OnDamaged = Callable[[str], None] | None  # is told a file's label and what is wrong with it
_log = logging.getLogger("lsms_rt")


def read_series(folder: str | Path, series: str | int | None = None, *, on_damaged: OnDamaged = None) -> list[CtSlice]:
    """Read the CT series in a folder and its subfolders; slices from feet to head.

    series: which one, where there are several: a SeriesNumber, "3:2" for the second that is listed with number 3, or
    a SeriesInstanceUID or its last characters (`stacks.choose`).
    on_damaged: None refuses a series with a file that cannot be read or used; otherwise it is called with a line of
    what is wrong with each, and the others are returned.
    Messages call files ``file 12 of 80``: of all visible files, hidden folders apart, sorted by path (`labels`).
    Files that are not DICOM, other objects and localizers are skipped, with one warning that counts them.
    InputError if there is no series, more than one, or slices whose places are unknown or equal.
    """
    folder = Path(folder)
    name = label(folder, "the folder")
    return _read(sources_of_folder(folder, name), name, series, on_damaged)


def read_archive(path: str | Path, series: str | int | None = None, *, on_damaged: OnDamaged = None) -> list[CtSlice]:
    """`read_series` of a ZIP archive's members, ``member 12 of 80`` in messages. Nothing is extracted to disk."""
    path = Path(path)
    name = label(path, "the archive")
    with sources_of_archive(path, name) as sources:
        return _read(sources, name, series, on_damaged)


def read_dicomdir(path: str | Path, series: str | int | None = None, *, on_damaged: OnDamaged = None) -> list[CtSlice]:
    """`read_series` of the CT images that a DICOMDIR's records refer to, ``image 12 of 80`` in messages.

    InputError, too, if a record refers to a file outside of the DICOMDIR's folder. Missing files are warned of.
    """
    path = Path(path)
    name = label(path, "the file")
    return _read(sources_of_dicomdir(path, name, on_damaged), name, series, on_damaged)


def read_dicom(path: str | Path, series: str | int | None = None, *, on_damaged: OnDamaged = None) -> list[CtSlice]:
    """The slices of one DICOM file, or of the series behind a DICOMDIR; from feet to head."""
    try:
        return feet_to_head(read_slices(path))
    except IsDicomdir:
        return read_dicomdir(path, series, on_damaged=on_damaged)


def feet_to_head(
    slices: list[CtSlice], source: str | None = None, acquisitions: dict[str, int] | None = None
) -> list[CtSlice]:
    """Sort by place along the normal. InputError if a place is unknown or taken twice; a warning for gaps.

    acquisitions: number of files by AcquisitionNumber, for the message where places are taken twice.
    """
    if len(slices) < 2:
        return slices
    source = source or slices[0].source
    unknown = sum(ct.position_mm is None for ct in slices)
    if unknown:
        raise InputError(
            f"{source}: {unknown} of {len(slices)} slices lack ImagePositionPatient or "
            "ImageOrientationPatient, the order is unknown; export the series again, or give single slices"
        )
    slices = sorted(slices, key=lambda ct: ct.position_mm or 0.0)
    steps = np.diff([ct.position_mm or 0.0 for ct in slices])
    same = int(np.count_nonzero(steps < SAME_PLACE_MM))
    if same:
        listed = ", ".join(f"{name or 'absent'}: {n} files" for name, n in sorted((acquisitions or {}).items()))
        raise InputError(
            f"{source}: {same} of {len(slices)} slices lie where another does (phases, or copies); "
            f"put each phase in its own folder{f' (AcquisitionNumber {listed})' if listed else ''}"
        )
    gaps = int(np.count_nonzero(wide_steps(steps)))
    if gaps:
        _log.warning(
            "gaps: %d steps are over 1.5 x the median of %.2f mm, slices may be missing", gaps, np.median(steps)
        )
    return slices


@dataclass
class _Damage:
    """What becomes of files that cannot be read."""

    told: OnDamaged
    count: int = 0
    last: str = ""

    def __call__(self, error: InputError) -> None:
        if isinstance(error, ArchiveTooLarge):
            raise error
        if self.told is None:
            raise InputError(with_hint(str(error))) from error
        self.count, self.last = self.count + 1, str(error)
        self.told(self.last)


def _read(sources: Sequence[Source], name: str, series: str | int | None, told: OnDamaged) -> list[CtSlice]:
    damage = _Damage(told)
    headers = choose(_headers(sources, name, damage), series, name)
    count = sum(header.frames for header in headers)
    pixels = count * headers[0].key.rows * headers[0].key.columns
    if count > MAX_SLICES or pixels > MAX_VOXELS:
        limit = f"{MAX_SLICES} slices and 2**30 pixels"
        raise InputError(f"{name}: {count} slices, {pixels} pixels; the limit is {limit}; split the series")
    slices: list[CtSlice] = []
    for header in headers:
        try:
            opened = open_dataset(header.source)
            slices += slices_of(opened.ds, header.source.label, opened.notes)
        except InputError as error:
            damage(error)
    if not slices:
        raise InputError(with_hint(f"{name}: none of {len(headers)} files could be read (the last: {damage.last})"))
    acquisitions = Counter("" if h.acquisition is None else str(h.acquisition) for h in headers)
    return feet_to_head(log_notes(_without_copies(slices)), name, dict(acquisitions))


def _headers(sources: Sequence[Source], name: str, damage: _Damage) -> list[Header]:
    """The header of every CT image; InputError if there is none."""
    found: list[Header] = []
    no_dicom = no_ct = 0
    last = ""
    for source in sources:
        try:
            head = _head(source)
            if not head.strip(b"\0"):  # what a copy leaves that failed: it may have been a slice
                raise InputError(f"{source.label}: empty, or nothing but zeros; copy it again")
            header = header_of(source) if looks_like_dicom(head) else None
        except InputError as error:
            damage(error)
            continue
        if header is None:
            no_dicom += 1
        elif isinstance(header, Header):
            found.append(header)
        else:
            no_ct, last = no_ct + 1, header
    if not found:
        last = last or damage.last
        message = f"{name}: no CT slice in {len(sources)} files{f' (the last: {last})' if last else ''}"
        raise InputError((with_hint(message) if last else message) + "; give a folder of CT slices")
    if no_dicom or no_ct:
        _log.warning("skipped %d files that are not DICOM images and %d that are not CT slices", no_dicom, no_ct)
    return found


def _head(source: Source) -> bytes:
    try:
        return source.head()
    except OSError as error:  # no permission, a broken disk: it may be a slice, hence not skipped in silence
        why = error.strerror or type(error).__name__
        raise InputError(f"{source.label}: cannot be opened ({why}); check the path") from error


def _without_copies(slices: list[CtSlice]) -> list[CtSlice]:
    """Each image once. A copy has the same SOPInstanceUID, frame, place and pixels; anything less stays."""
    kept: list[CtSlice] = []
    by_instance: dict[tuple[str, int], int] = {}  # -> index in kept
    for ct in slices:
        key = (ct.sop_instance_uid or "", ct.frame)
        first = by_instance.get(key)
        if not ct.sop_instance_uid or first is None or not _are_copies(ct, kept[first]):
            by_instance.setdefault(key, len(kept))
            kept.append(ct)
        else:
            note = "this slice's file is there more than once: identical copies are left out"
            if note not in kept[first].notes:
                kept[first] = replace(kept[first], notes=(*kept[first].notes, note))
    return kept


def _are_copies(a: CtSlice, b: CtSlice) -> bool:
    geometry = [(ct.position_mm, ct.spacing_mm, ct.flips, ct.transposed) for ct in (a, b)]
    return geometry[0] == geometry[1] and np.array_equal(a.hu, b.hu)
