"""Volumes and summaries of series."""

from __future__ import annotations

import pytest
from predictions import answer

from lsms_rt.cli.predict.summary import MAX_LISTED, lines, series_summary, volume_ml


def test_volume_of_a_series() -> None:
    """A column of 100 mm2 over five slices 2 mm apart, each standing for 2 mm: 1 ml."""
    column = [answer(100.0, 2.0 * n) for n in range(5)]
    assert volume_ml(column) == pytest.approx(1.0)
    # Nothing is made up for what is missing.
    gap = [*column[:3], answer(100.0, 100.0), answer(100.0, 102.0)]
    assert volume_ml(gap) == pytest.approx(1.0)
    two_spacings = [answer(100.0, z) for z in (0.0, 1.0, 2.0, 3.0, 4.0, 9.0, 14.0, 19.0)]
    assert volume_ml(two_spacings) is None
    uneven = [answer(100.0, z) for z in (0.0, 1.0, 2.0, 3.2)]
    assert volume_ml(uneven) == pytest.approx(100 * (1 + 1 + 1.1 + 1.2) / 1000)
    assert volume_ml(column[:1]) is None
    assert volume_ml([answer(None, 0.0), answer(1.0, 1.0)]) is None
    assert volume_ml([answer(1.0, None), answer(1.0, 1.0)]) is None
    rows = series_summary(1, [answer(0.0, 0.0, 0, 0), answer(5.0, 1.0, 1, 9), answer(4.0, 2.0, 2, 5)])
    assert (rows["slices"], rows["found"], rows["largest"], rows["gaps"]) == (3, 2, 1, 0)
    assert series_summary(1, gap)["gaps"] == 1 and series_summary(1, [answer(1.0, None)])["gaps"] is None


def test_lines_of_a_report() -> None:
    record = {"number": 0, "source": "the file", "frame": None, "found": True, "score": 0.75, "confidence": 0.5,
              "area_mm2": 21.4, "pixels": 3, "mean_hu": 40.2, "bbox": [1, 2, 3, 4]}  # fmt: skip
    (line,) = lines([record], [])
    assert line == "   0  the file: found, 21 mm2, mean 40 HU, score 0.75, box [1, 2, 3, 4]"
    assert "found, 3 pixels," in lines([record | {"area_mm2": None}], [])[0]
    assert (
        "nothing found (highest probability 0.2500, threshold 0.5000)"
        in lines([record | {"found": False, "score": 0.25}], [])[0]
    )
    assert "lost when resampled" in lines([record | {"found": False}], [])[0]
    missed = [record | {"found": False, "number": n} for n in range(MAX_LISTED)]
    row = {"input": 1, "slices": MAX_LISTED + 1, "found": 1, "volume_ml": 1.5, "largest": 20, "largest_source": "x",
           "incomplete": 0}  # fmt: skip
    assert lines([*missed, record], [row])[1:] == [
        f"found in 1 of {MAX_LISTED + 1} slices, 1.50 ml, largest cross-section in slice 20 (x)"
    ]
    second = row | {"input": 2, "found": 0}
    assert lines([], [row, second], True)[1] == f"input 2: nothing found in {MAX_LISTED + 1} slices"
    assert lines([], [second | {"incomplete": 2}])[0].endswith("slices; incomplete: 2 images not read")
