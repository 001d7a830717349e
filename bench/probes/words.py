"""One attribute of a sentence replaced by another value, in its meaning and in its text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lsms_rt.datasets.phantom.lesion_types import LESION_TYPES, TYPES
from lsms_rt.datasets.phantom.queries import ORDERS, RELATIONS, Query
from lsms_rt.datasets.phantom.sentences import RANKS, WORDS

# Attribute -> its field of a Query.
ATTRIBUTES = {
    "side": "lobe", "density": "density", "type": "type", "size": "size", "enhancement": "enhancement",
    "order": "order", "relation": "relation",
}  # fmt: skip
_VALUES = {
    "side": ("left", "right"),
    "density": ("low", "high"),
    "type": TYPES,
    "size": ("small", "large"),
    "enhancement": tuple(WORDS["enhancement"]),
    "relation": RELATIONS,
}
# "second smallest" is in no sentence of the grammar.
_RANKED = (*((order, 1) for order in ORDERS), ("largest", 2), ("largest", 3))
# The grammar has no "an".
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou]|HCC)")


def named(query: Query) -> list[str]:
    """Return the attributes that a query names; those of the other lesion of a relation are not among them."""
    return [attribute for attribute, field in ATTRIBUTES.items() if getattr(query, field) is not None]


def others(query: Query, attribute: str) -> Iterator[Query]:
    """Yield the queries that differ from one by the value of one attribute."""
    if attribute == "order":
        own = query.order, query.rank
        yield from (replace(query, order=order, rank=rank) for order, rank in _RANKED if (order, rank) != own)
        return
    field = ATTRIBUTES[attribute]
    for value in _VALUES[attribute]:
        if value != getattr(query, field):
            changed: dict[str, Any] = {field: value}
            yield replace(query, **changed)


def reworded(text: str, query: Query, other: Query, attribute: str) -> str | None:
    """Return a sentence with the words of one attribute replaced.

    All other words stay, so that whatever changes in the mask comes from the attribute.

    Args:
        text: a sentence.
        query: its meaning.
        other: the meaning that it shall have, which differs by the attribute.
        attribute: one of ``ATTRIBUTES``.

    Returns:
        The sentence; None if it does not hold the grammar's words for its meaning.
    """
    start = len(text)
    if query.relation is not None:
        # What follows is about the other lesion.
        relation = _find(text, _phrases(query, "relation"))
        if relation is None:
            return None
        start = relation.start()
    old = _phrases(query, attribute)
    found = _find(text if attribute == "relation" else text[:start], old)
    if found is None:
        return None
    new = _phrases(other, attribute)
    word = new[[phrase.lower() for phrase in old].index(found[0].lower()) % len(new)]
    if found.start() == 0 and text[0].isupper():
        word = word[0].upper() + word[1:]
    changed = text[: found.start()] + word + text[found.end() :]
    return _ARTICLE.sub(lambda match: "The " if match[1] == "A" else "the ", changed)


def _phrases(query: Query, attribute: str) -> list[str]:
    """The ways to say the value of an attribute; of types, singular and plural in turn."""
    value = getattr(query, ATTRIBUTES[attribute])
    if attribute == "side":
        return [value]
    if attribute == "type":
        return [noun for pair in LESION_TYPES[value].nouns for noun in pair]
    rank = f"{RANKS[query.rank]} " if attribute == "order" and query.rank > 1 else ""
    return [rank + word for word in WORDS[attribute][value]]


def _find(text: str, phrases: list[str]) -> re.Match[str] | None:
    """Find the first of some phrases, the longest one where several begin at one place."""
    ways = "|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True))
    return re.search(rf"(?<![\w-])(?:{ways})(?!\w)", text, re.IGNORECASE)
