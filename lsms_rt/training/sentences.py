"""Sentences for training: two about every picture, so that only the words can tell the two answers apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from lsms_rt.datasets.phantom.lesion import Lesion
from lsms_rt.datasets.phantom.queries import Query, query_of
from lsms_rt.datasets.phantom.sentences import (
    Sentence,
    change_one_word,
    false_sentence,
    say,
    targets_of,
    true_sentence,
)

from .slices import Asked, SliceRecord

_TURNED = {"largest": "smallest", "most anterior": "most posterior", "anterior to": "posterior to"}
OPPOSITES = _TURNED | {second: first for first, second in _TURNED.items()}


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """A sentence about a slice.

    Attributes:
        text: what is said.
        regions: numbers of the regions that it means; empty where it is true of nothing.
        query: its meaning, where it comes from the grammar or the data set records it.
    """

    text: str
    regions: tuple[int, ...]
    query: Query | None = None


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How sentences are drawn.

    Attributes:
        false: the share of sentences that are true of nothing.  More than users will say: a network learns silence
            last.
        pairs: the share of pictures whose second sentence differs from the first by one word.
        comparisons: the share of true sentences, about pictures with several lesions, that compare lesions ("the
            largest", "behind").  More than users will say: comparing is learned last, too.
        grammar: the share of pictures about which the grammar speaks, of those with sentences of the data set and
            lesions whose attributes are known.
    """

    false: float = 0.33
    pairs: float = 0.6
    comparisons: float = 0.3
    grammar: float = 0.5


def draw_pair(record: SliceRecord, mix: Mix, rng: np.random.Generator) -> tuple[Spoken, Spoken] | None:
    """Two sentences about a slice, with different answers where that is possible; None where nothing can be said."""
    if record.lesions is not None and (not record.asked or rng.random() < mix.grammar):
        pair = _from_grammar(record.lesions, record.phase, mix, rng)
        if pair is not None:
            return pair
    return _from_data_set(record.asked, mix, rng)


def _from_grammar(
    lesions: Sequence[Lesion], phase: str, mix: Mix, rng: np.random.Generator
) -> tuple[Spoken, Spoken] | None:
    first = _one(lesions, phase, mix, rng)
    if first is None:
        return None
    if lesions and rng.random() < mix.pairs:
        second = _minimal_pair(first, lesions, phase, rng)
        if second is not None:
            return spoken_of(second[0], lesions), spoken_of(second[1], lesions)
    for _ in range(4):
        other = _one(lesions, phase, mix, rng) or first
        if _ids(other.targets) != _ids(first.targets):
            break
    return spoken_of(first, lesions), spoken_of(other, lesions)


def _one(lesions: Sequence[Lesion], phase: str, mix: Mix, rng: np.random.Generator) -> Sentence | None:
    if rng.random() < mix.false:
        return false_sentence(lesions, phase, rng)
    true = true_sentence(lesions, phase, rng)
    if len(lesions) > 1 and rng.random() < mix.comparisons:
        for _ in range(8):
            if true is None or true.query.order or true.query.relation:
                break
            true = true_sentence(lesions, phase, rng)
    return true or false_sentence(lesions, phase, rng)


def _opposite(query: Query) -> Query | None:
    """The query with its comparison turned round; None for one that compares nothing, or has no opposite."""
    if query.order and query.order in OPPOSITES:
        return replace(query, order=OPPOSITES[query.order], rank=1)
    if query.relation and query.relation in OPPOSITES:
        return replace(query, relation=OPPOSITES[query.relation])
    return None


def _minimal_pair(
    first: Sentence, lesions: Sequence[Lesion], phase: str, rng: np.random.Generator
) -> tuple[Sentence, Sentence] | None:
    """``first`` and the same wording with one word changed, where that changes the answer."""
    for _ in range(6):
        query = _opposite(first.query) if rng.random() < 0.5 else None
        query = query or change_one_word(first.query, rng)
        meant = targets_of(query, lesions, phase)
        if meant is None or _ids(meant) == _ids(first.targets):
            continue
        # One seed for both, so that everything but the word is said alike.
        seed = int(rng.integers(2**31))
        said = [
            Sentence(say(q, len(t), np.random.default_rng(seed)), q, t)
            for q, t in ((first.query, first.targets), (query, meant))
        ]
        return said[0], said[1]
    return None


def _from_data_set(asked: Sequence[Asked], mix: Mix, rng: np.random.Generator) -> tuple[Spoken, Spoken] | None:
    if not asked:
        return None
    false = [row for row in asked if not row.regions]
    true = [row for row in asked if row.regions]
    pool = false if false and (not true or rng.random() < mix.false) else true
    first = pool[int(rng.integers(len(pool)))]
    others = [row for row in asked if row.regions != first.regions] or list(asked)
    second = others[int(rng.integers(len(others)))]
    return spoken_as(first), spoken_as(second)


def spoken_as(asked: Asked) -> Spoken:
    """A sentence of the data set as it stands there."""
    return Spoken(text=asked.text, regions=asked.regions, query=meaning_of(asked.meaning))


@cache
def meaning_of(key: str) -> Query | None:
    """The query with this key; None where the grammar has none."""
    try:
        return query_of(key)
    except (ValueError, RecursionError):
        return None


def spoken_of(sentence: Sentence, lesions: Sequence[Lesion]) -> Spoken:
    """A sentence of the grammar with the numbers of the regions that it means."""
    numbers = tuple(number for number, lesion in enumerate(lesions, 1) if lesion.id in _ids(sentence.targets))
    return Spoken(text=sentence.text, regions=numbers, query=sentence.query)


def _ids(lesions: Sequence[Lesion]) -> set[int]:
    return {lesion.id for lesion in lesions}
