"""Small words and numbers that say which lesion is meant: "the lesion by the cyst", "3 cm from the cyst", "cyst #2"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .contract import Contract
from .lexicon import Lexicon
from .numbers import BOUNDS, is_bound, is_number, measure
from .reading import Reason, listed
from .segments import CARDINALS
from .structure import DETERMINERS, clause, names_lesion, unneeded_places
from .words import Word, places_of

_ENDS = set(".;!?")
# "-12 mm", "@ 12 mm"
_SIGNED = re.compile(r"(?:^|[\s(\[])-$|@\s*$")
# Of a density, which may be negative.
_HOUNSFIELD = {"hu", "hounsfield"}


def pointers(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> list[Reason]:
    """Return reasons to refuse a sentence of which a comparison, a position or a number would be lost."""
    tests = (
        ("position", "a comparison or position would be lost", _relates),
        ("position", "a distance would be lost", _is_distance),
        ("order", "a number would be lost that says which lesion or slice is meant", _is_label),
        ("order", "the order would be lost", _is_next),
    )
    reasons = list[Reason]()
    unneeded = unneeded_places(words, contract, lexicon)
    harmless = {at for at in unneeded if words[at].key in contract.relating}
    for kind, text, points in tests:
        found = [
            str(word.number)
            for at, word in enumerate(words)
            if at not in harmless and points(words, at, contract, lexicon)
        ]
        if found:
            reasons.append(Reason(kind, f"{text}: word{'s' * (len(found) > 1)} {listed(found)}"))
    return reasons


def _relates(words: Sequence[Word], at: int, contract: Contract, lexicon: Lexicon) -> bool:
    """Whether a small word stands between two lesions, or is the first of "as large as"."""
    word = words[at]
    if word.key not in contract.relating or lexicon.knows(word):
        return False
    if word.key == "as" and any(after.key == "as" for after in words[at + 2 : at + 5]):
        return True
    beside = {one.key for one in (*words[max(0, at - 1) : at], *words[at + 1 : at + 2])}
    if word.key == "or" and len(beside & contract.looks) == 2:
        return True
    end = at + 1
    while end < len(words) and words[end].key in (DETERMINERS | contract.looks) - contract.nouns:
        end += 1
    return names_lesion(words[end : end + 1], contract, lexicon) and names_lesion(
        clause(words, at, -1), contract, lexicon
    )


def _is_distance(words: Sequence[Word], at: int, contract: Contract, lexicon: Lexicon) -> bool:
    """Whether a measure is one from a thing, or a place: "3 cm from the cyst", "cyst-sized", "at -12 mm"."""
    word = words[at]
    if lexicon.knows(word):
        return False
    whole = measure(words, at, contract)
    density = any(part.key.lstrip("0123456789.,") in _HOUNSFIELD for part in whole)
    if whole and not density:
        before = words[at - 1] if at > 0 else None
        placed = before is not None and before.key == "at" and not (at > 1 and is_number(words[at - 2], contract))
        if placed or _SIGNED.search(word.before):
            return True
    if word.key in contract.units and word.before == "-" and names_lesion(words[at - 1 : at], contract, lexicon):
        return True
    end = at + len(whole) if whole else at + 1
    measured = bool(whole) or word.key in contract.units - BOUNDS
    if not measured or end + 1 >= len(words) or words[end].key not in contract.distance:
        return False
    end += 1
    while end + 1 < len(words) and words[end].key in DETERMINERS:
        end += 1
    goes_on = is_number(words[end], contract) or is_bound(words, end, contract) or words[end].key in ("at", "up")
    return not goes_on


def _is_label(words: Sequence[Word], at: int, contract: Contract, lexicon: Lexicon) -> bool:
    """Whether a number is a lesion's or a slice's: "lesion 2", "lesion A", "#2", "1 of 3", "slice 35"."""
    word = words[at]
    if word.key == "a" and at + 1 == len(words) and names_lesion(words[at - 1 : at], contract, lexicon):
        return not lexicon.is_open
    digits = word.key[0].isdecimal()
    if not (digits or word.key in CARDINALS) or lexicon.knows(word) or measure(words, at, contract):
        return False
    if digits and "#" in word.before:
        return True
    if digits and [one.key for one in words[at + 1 : at + 2]] == ["of"]:
        after = words[at + 2 : at + 3]
        if after and after[0].key[0].isdecimal():
            return True
    if at == 0 or _ENDS & set(word.before) or (not digits and word.before != " "):
        return False
    return words[at - 1].key in contract.numbered or names_lesion(words[at - 1 : at], contract, lexicon)


def _is_next(words: Sequence[Word], at: int, contract: Contract, lexicon: Lexicon) -> bool:
    """Whether a "next" is a rank, which a vocabulary with "next to" does not tell."""
    if words[at].key != "next" or lexicon.is_open:
        return False
    taught = places_of(words, contract.relations) | places_of(words, contract.orders)
    # "next to largest"
    return at not in taught or any(word.key in contract.ranks for word in words[at + 2 : at + 3])
