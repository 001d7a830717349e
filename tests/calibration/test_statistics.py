"""The comparison of answers, and the policy that decides by it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_answers import answer, compared

from lsms_rt.calibration.policy import allowed_false_positives, cannot_judge, failures, unchecked
from lsms_rt.datasets.questions import Answer

EMPTY = answer(70, 1.0, target=False, predicted=False)
FALSE_POSITIVE = answer(70, 0.0, target=False)


def failures_of(*pairs: tuple[Answer, Answer]) -> list[str]:
    return failures(compared(*pairs), 0.01)


def test_comparison_by_hand() -> None:
    positive = [(answer(i, 0.8, area=100), answer(i, 0.7, area=90)) for i in range(4)]
    small = [(answer(4, 0.5, mm=6, area=20), answer(4, 0.1, mm=6, area=30))]
    empty, false_positive = answer(5, 1.0, target=False, predicted=False), answer(5, 0.0, target=False)
    negative = [(empty, empty), (empty, false_positive), (false_positive, empty)]
    c = compared(*positive, *small, *negative)
    assert c.dice is not None and c.small is not None and c.emptiness is not None and c.area is not None
    assert (c.cases, c.sentences, c.dice.n, c.small.n) == (6, 8, 5, 1)
    assert c.dice.reference == pytest.approx(0.74)
    assert c.dice.drop == pytest.approx((0.1 * 4 + 0.4) / 5)
    assert c.small.drop == pytest.approx(0.4)
    e = c.emptiness
    assert (e.n, e.reference, e.engine, e.new_false_positives, e.newly_empty) == (3, 2, 2, 1, 1)
    # A pair of empty masks is not counted.
    differences = np.array([-10, -10, -10, -10, 10, 50, -50])
    assert (c.area.n, c.area.bias) == (7, pytest.approx(differences.mean()))
    assert c.area.high - c.area.bias == pytest.approx(1.96 * differences.std(ddof=1))
    assert c.dice_drop_interval is not None
    assert c.dice_drop_interval[0] <= c.dice.drop <= c.dice_drop_interval[1]
    assert c.missed_reference == c.missed_engine == 0


def test_the_keys_of_the_file_format() -> None:
    """Manifests, recipes and results of version 0.1 have these keys."""
    values = json.loads(json.dumps(compared((EMPTY, FALSE_POSITIVE), (answer(1, 0.8), answer(1, 0.7))).to_dict()))
    assert set(values["emptiness"]) == {"n", "reference", "engine", "newly_painted", "newly_empty"}
    assert values["emptiness"]["newly_painted"] == 1
    assert values["dice"]["drop"] == pytest.approx(0.1)
    assert set(values) == {
        "cases", "sentences", "dice", "dice_drop_interval", "small", "emptiness", "area", "missed_reference",
        "missed_engine", "without_spacing",
    }  # fmt: skip


def test_a_loss_of_dice_fails() -> None:
    good = [(answer(i, 0.8), answer(i, 0.795)) for i in range(50)]
    assert failures_of(*good) == []
    (failure,) = failures_of(*[(answer(i, 0.8), answer(i, 0.78)) for i in range(50)])
    assert "mean Dice drops from 0.8000 to 0.7800, by 0.0200 (allowed: 0.0100; 50 sentences)" in failure
    # Small lesions may lose twice as much and no more, however good the others are.
    for loss, count in ((0.019, 0), (0.021, 1)):
        small = [(answer(60, 0.5, mm=8), answer(60, 0.5 - loss, mm=8))]
        assert len(failures_of(*good, *small)) == count
    assert failures_of((answer(1, 0.8), answer(1, float("nan"))))
    assert failures(compared(*[(answer(i, 0.5), answer(i, 0.9)) for i in range(3)]), 0.0) == []


def test_new_false_positives_fail() -> None:
    good = [(answer(i, 0.8), answer(i, 0.795)) for i in range(50)]
    same = [(EMPTY, EMPTY)] * 98
    # One of 99 is 0.01, rounded up.
    assert failures_of(*good, *same, (EMPTY, FALSE_POSITIVE)) == []
    (failure,) = failures_of(*good, *same, (EMPTY, FALSE_POSITIVE), (EMPTY, FALSE_POSITIVE))
    assert "2 of 100 negative sentences become false positives (allowed: 1, 1.0% rounded up)" in failure
    # False positives that the engine removes are not credited.
    removed = [(FALSE_POSITIVE, EMPTY)] * 9
    assert len(failures_of(*good, *same, *[(EMPTY, FALSE_POSITIVE)] * 2, *removed)) == 1
    assert [allowed_false_positives(n, 0.005) for n in (0, 1, 200, 201, 400)] == [0, 1, 1, 2, 2]
    assert allowed_false_positives(1000, 0.0) == 0


def test_what_could_not_be_checked_is_listed() -> None:
    """Without spacing, no lesion is known to be small; without negative sentences, false positives go unnoticed."""
    small = [(answer(i, 0.8, mm=8), answer(i, 0.8, mm=8)) for i in range(12)]
    assert unchecked(compared(*small, *[(EMPTY, EMPTY)] * 10)) == []
    (point,) = unchecked(compared(*small))
    assert "mask is empty for 0 negative sentences: too few to check for false positives" in point
    large = [(answer(i, 0.8), answer(i, 0.8)) for i in range(12)]
    assert "no lesion is below 10 mm" in unchecked(compared(*large))
    without_spacing = [(replace(a, diameter_mm=None), replace(b, diameter_mm=None)) for a, b in small]
    assert "12 lesions have an unknown size" in unchecked(compared(*without_spacing))[0]


def test_too_few_or_too_bad_answers_cannot_judge() -> None:
    pairs = [(answer(i, 0.8), answer(i, 0.8)) for i in range(12)]
    assert cannot_judge(compared(*pairs)) == ""
    assert "only 9 positive sentences" in cannot_judge(compared(*pairs[:9]))
    bad = [(answer(i, 0.05), answer(i, 0.05)) for i in range(12)]
    assert "mean Dice of 0.050 on these slices, too low to detect a loss" in cannot_judge(compared(*bad))
