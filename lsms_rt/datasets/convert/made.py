"""Sentences made from masks, by the phantom's grammar, with the words that the source lets us judge.

A source of masks says nothing of enhancement, little of types, and a lobe only where it has masks of lobes; such words
are then never used, in true and in false sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lsms_rt.datasets.phantom.lesion import Lesion
from lsms_rt.datasets.phantom.queries import ORDERS, RELATIONS, Query, without_redundancy
from lsms_rt.datasets.phantom.sentences import Sentence, say, targets_of

from .lesions import SliceLesions

Rng = np.random.Generator
# Of a contrast phase the masks say nothing; a type is used only where a label names it.
PHASE = "unknown"
# At most so many true sentences with different meanings per slice.
TRUE_SENTENCES = 3
# The chance that a slice with lesions gets a sentence that is true of nothing.
FALSE_CHANCE = 0.7
EMPTY_SLICE_SENTENCES = 2
ORDER_SHARE, RELATION_SHARE, FIELD_SHARE = 0.35, 0.2, 0.45
ATTEMPTS = 60


class Grammar:
    """The part of the phantom's grammar that a slice can be described with."""

    def __init__(self, fields: Sequence[str], types: Sequence[str], organ: str, rng: Rng) -> None:
        """Args: ``fields`` of a Query that can be judged, ``types`` that labels name, the ``organ``, a generator."""
        self.fields, self.types, self.organ, self.rng = tuple(fields), tuple(types), organ, rng

    def say(self, query: Query, count: int) -> str:
        """Say a query; the liver is named only where all lesions are known to lie in it."""
        while True:
            text = say(query, count, self.rng)
            if self.organ == "liver" or query.lobe or "liver" not in text.lower():
                return text

    def describe(self, lesion: Lesion) -> Query:
        """Return a query with some of the words that fit a lesion."""
        some = {name for name in self.fields if self.rng.random() < FIELD_SHARE}
        size = "small" if lesion.diameter_mm < 10 else "large" if lesion.diameter_mm > 30 else None
        return without_redundancy(
            Query(
                type=(lesion.type or None) if "type" in some else None,
                density=lesion.density if "density" in some and lesion.density in ("low", "high") else None,
                lobe=(lesion.lobe or None) if "lobe" in some else None,
                size=size if "size" in some else None,
            )
        )

    def draw(self, lesions: Sequence[Lesion]) -> Query:
        """Return a query modeled on one of the lesions; it may select that one, more, another or none."""
        lesion = self.pick(lesions)
        base, share = self.describe(lesion), self.rng.random()
        if len(lesions) > 1 and share < ORDER_SHARE:
            order = self.pick(ORDERS)
            rank = int(self.rng.choice((1, 2, 3), p=(0.6, 0.3, 0.1))) if order == "largest" else 1
            return replace(base, size=None, order=order, rank=rank)
        if len(lesions) > 1 and share < ORDER_SHARE + RELATION_SHARE:
            anchor = Query(order=self.pick(ORDERS)) if self.rng.random() < 0.7 else self.describe(self.pick(lesions))
            return replace(base, relation=self.pick(RELATIONS), anchor=anchor)
        return base

    def imagine(self) -> Query:
        """Return a query that is modeled on nothing."""
        some = {name for name in self.fields if self.rng.random() < FIELD_SHARE}
        words = Query(
            type=self.pick(self.types) if "type" in some else None,
            density=self.pick(("low", "high")) if "density" in some else None,
            lobe=self.pick(("left", "right")) if "lobe" in some else None,
            size=self.pick(("small", "large")) if "size" in some else None,
        )
        query = without_redundancy(words)
        # Without any word: "the lesion", or, as often, "the largest lesion".
        return replace(query, order=self.pick(ORDERS)) if not some and self.rng.random() < 0.5 else query

    def change_one_word(self, query: Query) -> Query:
        """Return a query that differs by one word."""
        options: list[Callable[[], Query]] = []
        if query.density:
            options.append(lambda: replace(query, density="high" if query.density == "low" else "low"))
        if query.lobe:
            options.append(lambda: replace(query, lobe="left" if query.lobe == "right" else "right"))
        if query.size:
            options.append(lambda: replace(query, size="small" if query.size == "large" else "large"))
        if query.type and len(self.types) > 1:
            options.append(lambda: replace(query, type=self.pick(self.types)))
        if not query.relation:
            options.append(lambda: replace(query, size=None, order="largest", rank=int(self.rng.integers(2, 4))))
        if not query.relation and not query.order:
            options += [lambda: replace(query, size=self.pick(("small", "large")))]
            options += [lambda: replace(query, density=self.pick(("low", "high")))] * ("density" in self.fields)
        return without_redundancy(self.pick(options)()) if options else query

    def pick(self, options: Sequence):  # type: ignore[no-untyped-def]
        """Return one of the options."""
        return options[int(self.rng.integers(len(options)))]


def grammar_of(found: SliceLesions, types: Sequence[str], organs: Sequence[str], rng: Rng) -> Grammar:
    """Return the grammar for a slice.

    Args:
        found: its lesions.
        types: all types that the labels of the source name.
        organs: the organs that the slice shows.
        rng: random numbers.
    """
    fields = ["size"]
    # A slice without lesions has the words of a slice with lesions, where its organ would let us judge them.
    if found.density_known and (found.lesions or organs):
        fields.append("density")
    if found.lobes_known:
        fields.append("lobe")
    if types and all(lesion.type for lesion in found.lesions):
        fields.append("type")
    organ = found.organ if found.lesions else organs[0] if len(organs) == 1 else ""
    return Grammar(fields, types, organ, rng)


def sentences_of(lesions: Sequence[Lesion], grammar: Grammar) -> list[Sentence]:
    """Return the sentences of a slice: true ones, a paraphrase of the first, and some that are true of nothing.

    Queries that readers could disagree on are withheld; a slice may end up without any sentence.
    """
    sentences: list[Sentence] = []
    for _ in range(ATTEMPTS if lesions else 0):
        query = grammar.draw(lesions)
        targets = targets_of(query, lesions, PHASE)
        if targets and query not in [other.query for other in sentences]:
            sentences.append(Sentence(grammar.say(query, len(targets)), query, targets))
        if len(sentences) == TRUE_SENTENCES:
            break
    if sentences:
        first = sentences[0]
        texts = (grammar.say(first.query, len(first.targets)) for _ in range(10))
        other = next((text for text in texts if text.lower() != first.text.lower()), None)
        if other is not None:
            sentences.insert(1, Sentence(other, first.query, first.targets))
    wanted = 0 if lesions else EMPTY_SLICE_SENTENCES
    if lesions and (not sentences or grammar.rng.random() < FALSE_CHANCE):
        wanted = 1
    return sentences + _false_sentences(lesions, grammar, wanted)


def _false_sentences(lesions: Sequence[Lesion], grammar: Grammar, wanted: int) -> list[Sentence]:
    found: list[Sentence] = []
    for _ in range(ATTEMPTS):
        if len(found) == wanted:
            break
        near = bool(lesions) and grammar.rng.random() < 0.8
        query = grammar.change_one_word(grammar.draw(lesions)) if near else grammar.imagine()
        if targets_of(query, lesions, PHASE) == () and query not in [other.query for other in found]:
            found.append(Sentence(grammar.say(query, 0), query, ()))
    return found
