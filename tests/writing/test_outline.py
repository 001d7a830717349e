"""Outlines of masks, and the measures that are taken along them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_results import answer_with, answers

from lsms_rt.reading.load import load_slice
from lsms_rt.writing.measures import diameter_mm, measures_of, volume_ml
from lsms_rt.writing.outline import is_hole, polygons, rings


def filled(corners: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The pixels whose centers are inside the polygons, by the even-odd rule: a ray to the right."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for polygon in corners:
        for (y0, x0), (y1, x1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
            # All edges follow rows or columns.
            if x0 == x1:
                inside ^= (min(y0, y1) < rows) & (rows < max(y0, y1)) & (columns < x0)
    return inside


def noise(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((rng.integers(1, 12), rng.integers(1, 12))) < rng.random()


NESTED = np.zeros((11, 13), bool)
NESTED[1:10, 1:12] = True
NESTED[2:9, 2:11] = False
# Two holes in an island, one beside the other.
NESTED[3:8, 3:10] = True
NESTED[4:7, 4:6] = NESTED[4:7, 7:9] = False


@pytest.mark.parametrize("mask", [NESTED, NESTED.T, np.eye(4, dtype=bool), *map(noise, range(40))])
def test_outlines_hold_exactly_the_mask(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(filled(rings(mask), mask.shape), mask)
    whole = polygons(mask)
    np.testing.assert_array_equal(filled(whole, mask.shape), mask)
    assert len(whole) == sum(not is_hole(ring) for ring in rings(mask))
    # A cut is gone along there and back, so a polygon's area is that of its part.
    areas = [sum(x0 * y1 - x1 * y0 for (y0, x0), (y1, x1) in zip(p, np.roll(p, -1, 0), strict=True)) for p in whole]
    assert sum(areas) == 2 * mask.sum() and all(area > 0 for area in areas)


def test_parts_and_holes_are_told_apart() -> None:
    assert sorted(map(is_hole, rings(NESTED))) == [False, False, True, True, True]
    # Pixels that touch at a corner are parts of their own; of a square, four corners are left.
    assert len(polygons(np.eye(3, dtype=bool))) == 3
    (square,) = polygons(np.ones((4, 7), bool))
    assert len(square) == 4
    assert rings(np.zeros((3, 3), bool)) == polygons(np.zeros((3, 3), bool)) == []


@pytest.mark.parametrize(("spacing", "expected"), [((0.7, 0.7), 28.0), ((0.5, 1.0), 40.0), ((1.0, 0.5), 40.0)])
def test_the_diameter_of_a_disc(spacing: tuple[float, float], expected: float) -> None:
    rows, columns = np.mgrid[:64, :64] - 31.5
    assert diameter_mm(np.hypot(rows, columns) < 20, spacing) == pytest.approx(expected, rel=0.03)


def test_the_diameter_is_that_of_one_part() -> None:
    mask = np.zeros((30, 40), bool)
    mask[2, 3:9] = True
    assert diameter_mm(mask, (0.8, 0.5)) == pytest.approx(3.0)
    mask[25, 30:35] = True
    assert diameter_mm(mask, (0.8, 0.5)) == pytest.approx(3.0)
    mask[20:26, 33] = True
    assert diameter_mm(mask, (0.8, 0.5)) == pytest.approx(4.8, abs=0.4)


def test_a_volume_needs_all_positions_and_areas() -> None:
    assert volume_ml([0, 3, 6], [100, 200, 300]) == pytest.approx(1.8)
    assert volume_ml([6, 0, 3], [300, 100, 200]) == pytest.approx(1.8)
    for positions, areas in (([0], [1]), ([0, None], [1, 1]), ([0, 3], [1, None]), ([0, 1, 2, 9, 10, 30], [1] * 6)):
        assert volume_ml(positions, areas) is None


def test_measures_of_a_lesion() -> None:
    # In the file's own grid, rows run to the left and columns to the back.
    tags = {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0], "PixelSpacing": [0.5, 0.8]}
    plain = answers([(0, 0, z) for z in (0, 4, 8)], **tags)
    masks = np.zeros((3, *plain[0].mask.shape), bool)
    masks[0, 3:5, 3:23] = masks[1, 5:15, 5:15] = True
    results = [answer_with(result.ct, mask) for result, mask in zip(plain, masks, strict=True)]
    measures = measures_of(results)
    assert (measures.largest, measures.longest) == (results[1], results[0])
    assert measures.area_mm2 == pytest.approx(100 * 0.4)
    # 20 columns 0.8 mm apart
    assert measures.diameter_mm == pytest.approx(16.0, abs=0.1)
    assert measures.volume_ml == pytest.approx((40 + 100) * 0.4 * 4 / 1000)
    hu = np.concatenate([result.hu[result.mask] for result in results])
    assert measures.mean_hu == pytest.approx(hu.mean(dtype=float))
    assert measures_of(results, complete=False).volume_ml is None


def test_what_is_not_known_is_not_measured() -> None:
    ct = replace(load_slice(np.full((40, 50), 7.0)), spacing_mm=None)
    result = answer_with(ct, np.ones((40, 50), bool))
    measures = measures_of([result])
    assert (measures.volume_ml, measures.area_mm2, measures.diameter_mm) == (None, None, None)
    assert measures.largest is measures.longest is result and measures.mean_hu == 7
