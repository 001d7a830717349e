"""Measures of what was found for one sentence: volume, diameter, area, mean HU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from lsms_rt.ct_slice import usual_step, wide_steps
from lsms_rt.postprocess import area_mm2

from .outline import is_hole, rings
from .result import Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

R = TypeVar("R", bound=Result)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measures(Generic[R]):
    """Measures of a lesion.

    Attributes:
        largest: the result of the slice with the largest cross-section.
        area_mm2: area of that cross-section, all its parts; None if the pixel spacing is unknown.
        longest: the result of the slice with the largest diameter; ``largest`` if the pixel spacing is unknown.
        diameter_mm: the largest diameter, see :func:`diameter_mm`; None if the pixel spacing is unknown.
        volume_ml: the volume, see :func:`volume_ml`; None if it is unknown.
        mean_hu: the mean HU over all pixels of all slices.
    """

    largest: R
    area_mm2: float | None
    longest: R
    diameter_mm: float | None
    volume_ml: float | None
    mean_hu: float


def measures_of(results: Sequence[R], *, complete: bool = True) -> Measures[R]:
    """Measure what was found for one sentence.

    Args:
        results: the results of all slices; in at least one of them something was found.
        complete: whether all slices have a result; the volume of an incomplete series is unknown.
    """
    found = [result for result in results if result.mask.any()]
    largest = max(found, key=lambda result: int(result.mask.sum()))
    longest, diameter = _longest(found, largest)
    areas = [area_mm2(result.mask, result.ct.spacing_mm) for result in results]
    volume = volume_ml([result.ct.position_mm for result in results], areas) if complete else None
    masks = [_in_model_frame(result) for result in found]
    pixels = sum(int(mask.sum()) for mask in masks)
    total = sum(float(result.ct.hu[mask].sum(dtype=np.float64)) for result, mask in zip(found, masks, strict=True))
    return Measures(
        largest=largest,
        area_mm2=area_mm2(largest.mask, largest.ct.spacing_mm),
        longest=longest,
        diameter_mm=diameter,
        volume_ml=volume,
        mean_hu=total / pixels,
    )


def diameter_mm(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> float:
    """Return the length of :func:`longest_line` in mm."""
    start, end = longest_line(mask, spacing_mm)
    return float(np.hypot(*((start - end) * spacing_mm)))


def longest_line(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> NDArray[np.float64]:
    """Return the largest diameter of a mask: the line between the two most distant points of the outline of one part.

    The outline passes through the middle of every edge between a pixel of the mask and one outside, so the diameter of
    a single row of pixels is its length.  Parts that do not touch each other are never measured across.

    Args:
        mask: bool (H, W), not empty.
        spacing_mm: (between rows, between columns).

    Returns:
        float64 (2, 2): row and column of both ends, in pixels from the upper left corner of the first pixel.
    """
    longest, line = 0.0, np.zeros((2, 2))
    for ring in rings(mask):
        # No diameter is longer than the diagonal of the box around its part.
        if is_hole(ring) or np.hypot(*(np.ptp(ring, 0) * spacing_mm)) <= longest:
            continue
        # Twice the middle of each edge, in whole numbers.
        twice = ring + np.roll(ring, -1, 0)
        top = twice[:, 0].min()
        left = np.full(int(np.ptp(twice[:, 0])) + 1, np.iinfo(np.int64).max)
        right = np.full_like(left, np.iinfo(np.int64).min)
        np.minimum.at(left, twice[:, 0] - top, twice[:, 1])
        np.maximum.at(right, twice[:, 0] - top, twice[:, 1])
        # The ends of the longest distance are the first or the last point of their rows.
        (rows,) = np.nonzero(left <= right)
        points = np.stack([np.concatenate([rows, rows]) + top, np.concatenate([left[rows], right[rows]])], 1) / 2
        y, x = (points * spacing_mm).T
        for n, (b, a) in enumerate(zip(y, x, strict=True)):
            distances = np.hypot(y - b, x - a)
            farthest = int(distances.argmax())
            if distances[farthest] > longest:
                longest, line = float(distances[farthest]), points[[n, farthest]]
    return line


def volume_ml(positions_mm: Sequence[float | None], areas_mm2: Sequence[float | None]) -> float | None:
    """Return the volume in ml: each slice's area times half the distance between its two neighbors.

    Returns None if an area or a position is unknown, for fewer than two slices, and if over a tenth of the steps are
    gaps: that is a series of two spacings.  Any other gap counts as a usual step.

    Args:
        positions_mm: of all slices, in any order.
        areas_mm2: of what was found in each of them.
    """
    if len(positions_mm) < 2 or None in positions_mm or None in areas_mm2:
        return None
    positions = np.array(positions_mm, float)
    order = np.argsort(positions, kind="stable")
    steps = np.diff(positions[order])
    wide = wide_steps(steps)
    if np.count_nonzero(wide) > max(1, len(steps) // 10):
        return None
    steps = np.where(wide, usual_step(steps), steps)
    thickness = (np.r_[steps[:1], steps] + np.r_[steps, steps[-1:]]) / 2
    return float(np.array(areas_mm2, float)[order] @ thickness) / 1000


def _longest(found: Sequence[R], largest: R) -> tuple[R, float | None]:
    """Return the slice with the largest diameter, and the diameter."""
    boxes = [(_diagonal(result), result) for result in found if result.ct.spacing_mm is not None]
    longest, diameter = largest, None
    for diagonal, result in sorted(boxes, key=lambda box: -box[0]):
        if diameter is not None and diagonal <= diameter:
            break
        assert result.ct.spacing_mm is not None
        here = diameter_mm(_in_model_frame(result), result.ct.spacing_mm)
        if diameter is None or here > diameter:
            longest, diameter = result, here
    return longest, diameter


def _diagonal(result: Result) -> float:
    """Return the diagonal of the box around a mask, in mm: no diameter is longer."""
    rows, columns = np.nonzero(_in_model_frame(result))
    dy, dx = result.ct.spacing_mm or (1.0, 1.0)
    return float(np.hypot((np.ptp(rows) + 1) * dy, (np.ptp(columns) + 1) * dx))


def _in_model_frame(result: Result) -> NDArray[np.bool_]:
    return result.ct.to_model_frame(result.mask, result.ct.flips, result.ct.transposed)
