"""Find phases: parts of a stack that an attribute tells apart, and that lie between each other's slices.

Scanners number every slice, or every rotation, of one scan as an acquisition of its own, or give it a time of its own;
blocks of slices may differ in thickness.  These follow each other along the body, and are one series.  Two contrast
phases, or two reconstructions, are not: they interleave, mostly at places that differ by millimeters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from lsms_rt.errors import InputError

from .geometry import SAME_POSITION_MM, unit_normal
from .header import PHASES, Attribute, Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

# fewest slices of a pass of the table, and of a phase on average
_SHORTEST = 3
# relative difference of measured quantities that are equal
_MEASURED = 0.05
# between two scans: seconds, and how many times the usual step between slices
_PAUSE, _PAUSE_STEPS = 2.0, 8
# with or without its date
_TIME = re.compile(r"(\d{8})?(\d\d)(\d\d)(\d\d(?:\.\d*)?)(?:[+-]\d{4})?")


def phases_of(frames: Sequence[Frame]) -> tuple[list[int], list[str]]:
    """Tell the phases of a stack apart.

    Returns:
        One number per frame, from 0, equal for those of one phase; and the attributes by which the phases differ.
    """
    # A frame without a position lies nowhere: it must not hide the phases of the others.
    placed = [n for n, frame in enumerate(frames) if frame.position is not None]
    located = places_of([frames[n] for n in placed]) if len(placed) > 1 else None
    if located is None:
        return [0] * len(frames), []
    places = np.zeros(len(frames))
    places[placed] = located
    parts, names = [np.array(placed)], []
    for at, attribute in enumerate(PHASES):
        values, found = [frame.phase[at] for frame in frames], len(parts)
        # Each part that was found may hold several phases.
        pending, parts = parts, []
        while pending:
            part = pending.pop()
            split = _split(attribute, [values[n] for n in part], places[part])
            if split is None:
                parts.append(part)
            else:
                pending += [part[split == label] for label in range(split.max() + 1)]
        if len(parts) > found:
            names.append(attribute.name)
    labels = np.zeros(len(frames), int)
    for label, part in enumerate(parts):
        labels[part] = label
    return labels.tolist(), names


def check_one_phase(frames: Sequence[Frame], name: str) -> None:
    """Raise InputError if the frames of one file are of several phases."""
    labels, names = phases_of(frames)
    if names:
        raise InputError(
            f"{name}: its frames are {max(labels) + 1} phases or reconstructions between each other's slices, which "
            f"differ in {', '.join(names)}; export each as a file of its own"
        )


def places_of(frames: Sequence[Frame]) -> NDArray[np.float64] | None:
    """Return positions along the mean normal, in mm; None if one is unknown."""
    positions = [frame.position for frame in frames]
    if None in positions:
        return None
    normals = [unit_normal(frame.orientation) for frame in frames if frame.orientation is not None]
    normal = np.mean(normals, axis=0) if normals else np.array([0.0, 0.0, 1.0])
    return np.asarray(np.array(positions, float) @ (normal / np.linalg.norm(normal)))


def _split(attribute: Attribute, values: list[object], places: NDArray[np.float64]) -> NDArray[np.intp] | None:
    """Return a number per value, equal for those of one phase; None if the values tell no phases apart."""
    if len(set(values)) == 1:
        return None
    if attribute.measured:
        # An absent one may be any.
        known = next(value for value in values if value is not None)
        values = [known if value is None else value for value in values]
    ranks = _ranks(values, _MEASURED if attribute.measured else 0.0)
    # A slice whose number or time is out of order may fill a hole; one of another acquisition may not.
    candidates = [(ranks, attribute.blocks)]
    if attribute.counts:
        candidates = [(_scans(values), False), (_passes(ranks, places), True), *candidates]
    for labels, holes in candidates:
        # Where nearly every slice has a value of its own, the values number the slices.
        if 0 < labels.max() < len(labels) / 2 and _interleave(labels, places, holes):
            return labels
    return None


def _ranks(values: list[object], tolerance: float) -> NDArray[np.intp]:
    """Number the values in their order, equal for neighbors within the relative tolerance; absent ones come first."""

    def order(value: object) -> tuple[bool, bool, object]:
        return value is not None, isinstance(value, str), value

    distinct = sorted(set(values), key=order)
    rank = dict.fromkeys(distinct[:1], 0)
    for before, value in pairwise(distinct):
        near = isinstance(before, float) and isinstance(value, float) and value - before <= tolerance * abs(value)
        rank[value] = rank[before] + (not (tolerance and near))
    return np.array([rank[value] for value in values], np.intp)


def _scans(values: list[object]) -> NDArray[np.intp]:
    """Number the scans by the pauses between their times; all are 0 where values are no times."""
    found = [_TIME.fullmatch(value) if isinstance(value, str) else None for value in values]
    times, at = np.unique([_seconds(match) for match in found if match], return_inverse=True)
    if len(at) < len(values) or len(times) < 2:
        return np.zeros(len(values), np.intp)
    steps = np.diff(times)
    pauses = steps > max(_PAUSE, _PAUSE_STEPS * float(np.median(steps)))
    return np.asarray(np.cumsum(np.r_[False, pauses])[at])


def _seconds(match: re.Match[str]) -> float:
    """Return a time in seconds that grows with its date, too."""
    day, hours, minutes, seconds = (float(text or 0) for text in match.groups())
    return ((day * 24 + hours) * 60 + minutes) * 60 + seconds


def _passes(ranks: NDArray[np.intp], places: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number the passes of the table along the body, by the order in which slices were acquired.

    Slices of one rotation have one rank.  A pass ends where the table turns, or goes back to where it began.
    """
    counts = np.bincount(ranks)
    centers = np.bincount(ranks, places) / counts
    starts, direction = [0], 0.0
    for n, step in enumerate(np.diff(centers), 1):
        if abs(step) < SAME_POSITION_MM:
            continue
        if direction * step < 0:
            starts.append(n)
            direction = 0.0
        else:
            direction = float(np.sign(step))
    # Shorter ones are times that do not follow the table, such as those of the reconstruction.
    if np.add.reduceat(counts, starts).min() < _SHORTEST:
        return np.zeros(len(ranks), np.intp)
    # Where the table turns, the last rotation may be of either pass.
    ends = [*starts[1:], len(centers)]
    ways = [np.sign(centers[end - 1] - centers[start]) for start, end in zip(starts, ends, strict=True)]
    turns = [
        start - 1 for start, (way, following) in zip(starts[1:], pairwise(ways), strict=True) if way * following < 0
    ]
    cuts = np.zeros(len(centers), np.intp)
    cuts[[*starts[1:], *turns]] = 1
    return np.cumsum(cuts)[ranks]


def _interleave(labels: NDArray[np.intp], places: NDArray[np.float64], holes: bool) -> bool:
    """Return whether a slice of one label lies between neighbors of another one, or at the place of one.

    Where ``holes``, neighbors with a wide step between them do not count: a block of other slices may fill it.
    """
    order = np.argsort(places, kind="stable")
    labels, places = labels[order], places[order]
    if np.any((np.diff(places) < SAME_POSITION_MM) & (np.diff(labels) != 0)):
        return True
    for label in range(labels.max() + 1):
        at = np.flatnonzero(labels == label)
        steps = np.diff(places[at])
        near = steps <= 1.5 * np.quantile(steps, 0.75) if holes and len(steps) else True
        if np.any((np.diff(at) > 1) & near):
            return True
    return False
