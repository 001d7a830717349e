"""Volumes and summaries of series."""

from __future__ import annotations

import pytest
from predictions import answer

from lsms_rt.cli.predict.lines import lines
from lsms_rt.privacy import show_names
from lsms_rt.runs.summary import series_summary, volume_ml


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


RECORD = {
    "input": 1, "sentence": 1, "number": 0, "source": "the file", "frame": None, "slice": "image 7 at -12.0 mm",
    "found": True, "score": 0.75, "confidence": 0.5, "area_mm2": 21.4, "pixels": 3, "mean_hu": 40.2,
    "bbox": [1, 2, 3, 4],
}  # fmt: skip
ROW = {
    "input": 1, "sentence": 1, "slices": 1, "found": 1, "volume_ml": None, "largest": 0, "largest_source": "the file",
    "largest_slice": "image 7 at -12.0 mm", "incomplete": 0,
}  # fmt: skip


ASKED = [{"input": 1, "sentence": 1}, {"input": 2, "sentence": 1}]


def test_lines_of_a_file() -> None:
    assert lines([RECORD], [ROW], ASKED) == ["the file: found, 21 mm2, mean 40 HU, score 0.75, box [1, 2, 3, 4]"]
    assert "found, 3 pixels," in lines([RECORD | {"area_mm2": None}], [ROW], ASKED)[0]
    nothing = ROW | {"found": 0}
    (line,) = lines([RECORD | {"found": False, "score": 0.25}], [nothing], ASKED)
    assert line == "the file: nothing found (highest probability 0.2500, confidence threshold 0.5000)"
    assert "lost when resampled" in lines([RECORD | {"found": False}], [nothing], ASKED)[0]


def test_lines_of_a_series_name_what_was_found_and_count_the_rest() -> None:
    others = [RECORD | {"found": False, "slice": f"image {n}", "score": n / 100} for n in range(40)]
    row = ROW | {"slices": 41, "volume_ml": 1.5}
    assert lines([*others, RECORD], [row], ASKED) == [
        "image 7 at -12.0 mm: found, 21 mm2, mean 40 HU, score 0.75, box [1, 2, 3, 4]",
        "40 other slices: nothing found (highest probability 0.3900, confidence threshold 0.5000)",
        "found in 1 of 41 slices, 1.50 ml, largest cross-section in image 7 at -12.0 mm",
    ]
    (lost,) = lines([*others[:2], RECORD | {"found": False}], [ROW | {"slices": 3, "found": 0}], ASKED)
    assert lost.startswith("nothing found in 3 slices (highest") and "in 1 of them smaller than a pixel" in lost
    second = row | {"input": 2, "found": 0, "incomplete": 2}
    assert lines([], [row, second], ASKED, True)[1] == (
        "input 2: nothing found in 41 slices; incomplete: 2 images without an answer"
    )
    # an array in a list has no other name
    assert lines([RECORD | {"slice": ""}], [row], ASKED)[0].startswith("the file: ")


def test_lines_of_several_sentences_say_which() -> None:
    both = [{"input": 1, "sentence": n} for n in (1, 2)]
    second = RECORD | {"sentence": 2, "found": False}
    text = lines([RECORD, second], [ROW, ROW | {"sentence": 2, "found": 0}], both, True)
    assert [line.partition(": ")[0] for line in text] == ["input 1, sentence 1", "input 1, sentence 2"]
    # also where the other sentence has no answer
    (line,) = lines([second], [ROW | {"sentence": 2, "found": 0}], both)
    assert line.startswith("sentence 2: the file: nothing found")


def test_lines_name_files_with_names_only() -> None:
    row = ROW | {"slices": 2}
    show_names(True)
    try:
        assert lines([RECORD], [row], ASKED)[0].startswith("image 7 at -12.0 mm (the file): found")
    finally:
        show_names(False)
