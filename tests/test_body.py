"""The body in a slice."""

from __future__ import annotations

import numpy as np
import pytest

from lsms_rt.body import body_box


def ellipse(height: int, width: int, center: tuple[int, int], radii: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    inside = ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2 < 1
    return np.where(inside, 40.0, -1000.0)


@pytest.mark.parametrize("size", [64, 97, 256, 512])
def test_the_box_holds_the_body_with_little_around_it(size: int) -> None:
    hu = ellipse(size, size, (size // 2, size // 3), (size // 5, size // 4))
    top, left, bottom, right = body_box(hu)
    rows, columns = np.nonzero(hu > 0)
    assert top <= rows.min() and bottom > rows.max()
    assert left <= columns.min() and right > columns.max()
    block = max(1, round(size / 64))
    assert bottom - top <= np.ptp(rows) + 1 + 4 * block
    assert right - left <= np.ptp(columns) + 1 + 4 * block


def test_table_and_arms_are_left_out() -> None:
    hu = ellipse(256, 256, (110, 128), (60, 80))
    body = body_box(hu)
    # A table of two pixels, and an arm apart from the body.
    hu[200:202] = 200
    hu[100:120, 5:25] = 40
    assert body_box(hu) == body


def test_a_slice_without_a_body_is_kept_whole() -> None:
    assert body_box(np.full((100, 80), -1000.0)) == (0, 0, 100, 80)
    assert body_box(np.full((1, 1), 40.0)) == (0, 0, 1, 1)


def test_a_body_that_fills_the_slice() -> None:
    assert body_box(np.full((120, 200), 40.0)) == (0, 0, 120, 200)


def test_lungs_do_not_cut_the_body_in_two() -> None:
    hu = ellipse(256, 256, (128, 128), (70, 100))
    lung = ellipse(256, 256, (128, 128), (55, 85)) > 0
    hu[lung] = -850
    top, left, bottom, right = body_box(hu)
    assert bottom - top > 135
    assert right - left > 195
