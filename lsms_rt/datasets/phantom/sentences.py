"""From queries to English: a grammar with synonyms, and the choice of sentences for a slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .lesion import Lesion, enhancement_class
from .lesion_types import LESION_TYPES, TYPES
from .queries import (
    LARGE_MM,
    ORDERS,
    RELATIONS,
    SMALL_MM,
    Ambiguous,
    Query,
    is_answerable,
    select,
    without_redundancy,
)

Rng = np.random.Generator

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "density": {
        "low": ("low-density", "hypodense", "hypoattenuating", "low-attenuation", "dark"),
        "high": ("high-density", "hyperdense", "hyperattenuating", "high-attenuation", "bright"),
    },
    "enhancement": {
        "none": ("non-enhancing", "non-enhanced", "unenhanced"),
        "rim": ("rim-enhancing", "ring-enhancing", "peripherally enhancing"),
        "nodular": ("nodular enhancing", "nodularly enhancing"),
        "diffuse": ("enhancing", "enhanced"),
    },
    "size": {"small": ("small", "tiny", "little"), "large": ("large", "big", "sizeable")},
    "order": {
        "largest": ("largest", "biggest"),
        "smallest": ("smallest", "tiniest"),
        "most anterior": ("most anterior", "front-most", "most ventral"),
        "most posterior": ("most posterior", "rear-most", "most dorsal"),
    },
    "relation": {
        "closest to": ("closest to", "nearest to", "next to", "close to"),
        "anterior to": ("anterior to", "in front of", "ventral to"),
        "posterior to": ("posterior to", "behind", "dorsal to"),
    },
}
RANKS = {2: "second", 3: "third"}
ANY = (
    ("lesion", "lesions"),
    ("focus", "foci"),
    ("nodule", "nodules"),
    ("mass", "masses"),
    ("abnormality", "abnormalities"),
)
LOBES = (
    "in the {} lobe of the liver",
    "in the {} lobe",
    "in the {} liver lobe",
    "in the {} hepatic lobe",
    "of the {} lobe of the liver",
    "within the {} lobe",
    "located in the {} lobe",
)
ANYWHERE = ("in the liver", "of the liver", "within the liver")
OPENINGS = ("", "", "", "", "segment ", "find ", "show ", "outline ", "please segment ")


@dataclass(frozen=True)
class Sentence:
    """One sentence, its meaning, and exactly the lesions that it means (none for a false sentence)."""

    text: str
    query: Query
    targets: tuple[Lesion, ...]


def say(query: Query, count: int, rng: Rng) -> str:
    """Return one of many ways to say ``query``; ``count`` is how many lesions it selects (0: said as 1 or many)."""
    plural = count > 1 or (count == 0 and not query.order and query.relation is None and rng.random() < 0.2)
    article = rng.choice(
        ("the", "all", "all the", "") if plural else ("the", "the", "the", "a", "" if query.order is None else "the")
    )
    opening, phrase = _pick(OPENINGS, rng), _phrase(query, plural, rng)
    if article == "a" and (query.order or phrase.startswith(("a", "e", "u", "HCC"))):
        # There is only one largest lesion, and "an" is not in the vocabulary.
        article = "the"
    text = f"{opening}{article} {phrase}"
    if query.relation and query.anchor:
        text += f" {_pick(WORDS['relation'][query.relation], rng)} the {_phrase(query.anchor, False, rng)}"
    text = " ".join(text.split())
    return text[0].upper() + text[1:] if rng.random() < 0.2 else text


def _phrase(query: Query, plural: bool, rng: Rng) -> str:
    words = []
    if query.order:
        words += [RANKS.get(query.rank, ""), _pick(WORDS["order"][query.order], rng)]
    if query.size:
        words.append(_pick(WORDS["size"][query.size], rng))
    looks = [
        _pick(WORDS[name][value], rng)
        for name, value in (("density", query.density), ("enhancement", query.enhancement))
        if value
    ]
    words += looks if rng.random() < 0.7 else looks[::-1]
    if query.type is None:
        noun = ANY[int(rng.choice(len(ANY), p=(0.5, 0.15, 0.15, 0.1, 0.1)))]
    else:
        nouns = LESION_TYPES[query.type].nouns
        noun = nouns[int(rng.integers(len(nouns)))]
    noun_text = noun[1 if plural else 0]
    if query.lobe and rng.random() < 0.12:
        return " ".join([*words, f"{query.lobe}-lobe", noun_text])
    if query.lobe:
        return " ".join([*words, noun_text, _pick(LOBES, rng).format(query.lobe)])
    place = [_pick(ANYWHERE, rng)] if rng.random() < 0.3 else []
    return " ".join([*words, noun_text, *place])


def _pick(options: Sequence[str], rng: Rng) -> str:
    return options[int(rng.integers(len(options)))]


# How a query describes one lesion: (weight, the fields it uses).  Types and enhancements are often rejected, because
# readers would not agree on them, so they weigh more here than is intended among the sentences.
KINDS: tuple[tuple[float, tuple[str, ...]], ...] = (
    (0.20, ("density", "lobe")),
    (0.08, ("density",)),
    (0.20, ("type", "lobe")),
    (0.14, ("type",)),
    (0.08, ("lobe",)),
    (0.08, ("enhancement", "lobe")),
    (0.05, ("density", "enhancement")),
    (0.07, ("size", "density", "lobe")),
    (0.05, ("size", "lobe")),
    (0.02, ()),
)
ORDER_SHARE, RELATION_SHARE = 0.10, 0.06
# The chance of a false sentence in a slice with lesions; one sentence in six is then false.
FALSE_CHANCE = 0.61
FALSE_ATTEMPTS = 300


def _describe(lesion: Lesion, fields: Sequence[str]) -> Query:
    size = "small" if lesion.diameter_mm < SMALL_MM else "large" if lesion.diameter_mm > LARGE_MM else None
    query = Query(
        type=lesion.type if "type" in fields else None,
        density=lesion.density if "density" in fields and lesion.density != "iso" else None,
        enhancement=enhancement_class(lesion) if "enhancement" in fields else None,
        lobe=lesion.lobe if "lobe" in fields else None,
        size=size if "size" in fields else None,
    )
    return without_redundancy(query)


def random_query(lesions: Sequence[Lesion], rng: Rng) -> Query:
    """Draw a query modeled on one of the lesions; it may select that one, more, or (order, relation) another."""
    lesion = lesions[int(rng.integers(len(lesions)))]
    weights = np.array([weight for weight, _ in KINDS])
    fields = KINDS[int(rng.choice(len(KINDS), p=weights / weights.sum()))][1]
    draw = rng.random()
    if draw < ORDER_SHARE:
        base = _describe(lesion, [name for name in ("density", "lobe") if rng.random() < 0.4])
        order = _pick(ORDERS, rng)
        rank = int(rng.choice((1, 2, 3), p=(0.6, 0.3, 0.1))) if order == "largest" else 1
        return replace(base, order=order, rank=rank)
    if draw < ORDER_SHARE + RELATION_SHARE and len(lesions) > 1:
        anchor = lesions[int(rng.integers(len(lesions)))]
        anchor_fields = ("type",) if rng.random() < 0.5 else ("density", "lobe")
        base = _describe(lesion, [name for name in ("density", "lobe") if rng.random() < 0.3])
        return replace(base, relation=_pick(RELATIONS, rng), anchor=_describe(anchor, anchor_fields))
    return _describe(lesion, fields)


def change_one_word(query: Query, rng: Rng) -> Query:
    """Return a query with one word changed (type, lobe, density, enhancement or size).

    Its sentence is often false.
    """
    options: list[Callable[[], Query]] = [
        lambda: replace(query, type=_pick(TYPES, rng), density=None, enhancement=None)
    ]
    if query.lobe:
        other = "left" if query.lobe == "right" else "right"
        options += [lambda: replace(query, lobe=other)] * 2
    if query.density:
        options += [lambda: replace(query, density="high" if query.density == "low" else "low")] * 2
    if query.enhancement:
        options.append(lambda: replace(query, enhancement=_pick(tuple(WORDS["enhancement"]), rng)))
    if query.size:
        options.append(lambda: replace(query, size="small" if query.size == "large" else "large"))
    return without_redundancy(options[int(rng.integers(len(options)))]())


def _imagined(rng: Rng) -> Query:
    """Draw a query that is not modeled on a lesion."""
    type_ = _pick(TYPES, rng) if rng.random() < 0.4 else None
    lobe = _pick(("left", "right"), rng) if rng.random() < 0.6 else None
    size = _pick(("small", "large"), rng) if rng.random() < 0.15 else None
    density = _pick(("low", "high"), rng) if type_ is None and rng.random() < 0.6 else None
    return Query(type=type_, density=density, lobe=lobe, size=size)


def true_sentence(lesions: Sequence[Lesion], phase: str, rng: Rng, *, single: bool | None = None) -> Sentence | None:
    """Draw a sentence that means at least one lesion (exactly one if ``single``); None after many attempts."""
    if not lesions:
        return None
    for attempt in range(40):
        query = random_query(lesions, rng)
        targets = targets_of(query, lesions, phase)
        if not targets or (single and len(targets) > 1):
            continue
        # Prefer sentences that mean one lesion: they are what the network is for.
        if single is None and len(targets) > 1 and attempt < 30 and rng.random() < 0.5:
            continue
        return Sentence(say(query, len(targets), rng), query, targets)
    return None


def false_sentence(lesions: Sequence[Lesion], phase: str, rng: Rng) -> Sentence | None:
    """Draw a false sentence; most are modeled on a lesion, with one word changed.

    None after many attempts: of dozens of lesions of all kinds, every sentence may be true, or readers disagree.
    """
    for _ in range(FALSE_ATTEMPTS):
        near = bool(lesions) and rng.random() < 0.8
        query = change_one_word(random_query(lesions, rng), rng) if near else _imagined(rng)
        if targets_of(query, lesions, phase) == ():
            return Sentence(say(query, 0, rng), query, ())
    return None


def slice_sentences(lesions: Sequence[Lesion], phase: str, rng: Rng) -> list[Sentence]:
    """Draw the sentences of a slice.

    These are up to three true ones with different meanings, a paraphrase of the first, and often a false one.
    """
    sentences: list[Sentence] = []
    for _ in range(6):
        sentence = true_sentence(lesions, phase, rng)
        if sentence and sentence.query not in [other.query for other in sentences]:
            sentences.append(sentence)
        if len(sentences) == 3:
            break
    if sentences:
        first = sentences[0]
        for _ in range(10):
            text = say(first.query, len(first.targets), rng)
            if text.lower() != first.text.lower():
                sentences.insert(1, Sentence(text, first.query, first.targets))
                break
    if not sentences or rng.random() < FALSE_CHANCE:
        false = false_sentence(lesions, phase, rng)
        sentences += [false] if false else []
    return sentences


def targets_of(query: Query, lesions: Sequence[Lesion], phase: str) -> tuple[Lesion, ...] | None:
    """Return the lesions that a query means; None if readers would not agree on them."""
    if not is_answerable(query, phase):
        return None
    try:
        return select(query, lesions)
    except Ambiguous:
        return None


def vocabulary_sentences(rng: Rng, count: int) -> list[str]:
    """Draw sentences that use every word of the grammar, to build a vocabulary from."""
    sentences = [_say_all(rng) for _ in range(count)]
    return sentences + [word for table in WORDS.values() for words in table.values() for word in words]


def _say_all(rng: Rng) -> str:
    query = replace(
        _imagined(rng),
        enhancement=_pick(tuple(WORDS["enhancement"]), rng) if rng.random() < 0.3 else None,
    )
    if rng.random() < 0.3:
        query = replace(query, order=_pick(ORDERS, rng), rank=int(rng.integers(1, 4)))
    elif rng.random() < 0.3:
        query = replace(query, relation=_pick(RELATIONS, rng), anchor=_imagined(rng))
    return say(query, int(rng.integers(1, 3)), rng)
