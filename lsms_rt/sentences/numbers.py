"""Numbers, counts and measures, which no engine uses."""

from __future__ import annotations

from collections.abc import Sequence

from .contract import Contract
from .lexicon import Lexicon
from .words import Word

# What a measure may be bound by, and is one of its words directly before a number only: "under 2 cm", "under the cyst".
BOUNDS = {"above", "below", "under", "over", "within", "about", "than", "least", "most"}
_COMPARED, _OF_COUNTS = {"less", "more"}, {"least", "most"}
# Words of measures that are no units: "lesion 2 measuring 3 cm".
NO_UNITS = BOUNDS | {"measuring", "measures", "measured", "size", "sized", "sizes", "approximately", "approx"}
# Between the numbers of one measure: "2 by 3 cm", "2-3 cm", "3.5x2" and "1cm".
_LINKS, _JOINTS = {"to", "by", "and"}, set("-/.*~\u00d7")


def is_number(word: Word, contract: Contract) -> bool:
    """Whether a word is a number, a count or a measure."""
    return word.key[0].isdecimal() or word.key in contract.numbers or word.key in contract.units - BOUNDS


def is_bound(words: Sequence[Word], at: int, contract: Contract) -> bool:
    """Whether a word is a bound of a measure: "under 2 cm", "less than 2 cm", "up to 2 cm"."""
    if words[at].key in _COMPARED:
        return [word.key for word in words[at + 1 : at + 2]] == ["than"] and is_bound(words, at + 1, contract)
    up_to = at > 0 and [word.key for word in words[at - 1 : at + 1]] == ["up", "to"]
    if (words[at].key in BOUNDS or up_to) and measure(words, at + 1, contract):
        return True
    # "at most two lesions"
    counted = words[at].key in _OF_COUNTS and at > 0 and words[at - 1].key == "at"
    return counted and at + 1 < len(words) and is_number(words[at + 1], contract)


def measured(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> set[int]:
    """Return where the words of measures stand whose numbers the engine does not know, with their bounds."""
    found = set[int]()
    for at, word in enumerate(words):
        if not is_number(word, contract) or lexicon.knows(word):
            continue
        found.update(range(at, at + len(measure(words, at, contract))))
        start = at
        while start > 0 and is_bound(words, start - 1, contract):
            start -= 1
        found.update(range(start, at))
    return found


def measure(words: Sequence[Word], at: int, contract: Contract) -> list[Word]:
    """Return the words of a measure that begins with a number: "12 x 8 mm", "2 to 3 cm"; none without a unit."""
    units = contract.units - NO_UNITS
    found, has_unit = list[Word](), False
    for here, word in enumerate(words[at:], at):
        number = word.key[0].isdecimal()
        if here == at:
            if not number:
                return []
        elif number and found[-1].key[0].isdecimal() and (" " in word.before or not _JOINTS & set(word.before)):
            break
        after = words[here + 1 : here + 2]
        linked = word.key in _LINKS and bool(after) and after[0].key[0].isdecimal()
        if not (number or word.key in units or linked):
            break
        rest = word.key.lstrip("0123456789.,")
        has_unit |= word.key in units or (number and (rest in units or rest.startswith("x")))
        found.append(word)
    return found if has_unit else []
