"""Select a series: headers of CT images are grouped into stacks, of which one is chosen.

A stack is the set of images with the same series, orientation and size.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsms_rt.errors import InputError
from lsms_rt.privacy import names_shown
from lsms_rt.reading.limits import MAX_SLICES

from .geometry import EXPORT_AGAIN, numbers
from .parse import IsDicomdir, open_dataset, quiet_pydicom
from .read import check_is_ct, is_ct_class
from .source import Source

if TYPE_CHECKING:
    from pydicom import Dataset

# minimum length of the end of a UID that chooses a series
UID_CHARACTERS = 4


@dataclass(frozen=True)
class Key:
    """The attributes that are equal in all files of a stack."""

    uid: str
    number: int | None
    orientation: tuple[float, ...]
    rows: int
    columns: int


@dataclass(frozen=True)
class Header:
    """The attributes of a CT image that are read before its pixels."""

    source: Source
    key: Key
    frames: int
    acquisition: int | None


def header_of(source: Source) -> Header | str:
    """Read the header of a CT image.

    Returns:
        The header, or the reason why the object is not a CT image.

    Raises:
        InputError: the file is damaged.
    """
    try:
        ds = open_dataset(source, header_only=True).ds
    except IsDicomdir as error:
        return str(error)
    with quiet_pydicom():
        try:
            return _header(ds, source)
        except InputError:
            raise
        except Exception as error:
            # pydicom raises almost any class for malformed values
            kind = type(error).__name__
            raise InputError(f"{source.label}: malformed DICOM header ({kind}); {EXPORT_AGAIN}") from error


def _header(ds: Dataset, source: Source) -> Header | str:
    classes = ds.get("SOPClassUID"), ds.file_meta.get("MediaStorageSOPClassUID")
    may_be_ct = not classes[0] or any(map(is_ct_class, classes))
    # First, since a truncated file lacks other attributes too.
    if may_be_ct and not (ds.get("Rows") and ds.get("Columns")):
        raise InputError(f"{source.label}: no Rows or Columns (damaged or truncated DICOM); {EXPORT_AGAIN}")
    try:
        check_is_ct(ds, source.label)
    except InputError as error:
        return str(error)
    frames = int(ds.get("NumberOfFrames") or 1)
    # The value is not repeated: out of range it may be any number, even one that identifies a patient.
    if not 1 <= frames <= MAX_SLICES:
        raise InputError(f"{source.label}: NumberOfFrames is not 1 to {MAX_SLICES}; split the file")
    key = Key(
        str(ds.get("SeriesInstanceUID") or ""),
        _integer(ds, "SeriesNumber"),
        # + 0.0, since -0.0 and 0.0 are the same orientation
        tuple(round(v, 2) + 0.0 for v in numbers(ds, "ImageOrientationPatient", 6, source.label) or []),
        int(ds.Rows),
        int(ds.Columns),
    )
    return Header(source, key, frames, _integer(ds, "AcquisitionNumber"))


def _integer(ds: Dataset, name: str) -> int | None:
    """An integer that only distinguishes series; None if it is absent or not a number."""
    try:
        return int(ds.get(name))
    except Exception:
        # absent, empty, or text, which pydicom rejects in several ways
        return None


@dataclass(frozen=True)
class _Stack:
    """A candidate: number ``index`` (from 1) of the ``count`` listed stacks with the same SeriesNumber."""

    key: Key
    headers: list[Header]
    index: int
    count: int

    @property
    def number(self) -> str:
        return "none" if self.key.number is None else str(self.key.number)

    @property
    def selector(self) -> str:
        """The value of --series that selects this stack: its number, and its index if several have that number."""
        return self.number if self.count == 1 else f"{self.number}:{self.index}"

    def __str__(self) -> str:
        size = f"{sum(h.frames for h in self.headers)} slices {self.key.rows}x{self.key.columns}"
        uid = f", UID ...{self.key.uid[-6:]}" if names_shown() else ""
        return f"{self.selector} ({size}{uid})"


def choose(headers: list[Header], series: str | int | None, source: str) -> list[Header]:
    """Return the files of the requested stack, or of the only one.

    Args:
        headers: of all CT images.
        series: a SeriesNumber ("none" if it is absent); "3:2" for the second of several listed stacks with number 3; or
            the end of a SeriesInstanceUID, at least ``UID_CHARACTERS`` long.
        source: name of the folder or archive in messages.

    Raises:
        InputError: no stack, or several; the stacks are listed.  ``series`` is not repeated, since it may be a UID.
    """
    stacks = _stacks(headers)
    chosen = stacks if series is None else _matching(stacks, str(series))
    if len(chosen) == 1:
        return chosen[0].headers
    listed = "; ".join(map(str, chosen or stacks))
    fix = f"choose one with --series (series=... in Python): {listed}"
    if not chosen:
        raise InputError(f"{source}: no such series; {fix}")
    raise InputError(f"{source}: {len(chosen)} series or stacks; {fix}")


def _stacks(headers: list[Header]) -> list[_Stack]:
    """Group headers into stacks, sorted by number (without one: last), then in the order of their first files."""
    by_key: dict[Key, list[Header]] = defaultdict(list)
    for header in headers:
        by_key[header.key].append(header)
    by_number: dict[int | None, list[Key]] = defaultdict(list)
    for key in by_key:
        by_number[key.number].append(key)
    order = sorted(by_number, key=lambda number: (number is None, number or 0))
    return [
        _Stack(key, by_key[key], index, len(by_number[number]))
        for number in order
        for index, key in enumerate(by_number[number], 1)
    ]


def _matching(stacks: list[_Stack], series: str) -> list[_Stack]:
    """Match by number and index first, then by number, then by the end of the UID."""
    series = re.sub(r"^0+(?=\d)", "", series.strip())
    rules = (
        lambda stack: series == f"{stack.number}:{stack.index}",
        lambda stack: series == stack.number,
        lambda stack: len(series) >= UID_CHARACTERS and stack.key.uid.endswith(series),
    )
    return next((matches for rule in rules if (matches := [stack for stack in stacks if rule(stack)])), [])
