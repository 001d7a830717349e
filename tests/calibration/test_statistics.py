"""The comparison of answers, and the policy that decides by it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fake_answers import answer, compared

from lsms_rt.calibration.bounds import least_n, mcnemar, upper_bound
from lsms_rt.calibration.policy import cannot_judge, failures, nothing_to_lose, only_bounds_exceeded, unchecked
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
    # The small lesion has less than half its Dice.
    assert (c.found.n, c.found.newly_missed, c.found.newly_found) == (5, 1, 0)
    assert (c.small_found.n, c.small_found.newly_missed) == (1, 1)


def test_the_keys_of_the_file_format() -> None:
    """Manifests, recipes and results of version 0.1 have these keys."""
    values = json.loads(json.dumps(compared((EMPTY, FALSE_POSITIVE), (answer(1, 0.8), answer(1, 0.7))).to_dict()))
    assert set(values["emptiness"]) == {"n", "reference", "engine", "newly_painted", "newly_empty"}
    assert values["emptiness"]["newly_painted"] == 1
    assert values["dice"]["drop"] == pytest.approx(0.1)
    assert set(values) == {
        "cases", "positive_cases", "sentences", "dice", "dice_drop_interval", "small", "found", "small_found",
        "emptiness", "area", "missed_reference", "missed_engine", "without_spacing",
    }  # fmt: skip
    assert set(values["found"]) == {"n", "newly_missed", "newly_found", "bound", "p"}


def test_exact_bounds() -> None:
    """Values of tables of the binomial distribution."""
    for events, n, bound in ((0, 100, 0.0295), (1, 100, 0.0466), (10, 155, 0.1070), (3, 3, 1.0), (0, 0, 1.0)):
        assert upper_bound(events, n) == pytest.approx(bound, abs=1e-4)
    assert 0.0050 < upper_bound(5000, 10**6) < 0.0052
    for rate in (0.01, 0.03, 0.5):
        n = least_n(rate)
        assert upper_bound(0, n) <= rate < upper_bound(0, n - 1)
    assert mcnemar(0, 0) == 1 and mcnemar(5, 0) == mcnemar(0, 5) == pytest.approx(0.0625)
    assert mcnemar(6, 4) == pytest.approx(0.7539, abs=1e-4)


def test_a_loss_of_dice_fails() -> None:
    good = [(answer(i, 0.8), answer(i, 0.795)) for i in range(50)]
    assert failures_of(*good) == []
    (failure,) = failures_of(*[(answer(i, 0.8), answer(i, 0.78)) for i in range(50)])
    assert "from 0.8000 to 0.7800, and a drop by 0.0200 is not excluded (allowed: 0.0100; 50 sentences)" in failure
    assert failures_of((answer(1, 0.8), answer(1, float("nan"))))
    assert failures(compared(*[(answer(i, 0.5), answer(i, 0.9)) for i in range(3)]), 0.0) == []


def test_the_end_of_the_interval_is_judged() -> None:
    """The mean Dice is the same, but on so few sentences a drop by 0.02 would look like this, too."""
    change = (-0.1, 0.1)
    few = [(answer(i, 0.7), answer(i, 0.7 + change[i % 2])) for i in range(50)]
    (failure,) = failures_of(*few)
    assert "from 0.7000 to 0.7000, and a drop by 0.02" in failure and "is not excluded" in failure
    many = [(answer(i, 0.7), answer(i, 0.7 + change[i % 2])) for i in range(1000)]
    assert failures_of(*many) == []


def test_gains_do_not_pay_for_lost_lesions() -> None:
    lost = [(answer(i, 0.6), answer(i, 0.0, predicted=False)) for i in range(10)]
    gains = [(answer(i, 0.7), answer(i, 0.8)) for i in range(10, 155)]
    (failure,) = failures_of(*lost, *gains)
    assert "10 of 155 lesions are newly missed, and up to 10.7% are not excluded (allowed: 3.0%)" in failure
    # A mask that shrinks to less than half its Dice is a loss, too.
    shrunk = [(answer(i, 0.6), answer(i, 0.29)) for i in range(10)]
    assert failures_of(*shrunk, *gains) == [failure]
    # One of 155 is not forgiven by rounding, but by its bound.
    assert upper_bound(1, 155) > 0.03 > upper_bound(1, 200)
    assert len(failures_of(lost[0], *gains)) == 1
    assert failures_of(lost[0], *gains, *[(answer(i, 0.7), answer(i, 0.8)) for i in range(155, 200)]) == []
    # What the reference does not find cannot be lost.
    missed = [(answer(i, 0.09), answer(i, 0.0, predicted=False)) for i in range(10)]
    assert failures_of(*missed, *gains) == []


def test_small_lesions_are_judged_by_detection() -> None:
    large = [(answer(i, 0.8), answer(i, 0.9)) for i in range(400)]
    small = [(answer(i, 0.5, mm=8), answer(i, 0.5, mm=8)) for i in range(400, 440)]
    lost = [(answer(i, 0.5, mm=8), answer(i, 0.1, mm=8)) for i in range(440, 444)]
    (failure,) = failures_of(*large, *small, *lost)
    assert "4 of 44 lesions below 10 mm are newly missed" in failure
    assert failures_of(*large, *small, *lost[:1]) == []


def test_few_small_lesions_are_judged_by_the_estimate() -> None:
    """Nineteen of nineteen are lost, among a thousand lesions."""
    large = [(answer(i, 0.8), answer(i, 0.8)) for i in range(981)]
    small = [answer(i, 0.2, mm=8) for i in range(1000, 1020)]
    lost = [replace(a, dice=0.0, predicted_nonempty=False) for a in small]
    (failure,) = failures_of(*large, *zip(small[:19], lost[:19], strict=True))
    assert "19 of 19 lesions below 10 mm are newly missed (allowed: 15.0%)" in failure
    kept = list(zip(small[2:], small[2:], strict=True))
    assert failures_of(*large, *zip(small[:2], lost[:2], strict=True), *kept) == []
    assert len(failures_of(*large, *zip(small[:2], lost[:2], strict=True), *kept[:11])) == 1
    # One may be chance.
    assert failures_of(*large, (small[0], lost[0])) == []
    assert "finds 18 lesions below 10 mm: too few to exclude a loss" in unchecked(compared(*large, *kept), 0.01)[0]


def test_wordings_of_one_lesion_count_once() -> None:
    """A lesion is found if any of its sentences finds it, and lost if any of those loses it."""
    same = [(answer(i, 0.8), answer(i, 0.8)) for i in range(5)]
    lost = (answer(1, 0.6), answer(1, 0.0, predicted=False))
    c = compared(*same, *same, lost, lost)
    assert c.dice is not None and (c.dice.n, c.found.n, c.found.newly_missed) == (12, 5, 1)
    # What only another wording finds is not lost.
    c = compared(*same, (answer(1, 0.05), answer(1, 0.0, predicted=False)), (answer(7, 0.05), answer(7, 0.05)))
    assert (c.found.n, c.found.newly_missed) == (5, 0)
    # Mask files of two names may hold the same mask.
    a = [replace(answer(i, 0.5, mm=8, lesion=i), truth_digest="ab") for i in range(2)]
    c = compared(*[(one, replace(one, dice=0.0, diameter_mm=None)) for one in a])
    assert (c.found.n, c.small_found.n, c.small_found.newly_missed) == (1, 1, 1)
    # Every negative sentence is a question of its own.
    assert compared(*[(EMPTY, EMPTY)] * 3).emptiness.reference == 3  # type: ignore[union-attr]


def test_more_sentences_help_if_only_a_bound_is_exceeded() -> None:
    good = [(answer(i, 0.8), answer(i, 0.8)) for i in range(150)]
    lost = [(answer(i, 0.5), answer(i, 0.0, predicted=False)) for i in range(150, 160)]
    assert not only_bounds_exceeded(compared(*good), 0.01)
    assert only_bounds_exceeded(compared(*good, lost[0]), 0.01)
    assert not only_bounds_exceeded(compared(*good, *lost), 0.01)
    assert not only_bounds_exceeded(compared((answer(1, 0.8), answer(1, float("nan")))), 0.01)


def test_new_false_positives_fail() -> None:
    good = [(answer(i, 0.8), answer(i, 0.795)) for i in range(50)]
    # One of ten is never forgiven.
    (failure,) = failures_of(*good, *[(EMPTY, EMPTY)] * 9, (EMPTY, FALSE_POSITIVE))
    assert "1 of 10 negative sentences become false positives, and up to 39.4% are not excluded" in failure
    same = [(EMPTY, EMPTY)] * 98
    assert failures_of(*good, *same, *[(EMPTY, FALSE_POSITIVE)] * 2) == []
    three = [(EMPTY, FALSE_POSITIVE)] * 3
    assert len(failures_of(*good, *same, *three)) == 1
    # False positives that the engine removes are not credited.
    assert len(failures_of(*good, *same, *three, *[(FALSE_POSITIVE, EMPTY)] * 9)) == 1


def test_what_could_not_be_checked_is_listed() -> None:
    """Without spacing, no lesion is known to be small; without negative sentences, false positives go unnoticed."""
    small = [(answer(i, 0.8, mm=8), answer(i, 0.8, mm=8)) for i in range(30)]
    assert unchecked(compared(*small, *[(EMPTY, EMPTY)] * 42), 0.01) == []
    (point,) = unchecked(compared(*small, *[(EMPTY, EMPTY)] * 41), 0.01)
    assert "mask is empty for 41 negative sentences: too few to check for false positives (at least 42" in point
    assert "finds 29 lesions below 10 mm: too few" in unchecked(compared(*small[1:]), 0.01)[0]
    without_spacing = [(replace(a, diameter_mm=None), replace(b, diameter_mm=None)) for a, b in small]
    assert "30 lesions have an unknown size" in unchecked(compared(*without_spacing), 0.01)[0]
    # One of unknown size does not hide the others.
    points = unchecked(compared(without_spacing[0], *small[1:]), 0.01)
    assert "1 lesions have an unknown size" in points[0] and "finds 29 lesions below 10 mm" in points[1]


def test_too_few_or_too_bad_answers_cannot_judge() -> None:
    pairs = [(answer(i, 0.8), answer(i, 0.8)) for i in range(99)]
    assert cannot_judge(compared(*pairs), 0.01) == ""
    assert "finds only 98 lesions (Dice of at least 0.1), at least 99" in cannot_judge(compared(*pairs[1:]), 0.01)
    few_cases = [(answer(i % 39, 0.8, lesion=i), answer(i % 39, 0.8, lesion=i)) for i in range(99)]
    assert cannot_judge(compared(*few_cases), 0.01) == "only 39 cases have positive sentences, at least 40 are needed"
    # Negative sentences of other cases do not help, and without an interval nothing is judged.
    one_case = [(answer(1, 0.8, lesion=i), answer(1, 0.8, lesion=i)) for i in range(100)]
    others = [(answer(i, 1.0, target=False, predicted=False),) * 2 for i in range(2, 41)]
    c = compared(*one_case, *others)
    assert (c.cases, c.positive_cases, c.dice_drop_interval) == (40, 1, None)
    assert "only 1 cases have positive" in cannot_judge(c, 0.01) and "are of one case" in nothing_to_lose(c)
    assert nothing_to_lose(compared(*pairs[:12])) == ""
    assert "only 9 positive sentences" in nothing_to_lose(compared(*pairs[:9]))
    bad = [(answer(i, 0.05), answer(i, 0.05)) for i in range(99)]
    # All reasons are given.
    for reason in ("mean Dice of 0.050 on these slices, too low to detect a loss", "finds only 0 lesions"):
        assert reason in cannot_judge(compared(*bad), 0.01)
