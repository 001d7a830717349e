"""Pairs of training sentences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from training_slices import lesion, two_squares

from lsms_rt.datasets.phantom.lesion_types import TYPES
from lsms_rt.datasets.phantom.sentences import false_sentence, targets_of
from lsms_rt.training.sentences import OPPOSITES, Mix, draw_pair
from lsms_rt.training.slices import Asked, SliceRecord

BRIGHT = {"density": "high", "type": "hcc", "enhancement": "heterogeneous", "hu_difference": 50.0}
LESIONS = (
    lesion(1),
    lesion(2, lobe="right", diameter_mm=35.0),
    lesion(3, lobe="right", diameter_mm=22.0, **BRIGHT),
)
RECORD = SliceRecord(case="a", name="a/0", regions=3, lesions=LESIONS, phase="portal venous")


def test_regions_are_those_that_the_query_means() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        pair = draw_pair(RECORD, Mix(), rng)
        assert pair is not None
        for sentence in pair:
            assert sentence.query is not None
            meant = targets_of(sentence.query, LESIONS, RECORD.phase)
            assert meant is not None
            assert sentence.regions == tuple(sorted(LESIONS.index(one) + 1 for one in meant))


def test_the_data_set_speaks_where_the_grammar_can_say_nothing() -> None:
    """Of dozens of lesions of all kinds, no sentence is false, nor one true that readers agree on."""
    looks = [
        lesion(0, type=kind, lobe=lobe, diameter_mm=size, density=density, hu_difference=hu, enhancement="none")
        for kind in TYPES
        for lobe in ("left", "right")
        for size in (6.0, 20.0, 40.0)
        for density, hu in (("low", -40.0), ("high", 40.0))
    ]
    many = tuple(replace(one, id=number) for number, one in enumerate(looks, 1))
    rng = np.random.default_rng(0)
    assert false_sentence(many, "noncontrast", rng) is None
    record = replace(RECORD, lesions=many, regions=len(many), phase="noncontrast")
    never_true = Mix(false=1.0)
    assert draw_pair(record, never_true, rng) is None
    own = replace(record, asked=(Asked(text="the cyst", regions=(1,)),))
    pair = draw_pair(own, replace(never_true, grammar=1.0), rng)
    assert pair is not None
    assert [one.text for one in pair] == ["the cyst", "the cyst"]


def test_two_sentences_about_a_slice_have_different_answers() -> None:
    rng = np.random.default_rng(1)
    pairs = [draw_pair(RECORD, Mix(), rng) for _ in range(300)]
    same = [pair for pair in pairs if pair and pair[0].regions == pair[1].regions]
    # All four tries may find the same answer, now and then.
    assert len(same) < 15


def test_the_share_of_false_sentences_follows_the_mix() -> None:
    rng = np.random.default_rng(3)
    for share in (0.0, 0.5):
        pairs = [draw_pair(RECORD, Mix(false=share, pairs=0.0), rng) for _ in range(300)]
        false = np.mean([not pair[0].regions for pair in pairs if pair])
        # 300 draws: three standard errors are 0.09
        assert abs(false - share) < 0.09


def test_minimal_pairs_share_their_wording() -> None:
    """With pairs always asked for, most second sentences differ from the first by the words of one field."""
    rng = np.random.default_rng(2)
    differences = []
    for _ in range(200):
        pair = draw_pair(RECORD, Mix(pairs=1.0), rng)
        assert pair is not None
        first, second = (set(sentence.text.lower().split()) for sentence in pair)
        differences.append(len(first ^ second))
    chance = []
    for _ in range(200):
        pair = draw_pair(RECORD, Mix(pairs=0.0), rng)
        assert pair is not None
        first, second = (set(sentence.text.lower().split()) for sentence in pair)
        chance.append(len(first ^ second))
    assert np.median(differences) < np.median(chance)


def test_comparisons_are_said_more_often_and_paired_with_their_opposite() -> None:
    rng = np.random.default_rng(5)
    shares, turned = [], 0
    for share in (0.0, 1.0):
        mix = Mix(false=0.0, pairs=1.0, comparisons=share)
        pairs = [pair for _ in range(200) if (pair := draw_pair(RECORD, mix, rng))]
        queries = [(first.query, second.query) for first, second in pairs if first.query and second.query]
        shares.append(np.mean([bool(first.order or first.relation) for first, _ in queries]))
        turned += sum(second.order == OPPOSITES.get(first.order) for first, second in queries if first.order)
    assert shares[1] > 2 * shares[0]
    assert turned > 10


def test_a_slice_without_lesions_is_asked_for_what_is_not_there() -> None:
    empty = SliceRecord(case="a", name="a/1", lesions=(), phase=RECORD.phase)
    pair = draw_pair(empty, Mix(), np.random.default_rng(0))
    assert pair is not None
    assert pair[0].regions == pair[1].regions == ()


def test_sentences_of_a_data_set_are_used_as_they_are() -> None:
    rng = np.random.default_rng(4)
    record = two_squares().records[0]
    known = {row.text: row.regions for row in record.asked}
    for _ in range(50):
        pair = draw_pair(record, Mix(), rng)
        assert pair is not None
        assert all(known[sentence.text] == sentence.regions for sentence in pair)
        assert pair[0].regions != pair[1].regions
    assert draw_pair(SliceRecord(case="a", name="a/2"), Mix(), rng) is None
