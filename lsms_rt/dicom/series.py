"""A folder of DICOM files -> the slices of one series, from feet to head."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..ct import MAX_VOXELS, CtSlice
from ..errors import InputError
from .read import (
    log_notes,
    numbers,
    open_dataset,
    quiet_pydicom,
    refuse_unless_ct,
    slices_of,
)

MAX_FILES = 20_000
MAX_SLICES = 4096
SAME_PLACE_MM = 0.01
_log = logging.getLogger("lsms_rt")


@dataclass(frozen=True)
class _Key:
    """What files of one stack have in common."""

    uid: str
    number: str
    orientation: tuple[float, ...]
    rows: int
    columns: int


@dataclass(frozen=True)
class _Header:
    path: Path
    key: _Key
    frames: int
    acquisition: str


def read_series(folder: str | Path, series: str | int | None = None) -> list[CtSlice]:
    """Read the CT series in a folder and its subfolders; slices from feet to head.

    series: which one, where there are several: a SeriesNumber, or a SeriesInstanceUID or its last characters.
    Files that are not DICOM, other objects and localizers are skipped, with one warning that counts them.
    InputError if there is no series, more than one, or slices whose places are unknown or equal.
    """
    folder = Path(folder)
    headers = _choose(_headers(folder), series, folder.name)
    count = sum(header.frames for header in headers)
    pixels = count * headers[0].key.rows * headers[0].key.columns
    if count > MAX_SLICES or pixels > MAX_VOXELS:
        limit = f"{MAX_SLICES} slices and 2**30 pixels"
        raise InputError(f"{folder.name}: {count} slices, {pixels} pixels; the limit is {limit}; split the series")
    slices = [ct for header in headers for ct in slices_of(open_dataset(header.path), header.path.name)]
    acquisitions = Counter(header.acquisition for header in headers)
    return feet_to_head(log_notes(slices), folder.name, dict(acquisitions))


def feet_to_head(
    slices: list[CtSlice], source: str | None = None, acquisitions: dict[str, int] | None = None
) -> list[CtSlice]:
    """Sort by place along the normal. InputError if a place is unknown or taken twice; a warning for gaps."""
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
    median = float(np.median(steps))
    gaps = int(np.count_nonzero(steps > 1.5 * median))
    if gaps:
        _log.warning("%d gaps over 1.5 x the median step of %.2f mm: slices may be missing", gaps, median)
    return slices


def _headers(folder: Path) -> list[_Header]:
    """The header of every CT image in a folder, by path; InputError if there is none."""
    try:
        visible = (p for p in folder.rglob("*") if not any(n.startswith(".") for n in p.relative_to(folder).parts))
        files = sorted(path for path in visible if path.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
    if len(files) > MAX_FILES:
        raise InputError(f"{folder.name}: {len(files)} files, over the limit of {MAX_FILES}; give a series' folder")
    found: list[_Header] = []
    no_dicom = no_ct = 0
    last = ""
    for path in files:
        try:
            with path.open("rb") as file:
                is_dicom = file.read(132)[128:] == b"DICM"
        except OSError:
            is_dicom = False
        if not is_dicom or path.name.upper() == "DICOMDIR":
            no_dicom += 1
            continue
        header = _header(path)
        if isinstance(header, _Header):
            found.append(header)
        else:
            no_ct, last = no_ct + 1, header
    if not found:
        why = f" (the last: {last})" if last else ""
        raise InputError(f"{folder.name}: no CT slice in {len(files)} files{why}; give a folder of CT slices")
    if no_dicom or no_ct:
        _log.warning("skipped %d files that are not DICOM images and %d that are not CT slices", no_dicom, no_ct)
    return found


def _header(path: Path) -> _Header | str:
    """The header of a CT image, or why the object is another kind. A damaged file is an error."""
    ds = open_dataset(path, header_only=True)
    with quiet_pydicom():
        try:
            refuse_unless_ct(ds, path.name)
        except InputError as error:
            return str(error)
        orientation = numbers(ds, "ImageOrientationPatient", 6, path.name) or []
        try:
            rows, columns = (int(ds.get(name) or 0) for name in ("Rows", "Columns"))
            frames = int(ds.get("NumberOfFrames") or 1)
        except (TypeError, ValueError) as error:
            raise InputError(f"{path.name}: Rows, Columns or NumberOfFrames malformed; export it again") from error
        key = _Key(
            str(ds.get("SeriesInstanceUID") or ""),
            str(ds.get("SeriesNumber") or ""),
            tuple(round(v, 2) + 0.0 for v in orientation),  # + 0.0: -0.0 and 0.0 print alike
            rows,
            columns,
        )
        return _Header(path, key, frames, str(ds.get("AcquisitionNumber") or ""))


def _choose(headers: list[_Header], series: str | int | None, source: str) -> list[_Header]:
    """The files of the one stack there is or that was asked for; otherwise an InputError lists the stacks."""
    stacks: dict[_Key, list[_Header]] = defaultdict(list)
    for header in headers:
        stacks[header.key].append(header)
    wanted = None if series is None else str(series).strip()
    chosen = [
        key
        for key in stacks
        if wanted is None or key.number == wanted or (len(wanted) > 3 and key.uid.endswith(wanted))
    ]
    if len(chosen) == 1:
        return stacks[chosen[0]]
    listed = "; ".join(
        f"series {key.number or 'without number'}, CT, {sum(h.frames for h in stacks[key])} slices "
        f"{key.rows}x{key.columns}, UID ...{key.uid[-6:]}"
        for key in sorted(chosen or stacks, key=lambda key: (key.number.zfill(9), key.uid, key.rows))
    )
    if not chosen:
        raise InputError(f"{source}: no series {wanted}; choose one of: {listed}")
    distinct = len({key.uid for key in chosen}) == len(chosen)
    fix = (
        "choose by number or end of UID (--series), or give the files one by one"
        if distinct
        else "put each stack in its own folder"
    )
    raise InputError(f"{source}: {len(chosen)} series or stacks; {fix}: {listed}")
