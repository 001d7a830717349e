"""What a sentence means: a query over the lesions of one slice, and the exact set it selects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .lesion import ENHANCEMENTS, Lesion, enhancement_class, possible_densities, possible_enhancements, possible_types
from .lesion_types import LESION_TYPES

SMALL_MM, LARGE_MM = 10.0, 30.0
# Sizes closer than this ratio are too similar to rank, or to a limit to call small: such a query is ambiguous.
MARGIN = 1.15
# "in front of" and "behind" need at least this distance between centroids.
APART_MM = 5.0
ORDERS = ("largest", "smallest", "most anterior", "most posterior")
RELATIONS = ("closest to", "anterior to", "posterior to")
_RELATION = re.compile(rf"\+?({'|'.join(RELATIONS).replace(' ', '-')})\((.*)\)$")
_ORDER = re.compile(rf"([1-3])-({'|'.join(ORDERS).replace(' ', '-')})")
# Word of a key -> its field.
_FIELDS = {
    "small": "size",
    "large": "size",
    "low": "density",
    "high": "density",
    "left": "lobe",
    "right": "lobe",
    **{f"enh-{word}": "enhancement" for word in ENHANCEMENTS},
    **dict.fromkeys(LESION_TYPES, "type"),
}
# The other types look alike without contrast medium.
VISIBLE_WITHOUT_CONTRAST = tuple(name for name, one in LESION_TYPES.items() if one.plain)


@dataclass(frozen=True)
class Query:
    """A query: filters, then at most one order or one relation.  ``None`` means "any".

    ``rank`` counts from 1 and goes with ``order``; ``anchor`` (a query that selects one lesion) with ``relation``.
    """

    type: str | None = None
    # "low", "high"
    density: str | None = None
    # "none", "rim", "nodular", "diffuse"
    enhancement: str | None = None
    # "left", "right"
    lobe: str | None = None
    # "small", "large"
    size: str | None = None
    order: str | None = None
    rank: int = 1
    relation: str | None = None
    anchor: Query | None = None

    def key(self) -> str:
        """Return a short canonical text: sentences with equal keys are paraphrases of each other."""
        parts = [
            self.size,
            self.density,
            self.enhancement and f"enh-{self.enhancement}",
            self.type,
            self.lobe,
        ]
        if self.order:
            parts.append(f"{self.rank}-{self.order}".replace(" ", "-"))
        if self.relation and self.anchor:
            parts.append(f"{self.relation}({self.anchor.key()})".replace(" ", "-"))
        return "+".join(part for part in parts if part) or "any"


def query_of(key: str) -> Query:
    """Return the query with this ``key()``.

    Raises:
        ValueError: no query has it.
    """
    relation = _RELATION.search(key)
    words = key[: relation.start()] if relation else key
    fields: dict[str, Any] = {}
    for word in words.split("+"):
        if order := _ORDER.fullmatch(word):
            fields |= {"rank": int(order[1]), "order": order[2].replace("-", " ")}
        elif word in _FIELDS:
            fields[_FIELDS[word]] = word.removeprefix("enh-")
    if relation:
        fields |= {"relation": relation[1].replace("-", " "), "anchor": query_of(relation[2])}
    query = Query(**fields)
    if query.key() != key:
        # Not the text itself: it comes from a file.
        raise ValueError(f"{len(key)} characters that are no meaning of the grammar")
    return query


class Ambiguous(Exception):
    """Two readers could disagree on what the query selects."""


def select(query: Query, lesions: Sequence[Lesion]) -> tuple[Lesion, ...]:
    """Return exactly the lesions that ``query`` selects; raises :class:`Ambiguous` if readers could disagree."""
    found = tuple(lesion for lesion in lesions if _matches(query, lesion))
    if query.order:
        return _ranked(query, found)
    if query.relation:
        assert query.anchor is not None
        anchors = select(query.anchor, lesions)
        if len(anchors) > 1:
            raise Ambiguous("more than one anchor")
        found = tuple(lesion for lesion in found if lesion not in anchors)
        return _related(query.relation, found, anchors[0]) if anchors else ()
    return found


def _matches(query: Query, lesion: Lesion) -> bool:
    """Return whether every word of the query holds; one that certainly does not hold decides alone."""
    verdicts = list(_verdicts(query, lesion))
    if False in verdicts:
        return False
    if None in verdicts:
        raise Ambiguous(f"readers could disagree about lesion {lesion.id}")
    return True


def _verdicts(query: Query, lesion: Lesion) -> Iterator[bool | None]:
    """Yield for each word of the query whether it holds for the lesion; None if readers could disagree."""
    if query.lobe is not None:
        yield query.lobe == lesion.lobe
    for word, possible in (
        (query.type, possible_types(lesion)),
        (query.density, possible_densities(lesion)),
        (query.enhancement, possible_enhancements(lesion)),
    ):
        if word == "diffuse" and enhancement_class(lesion) in ("rim", "nodular"):
            # Some readers also call such a lesion enhancing.
            yield None
        elif word is not None:
            yield (True if len(possible) == 1 else None) if word in possible else False
    if query.size is not None:
        limit = SMALL_MM if query.size == "small" else LARGE_MM
        near = limit / MARGIN < lesion.diameter_mm < limit * MARGIN
        yield None if near else (lesion.diameter_mm < limit) == (query.size == "small")


def _ranked(query: Query, found: tuple[Lesion, ...]) -> tuple[Lesion, ...]:
    by_size = query.order in ("largest", "smallest")
    sign = -1.0 if query.order in ("largest", "most posterior") else 1.0
    ranked = sorted(found, key=lambda lesion: sign * _measure(lesion, by_size))
    if len(ranked) < query.rank:
        return ()
    chosen = ranked[query.rank - 1]
    for other in ranked:
        a, b = _measure(chosen, by_size), _measure(other, by_size)
        near = max(a, b) < MARGIN * min(a, b) if by_size else abs(a - b) < APART_MM
        if other is not chosen and near:
            raise Ambiguous("two lesions too similar to rank")
    return (chosen,)


def _measure(lesion: Lesion, by_size: bool) -> float:
    return lesion.diameter_mm if by_size else lesion.centroid_mm[1]


def _related(relation: str, found: tuple[Lesion, ...], anchor: Lesion) -> tuple[Lesion, ...]:
    if relation == "closest to":
        ranked = sorted(found, key=lambda lesion: distance_mm(lesion, anchor))
        if len(ranked) > 1 and distance_mm(ranked[1], anchor) < MARGIN * distance_mm(ranked[0], anchor):
            raise Ambiguous("two lesions equally close")
        return tuple(ranked[:1])
    # mm in front of the anchor.
    ahead = [(anchor.centroid_mm[1] - lesion.centroid_mm[1]) for lesion in found]
    if any(abs(value) < APART_MM for value in ahead):
        raise Ambiguous("neither in front nor behind")
    sign = 1.0 if relation == "anterior to" else -1.0
    return tuple(lesion for lesion, value in zip(found, ahead, strict=True) if sign * value > 0)


def distance_mm(a: Lesion, b: Lesion) -> float:
    """Return the distance in mm between the centroids of two lesions of a slice."""
    return float(((a.centroid_mm[0] - b.centroid_mm[0]) ** 2 + (a.centroid_mm[1] - b.centroid_mm[1]) ** 2) ** 0.5)


def is_answerable(query: Query, phase: str) -> bool:
    """Return whether a reader of this contrast phase could answer: nothing enhances without contrast medium."""
    if phase != "noncontrast":
        return query.anchor is None or is_answerable(query.anchor, phase)
    return (
        query.enhancement is None
        and query.type in (None, *VISIBLE_WITHOUT_CONTRAST)
        and (query.anchor is None or is_answerable(query.anchor, phase))
    )


def without_redundancy(query: Query) -> Query:
    """Drop words that another word implies: a calcification is high, a cyst low and not enhancing."""
    if query.type in ("cyst", "calcification"):
        query = replace(query, density=None, enhancement=None)
    return query
