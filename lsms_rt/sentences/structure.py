"""Places of a sentence that carry its meaning: an unknown word that stands in one is refused, and not left out.

"the dominant lesion" must not be read as "the lesion".  Which words may be left out anyway, wherever they stand,
the table says (``harmless``): "the suspicious lesion".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from .contract import Contract
from .lexicon import Lexicon, one_edit
from .numbers import is_bound, is_number
from .reading import Reason, listed
from .words import Word, places_of

# What an unknown verb or preposition may stand before: "touching the cyst", "core of the cyst".
DETERMINERS = {
    "the", "a", "an", "this", "that", "these", "those", "any", "all", "every", "each", "some", "there", "its", "my",
    "our", "their",
}  # fmt: skip
# What an unknown word may tell of a lesion after: "the lesion that grew", "with gas".
_AFTER = {"that", "which", "who", "is", "are", "was", "were", "be", "been", "being", "has", "have", "with"}
# "suspicious" does not say which lesion is meant, "most suspicious" does.
_RANKS = {"most", "more", "less", "least"}
_ENDS = set(".;!?")
# What parts two statements; commas and brackets do not: "the lesion, dominant", "the lesion (treated)".
_STOPS = set(".!?")
# What a purpose or a name stands after: "for radiotherapy", "of Mr Miller".
_BESIDE_THE_POINT = {"for", "of"}


def unneeded_places(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> set[int]:
    """Return where unknown words stand that do not say which lesion is meant: harmless ones, and those of measures."""
    places = places_of(words, contract.harmless) | places_of(words, contract.not_negation)
    ranked = {at for at in places if at > 0 and words[at - 1].key in _RANKS and at - 1 not in places}
    measures = {at for at, word in enumerate(words) if is_number(word, contract) or is_bound(words, at, contract)}
    return {at for at in (places - ranked) | measures if not lexicon.knows(words[at])}


def lost_meaning(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> list[Reason]:
    """Return the reason to refuse a sentence with unknown words in places that carry its meaning."""
    kept = _without(words, unneeded_places(words, contract, lexicon))
    unknown = [at for at, word in enumerate(kept) if _is_strange(word, contract, lexicon)]
    found = [str(kept[at].number) for at in unknown if _carries(kept, at, contract, lexicon)]
    if not found:
        return []
    said = f"word {found[0]} is" if len(found) == 1 else f"words {listed(found)} are"
    return [Reason("unknown", f"{said} not known, and may say which lesion is meant")]


def _without(words: Sequence[Word], places: Collection[int]) -> list[Word]:
    """Return the words but those at some places, whose punctuation stays."""
    kept, before = list[Word](), ""
    for at, word in enumerate(words):
        before += word.before
        if at not in places:
            kept.append(replace(word, before=before))
            before = ""
    return kept


def _is_strange(word: Word, contract: Contract, lexicon: Lexicon) -> bool:
    """Whether an unknown word may mean anything: it is neither a small one nor a slip."""
    if lexicon.knows(word) or word.key in contract.function | contract.context:
        return False
    return not _is_slip(word.key, contract)


def _is_slip(key: str, contract: Contract) -> bool:
    """Whether a word is most likely a misspelled one that says nothing of which lesion is meant: "leison", "livr"."""
    if any(sorted(key) == sorted(small) and one_edit(key, small) for small in contract.function):
        return True
    return len(key) > 3 and any(one_edit(key, meant) for meant in contract.indifferent)


def _carries(words: Sequence[Word], at: int, contract: Contract, lexicon: Lexicon) -> bool:
    """Whether a word stands beside what names or describes a lesion or its place, or between two lesions."""
    telling = contract.nouns | contract.looks | contract.places
    # "the lesion here on CT, dominant"
    small = (contract.function | contract.context) - _AFTER - _BESIDE_THE_POINT
    # "The lesion. Dominant."
    stops = _STOPS if clause(words, at, -1) or clause(words, at, 1) else set[str]()
    start = at
    while start > 1 and words[start - 1].key in small and not stops & set(words[start].before):
        start -= 1
    before = words[start - 1].key if start > 0 and not stops & set(words[start].before) else ""
    after = words[at + 1].key if at + 1 < len(words) and not stops & set(words[at + 1].before) else ""
    if before in telling | _AFTER or after in telling | DETERMINERS | {"of"}:
        return True
    return names_lesion(clause(words, at, -1), contract, lexicon) and names_lesion(
        clause(words, at, 1), contract, lexicon
    )


def clause(words: Sequence[Word], at: int, step: int) -> list[Word]:
    """Return the words before or after one (a step of -1 or 1), up to the end of its sentence."""
    found = list[Word]()
    while 0 <= at + step < len(words):
        if _ENDS & set(words[at if step < 0 else at + 1].before):
            break
        at += step
        found.append(words[at])
    return found


def names_lesion(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> bool:
    """Whether one of the words names a lesion in words of the engine."""
    return any(word.key in contract.nouns and lexicon.knows(word) for word in words)
