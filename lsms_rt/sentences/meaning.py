"""Whether a sentence asks for one lesion, of one kind: not for an organ, for several things or for a measure."""

from __future__ import annotations

from collections.abc import Sequence

from .contract import Contract
from .lexicon import Lexicon
from .numbers import is_number
from .reading import Reason
from .segments import PREPOSITIONS
from .sides import parts_of
from .words import Word, places_of

_AND = {"and", "or", "plus", "vs", "versus"}
_HOLDS = {"with", "containing", "contains", "having", "has", "that", "which", "and", "or"}


def meaning(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> list[Reason]:
    """Return what is not understood of the sentence as a whole."""
    reasons = _lesion(words, contract, lexicon)
    parts = parts_of(words, contract)
    if any(_is_several(part, contract) for part in parts):
        text = "it asks for several things at once, which may not all be found; ask for each by itself"
        reasons.append(Reason("several", text, refuses=False))
    if any(_opposes(part, contract) for part in parts):
        text = "it names a low and a high density, of which one may be overlooked"
        reasons.append(Reason("contradiction", text, refuses=False))
    if any(is_number(word, contract) and not lexicon.knows(word) for word in words):
        reasons.append(Reason("number", "numbers, counts and measures are not used", refuses=False))
    return reasons


def _lesion(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> list[Reason]:
    keys = [word.key for word in words]
    nouns = [at for at, key in enumerate(keys) if key in contract.nouns and lexicon.knows(words[at])]
    places = [at for at, key in enumerate(keys) if key in contract.places]
    if nouns:
        head = places and places[0] < nouns[0] and not PREPOSITIONS & set(keys[: places[0]])
        if head and _HOLDS & set(keys[places[0] : nouns[0]]):
            text = "it asks for a part of the body, and lesions only are outlined"
            return [Reason("no lesion", text, refuses=False)]
        return []
    named = (contract.named, contract.function, contract.context, contract.organs)
    other = [
        w for w in words if not any(w.key in one for one in named) and not is_number(w, contract) and lexicon.knows(w)
    ]
    if other:
        # It may be a lesion's name that the engine was taught.
        return []
    looks = contract.looks & set(keys)
    free = not places or PREPOSITIONS & set(keys[: places[0]])
    # What is described may be an unknown word.
    known = all(lexicon.knows(w) or w.key in contract.function or is_number(w, contract) for w in words)
    text = 'it names no lesion, e.g. "lesion" or "cyst"'
    return [Reason("no lesion", text, refuses=not (looks and free and known))]


def _is_several(part: Sequence[Word], contract: Contract) -> bool:
    nouns = contract.nouns
    for at, word in enumerate(part):
        before, after = {w.key for w in part[:at]}, {w.key for w in part[at + 1 :]}
        # "cyst/hemangioma": the second word is one of the two.
        linked = word.before.strip() in ("/", "&") and before & nouns and word.key in nouns
        if linked or (word.key in _AND and before & nouns and after & (nouns | {"lobe", "liver"})):
            return True
    return False


def _opposes(part: Sequence[Word], contract: Contract) -> bool:
    return sum(bool(places_of(part, phrases)) for phrases in contract.densities) > 1
