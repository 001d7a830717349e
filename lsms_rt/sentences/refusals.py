"""What a sentence says that a mask cannot answer, or that an engine would overlook and then find another lesion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .contract import SIDES, Contract
from .lexicon import Lexicon, one_edit
from .numbers import is_bound
from .reading import Reason, listed
from .segments import PREPOSITIONS
from .structure import unneeded_places
from .words import Word, places_of, stands_at

_ALWAYS = {
    "negation": "a mask cannot show what is negated, past or hypothetical",
    "exception": "exceptions are not understood",
    "question": "a mask does not answer a question",
}
_LOST = {
    "side": "the side would be lost",
    "position": "the position would be lost",
    "organ": "this engine does not know",
    "type": "this engine does not know the type",
    "order": "the order would be lost",
}
# What negates without a word: signs of mathematics, crosses, strokes through letters; "!" or "-" before a word, "(-)",
# "= 0", a part of "don't".
_SIGNS = re.compile(
    r"[\u00ac\u2260\u2209\u220c\u2205\u2216\u2284\\~\u2717\u2718\u2716\u274c\u274e\U0001f6ab\u26d4\u0335-\u0338]"
    r"|!(?=[\w=])|\(\s*[-\u2013\u2014\u2212]\s*\)|(?:^|\s)-(?=[^\W\d])|=\s*0\b|\bcount\W+0\b|(?:^|\s)n't\b"
)
# Letters of a word that tells one lesion from another, of which a misspelled one is refused.
SHORTEST = 5
_LOBES = {"lobe", "lobes"}
_IN, _ARTICLES = {"in", "within", "inside", "at"}, {"the", "a", "an"}
# Words that say which of two lesions is meant, and are refused where they are misspelled.
_CRITICAL = {
    **dict.fromkeys(SIDES, "side"), **dict.fromkeys(("segment", "segments"), "segment"),
    **dict.fromkeys(("not", "without", "except", "excluding"), "negation"),
    **dict.fromkeys(("smallest", "largest", "biggest", "tiniest", "second", "third"), "order"),
}  # fmt: skip


def refusals(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> list[Reason]:
    """Return reasons to refuse that single words and phrases give."""
    harmless = places_of(words, contract.not_negation)
    reasons = list[Reason]()
    for kind, text in _ALWAYS.items():
        found = [at for at in places_of(words, contract.always[kind]) if at not in harmless]
        negated = _negated(words, contract, lexicon) - harmless if kind == "negation" else set[int]()
        if found or negated:
            reasons.append(Reason(kind, _with_words(text, words, {*found, *negated})))
    for kind, text in _LOST.items():
        lost = {at for at in places_of(words, contract.lost[kind]) if not is_bound(words, at, contract)}
        unknown = {at for at in lost if not lexicon.knows(words[at])}
        # All words of a phrase, where one of them is unknown: "other lobe".
        if unknown:
            near = {at for at in lost if at in unknown or at - 1 in unknown or at + 1 in unknown}
            reasons.append(Reason(kind, _with_words(text, words, near)))
    return reasons + _unknown_place(words, contract, lexicon) + _misspelled(words, contract, lexicon)


def _negated(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> set[int]:
    """Return where words stand that a prefix turns into their opposite: "noncystic"."""
    found = set()
    for at, word in enumerate(words):
        for prefix in contract.negation_prefixes:
            rest = word.key.removeprefix(prefix)
            if rest != word.key and len(rest) > 3 and rest in contract.named and not _is_taught(word, lexicon):
                found.add(at)
    return found


def _is_taught(word: Word, lexicon: Lexicon) -> bool:
    """Whether a closed vocabulary holds the word itself; an open one would spell it."""
    return not lexicon.is_open and lexicon.knows(word)


def signs(sentence: str) -> list[Reason]:
    """Refuse signs that may negate."""
    return [Reason("negation", "a sign in it may negate; say it in words")] if _SIGNS.search(sentence) else []


def _is_small(word: Word, contract: Contract) -> bool:
    """Whether a word changes nothing, or is refused already."""
    return word.key in contract.function or word.key in contract.context or word.key in contract.refused


def _unknown_place(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> list[Reason]:
    """Refuse an unknown word in the place of a side, an organ or another lesion: "lft lobe", "in the thymus"."""
    after = {start + len(keys) for start, word in enumerate(words) for keys in contract.relations.get(word.key, ())
             if stands_at(words, start, keys)}  # fmt: skip
    for at, word in enumerate(words):
        before = words[at - 1] if at > 0 else word
        if word.key in _LOBES and not (lexicon.knows(before) or _is_small(before, contract)):
            return [Reason("side", f"the side would be lost: word {before.number}")]
        start = at
        while start > 0 and words[start - 1].key in _ARTICLES | set(SIDES):
            start -= 1
        said = {one.key for one in words[start:at]}
        said_in = words[start - 1].key if start > 0 else ""
        counted = at + 1 < len(words) and words[at + 1].key[0].isdecimal()
        begins = start in after or (said_in in _IN and (said or counted)) or (said_in == "of" and said & set(SIDES))
        if not begins or lexicon.knows(word) or _is_small(word, contract) or one_edit(word.key, "liver"):
            continue
        following = words[at + 1 : at + 2]
        if not following or counted or following[0].before != " " or following[0].key in PREPOSITIONS:
            return [Reason("position", f"the place would be lost: word {word.number}")]
    return []


def _misspelled(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> list[Reason]:
    """Refuse a word that is one letter away from a side, an exception or a word that tells one lesion from another."""
    harmless = contract.function | contract.numbers | contract.units | contract.segment_words
    unneeded = unneeded_places(words, contract, lexicon)
    reasons = list[Reason]()
    for at, word in enumerate(words):
        if not word.key.isalpha() or word.key in harmless or lexicon.is_word(word):
            continue
        meant = {critical: kind for critical, kind in _CRITICAL.items() if _may_be(word.key, critical)}
        if not meant and at not in unneeded and (nearest := _distinguishing(word.key, contract, lexicon)):
            meant = {nearest: "unknown"}
        reasons += [Reason(kind, f'word {word.number} may mean "{critical}"') for critical, kind in meant.items()]
    return reasons


def _distinguishing(key: str, contract: Contract, lexicon: Lexicon) -> str | None:
    """Return the word of a kind of lesion that a word is probably misspelled for; None if there is none."""
    # What an open vocabulary spells is left to the network; what is refused already needs no second reason.
    if lexicon.is_open or key in contract.named or key in contract.refused:
        return None
    # Shorter ones are a letter away from too many others: "met" from "meet", "dark" from "park".
    found = [meant for meant in contract.distinguishing if len(meant) >= SHORTEST and one_edit(key, meant)]
    # Letters that changed places come first, then words of the same length.
    return min(found, key=lambda meant: (sorted(meant) != sorted(key), len(meant) != len(key), meant), default=None)


def _may_be(key: str, critical: str) -> bool:
    """Whether a word is misspelled for another one; of three letters, only if two of them changed places."""
    return one_edit(key, critical) and (len(key) > 3 or sorted(key) == sorted(critical))


def _with_words(text: str, words: Sequence[Word], places: Iterable[int]) -> str:
    """Return the text with the words of tables that stand at these places."""
    said, last = list[str](), -2
    for at in sorted(places):
        if at == last + 1:
            said[-1] += f" {words[at].key}"
        else:
            said.append(words[at].key)
        last = at
    return f"{text}: " + listed([f'"{one}"' for one in dict.fromkeys(said)])
