"""Numbers, counts and measures, which no engine uses."""

from __future__ import annotations

from collections.abc import Sequence

from .contract import Contract
from .words import Word

# What a measure may be bound by; of an organ or a type, a size follows only in report style: "left kidney: 3 cm cyst".
_BOUNDS = {"above", "below", "under", "least", "most"}


def is_number(word: Word, contract: Contract) -> bool:
    """Whether a word is a number, a count or a measure."""
    return word.key[0].isdecimal() or word.key in contract.numbers or word.key in contract.units


def is_bound(words: Sequence[Word], at: int, contract: Contract) -> bool:
    """Whether a word is a bound of a measure: "under 2 cm"."""
    after = [word.key for word in words[at + 1 : at + 3]]
    if words[at].key not in _BOUNDS or not after or not after[0][0].isdecimal():
        return False
    # "2cm", or "2" and "cm"
    return (after[0].lstrip("0123456789.,") or "".join(after[1:])) in contract.units
