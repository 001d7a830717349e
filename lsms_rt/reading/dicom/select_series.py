"""Select a series: headers of CT images are grouped into stacks, of which one is chosen.

A stack is the set of images of one patient, study, frame of reference, series, orientation, size and phase.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from lsms_rt.errors import SeveralSeriesError
from lsms_rt.privacy import names_shown

from .header import Header, Key
from .phases import phases_of

# minimum length of the end of a UID that chooses a series
UID_CHARACTERS = 4
# most stacks that a message lists, and that an error holds
LISTED, CHOICES = 20, 256
# of direction cosines: images that differ by more are another stack
_ORIENTATION = 0.01
# what the fields of a key are called
_NAMES = {
    "patient": "patient (PatientID, PatientName or PatientBirthDate)",
    "study": "StudyInstanceUID",
    "frame_of_reference": "FrameOfReferenceUID",
    "uid": "SeriesInstanceUID",
    "rows": "matrix",
    "columns": "matrix",
}


@dataclass(frozen=True)
class _Stack:
    """A candidate.

    Attributes:
        key: what its files agree in.
        headers: its files.
        parts: numbers of its orientation and its phase among the stacks with this key.
        apart: the attributes that tell it from the other phases with this key.
        index: its number, from 1, among the ``count`` listed stacks with the same SeriesNumber.
        count: see ``index``.
    """

    key: Key
    headers: list[Header]
    parts: tuple[int, int]
    apart: tuple[str, ...]
    index: int = 1
    count: int = 1

    @property
    def number(self) -> str:
        return "none" if self.key.number is None else str(self.key.number)

    @property
    def selector(self) -> str:
        """The value of --series that selects this stack: its number, and its index if several have that number."""
        return self.number if self.count == 1 else f"{self.number}:{self.index}"

    @property
    def choice(self) -> dict[str, Any]:
        """It as a choice of SeveralSeriesError."""
        slices = sum(header.count for header in self.headers)
        return {"number": self.selector, "slices": slices, "rows": self.key.rows, "columns": self.key.columns}

    def __str__(self) -> str:
        size = "{slices} slices {rows}x{columns}".format_map(self.choice)
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
        SeveralSeriesError: no stack, or several; the stacks are listed.  ``series`` is not repeated: it may be a UID.
    """
    stacks = _stacks(headers)
    chosen = stacks if series is None else _matching(stacks, str(series))
    if len(chosen) == 1:
        return chosen[0].headers
    candidates = chosen or stacks
    listed = "; ".join(map(str, candidates[:LISTED]))
    more = f"; and {len(candidates) - LISTED} more" if len(candidates) > LISTED else ""
    fix = f"choose one with --series (series=... in Python): {listed}{more}{_differences(candidates)}"
    what = f"{len(chosen)} series or stacks" if chosen else "no such series"
    raise SeveralSeriesError(f"{source}: {what}; {fix}", [stack.choice for stack in candidates[:CHOICES]])


def _stacks(headers: list[Header]) -> list[_Stack]:
    """Group headers into stacks, sorted by number (without one: last), then in the order of their first files."""
    order = {id(header): n for n, header in enumerate(headers)}
    by_key: dict[Key, list[Header]] = defaultdict(list)
    for header in headers:
        by_key[header.key].append(header)
    by_number: dict[int | None, list[_Stack]] = defaultdict(list)
    for key, files in by_key.items():
        for turn, parallel in enumerate(_by_orientation(files)):
            by_number[key.number] += _by_phase(key, parallel, turn)
    stacks = []
    for number in sorted(by_number, key=lambda number: (number is None, number or 0)):
        equal = sorted(by_number[number], key=lambda stack: order[id(stack.headers[0])])
        stacks += [
            _Stack(stack.key, stack.headers, stack.parts, stack.apart, index, len(equal))
            for index, stack in enumerate(equal, 1)
        ]
    return stacks


def _by_orientation(headers: list[Header]) -> Iterable[list[Header]]:
    """Group headers whose direction cosines are near each other: a chain of near ones is not cut at a rounded value."""
    known = [header for header in headers if header.frames[0].orientation is not None]
    unknown = [header for header in headers if header.frames[0].orientation is None]
    groups = [known] if known else []
    for axis in range(6):
        groups = [part for group in groups for part in _at_steps(group, axis)]
    return [*groups, unknown] if unknown else groups


def _at_steps(headers: list[Header], axis: int) -> list[list[Header]]:
    """Cut a group where its sorted cosines along one axis have a step; files keep their order."""
    values = np.array([(header.frames[0].orientation or ())[axis] for header in headers])
    order = np.argsort(values, kind="stable")
    group = np.zeros(len(values), int)
    group[order[1:]] = np.cumsum(np.diff(values[order]) > _ORIENTATION)
    parts: list[list[Header]] = [[] for _ in range(group.max() + 1)]
    for header, at in zip(headers, group, strict=True):
        parts[at].append(header)
    return parts


def _by_phase(key: Key, headers: list[Header], turn: int) -> list[_Stack]:
    """Cut a group at its phases; a file whose own frames are several phases stays whole, and is rejected when read."""
    labels, names = phases_of([frame for header in headers for frame in header.frames])
    by_label: dict[int, list[Header]] = defaultdict(list)
    first = 0
    for header in headers:
        by_label[labels[first]].append(header)
        first += len(header.frames)
    apart = tuple(names) if len(by_label) > 1 else ()
    return [_Stack(key, files, (turn, label), apart) for label, files in by_label.items()]


def _differences(stacks: Sequence[_Stack]) -> str:
    """Return what the stacks with the same SeriesNumber differ in, as the end of a message."""
    names: dict[str, None] = {}
    by_number: dict[int | None, list[_Stack]] = defaultdict(list)
    for stack in stacks:
        by_number[stack.key.number].append(stack)
    for equal in by_number.values():
        for name in (field.name for field in fields(Key) if field.name in _NAMES):
            if len({getattr(stack.key, name) for stack in equal}) > 1:
                names[_NAMES[name]] = None
        if len({(stack.key, stack.parts[0]) for stack in equal}) > len({stack.key for stack in equal}):
            names["ImageOrientationPatient"] = None
        names |= dict.fromkeys(name for stack in equal for name in stack.apart)
    return f"; those of one number differ in {', '.join(names)}" if names else ""


def _matching(stacks: list[_Stack], series: str) -> list[_Stack]:
    """Match by number and index first, then by number, then by the end of the UID."""
    series = re.sub(r"^0+(?=\d)", "", series.strip())
    rules = (
        lambda stack: series == f"{stack.number}:{stack.index}",
        lambda stack: series == stack.number,
        lambda stack: len(series) >= UID_CHARACTERS and stack.key.uid.endswith(series),
    )
    return next((matches for rule in rules if (matches := [stack for stack in stacks if rule(stack)])), [])
