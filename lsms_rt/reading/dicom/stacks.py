"""Headers of CT images, grouped into stacks: what one series' slices have in common. One stack is chosen."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lsms_rt.errors import InputError
from lsms_rt.privacy import names_shown

from .parse import IsDicomdir, open_dataset, quiet_pydicom
from .read import MAX_FRAMES, is_ct_class, numbers, refuse_unless_ct
from .source import Source

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_SLICES = MAX_FRAMES  # of a series, as of one file
UID_CHARACTERS = 4  # of a UID's end, at least, choose a series


@dataclass(frozen=True)
class Key:
    """What files of one stack have in common."""

    uid: str
    number: int | None
    orientation: tuple[float, ...]
    rows: int
    columns: int


@dataclass(frozen=True)
class Header:
    """What is known of a CT image before its pixels are read."""

    source: Source
    key: Key
    frames: int
    acquisition: int | None


def header_of(source: Source) -> Header | str:
    """The header of a CT image, or why the object is another kind. InputError for a damaged file."""
    try:
        ds = open_dataset(source, header_only=True).ds
    except IsDicomdir as error:
        return str(error)
    with quiet_pydicom():
        try:
            return _header(ds, source)
        except InputError:
            raise
        except Exception as error:  # whatever pydicom raises of malformed values
            kind = type(error).__name__
            raise InputError(f"{source.label}: malformed DICOM header ({kind}); export it again") from error


def _header(ds: Dataset, source: Source) -> Header | str:
    classes = ds.get("SOPClassUID"), ds.file_meta.get("MediaStorageSOPClassUID")
    may_be_ct = not classes[0] or any(map(is_ct_class, classes))
    if may_be_ct and not (ds.get("Rows") and ds.get("Columns")):  # first: what was cut off lacks other tags, too
        raise InputError(f"{source.label}: no Rows or Columns (damaged or truncated DICOM); export it again")
    try:
        refuse_unless_ct(ds, source.label)
    except InputError as error:
        return str(error)
    frames = int(ds.get("NumberOfFrames") or 1)
    if not 1 <= frames <= MAX_SLICES:  # not repeated: in no range that only a number of frames has
        raise InputError(f"{source.label}: NumberOfFrames is not 1 to {MAX_SLICES}; split the file")
    key = Key(
        str(ds.get("SeriesInstanceUID") or ""),
        _integer(ds, "SeriesNumber"),
        # + 0.0: -0.0 and 0.0 are one orientation
        tuple(round(v, 2) + 0.0 for v in numbers(ds, "ImageOrientationPatient", 6, source.label) or []),
        int(ds.Rows),
        int(ds.Columns),
    )
    return Header(source, key, frames, _integer(ds, "AcquisitionNumber"))


def _integer(ds: Dataset, name: str) -> int | None:
    """A number that only distinguishes; None where it is none."""
    try:
        return int(ds.get(name))
    except Exception:  # absent, empty, or words, which pydicom refuses in several ways
        return None


@dataclass(frozen=True)
class _Stack:
    """One candidate: the `place`-th, from 1, of `alike` stacks with its number, as they are listed."""

    key: Key
    headers: list[Header]
    place: int
    alike: int

    @property
    def number(self) -> str:
        return "none" if self.key.number is None else str(self.key.number)

    @property
    def selector(self) -> str:
        """What chooses this one alone: its number, and with several of that number its place among them."""
        return self.number if self.alike == 1 else f"{self.number}:{self.place}"

    def __str__(self) -> str:
        size = f"{sum(h.frames for h in self.headers)} slices {self.key.rows}x{self.key.columns}"
        uid = f", UID ...{self.key.uid[-6:]}" if names_shown() else ""
        return f"{self.selector} ({size}{uid})"


def choose(headers: list[Header], series: str | int | None, source: str) -> list[Header]:
    """The files of the one stack there is or that was asked for; otherwise an InputError lists the stacks.

    series: a SeriesNumber ("none" where it is absent); "3:2" for the second of several listed stacks with number 3;
    or the end of a SeriesInstanceUID, at least UID_CHARACTERS long. What was asked for is not repeated: perhaps a UID.
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
    """By number, those without one last, and of one number in the order of their first files."""
    by_key: dict[Key, list[Header]] = defaultdict(list)
    for header in headers:
        by_key[header.key].append(header)
    by_number: dict[int | None, list[Key]] = defaultdict(list)
    for key in by_key:
        by_number[key.number].append(key)
    order = sorted(by_number, key=lambda number: (number is None, number or 0))
    return [
        _Stack(key, by_key[key], place, len(by_number[number]))
        for number in order
        for place, key in enumerate(by_number[number], 1)
    ]


def _matching(stacks: list[_Stack], wanted: str) -> list[_Stack]:
    """A place in the list goes before a number, and a number before the end of a UID."""
    wanted = re.sub(r"^0+(?=\d)", "", wanted.strip())
    ways = (
        lambda stack: wanted == f"{stack.number}:{stack.place}",
        lambda stack: wanted == stack.number,
        lambda stack: len(wanted) >= UID_CHARACTERS and stack.key.uid.endswith(wanted),
    )
    return next((found for way in ways if (found := [stack for stack in stacks if way(stack)])), [])
