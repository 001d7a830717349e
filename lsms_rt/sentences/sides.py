"""Left and right: which side a sentence names, and where that is not the lobe of a lesion."""

from __future__ import annotations

from collections.abc import Sequence

from .contract import SIDES, Contract
from .reading import Reason
from .words import Word, stands_at

_PARTS = {"side", "part", "half", "aspect", "portion", "hand"}
_ARTICLES = {"the", "this", "that", "a", "an", "patients", "my", "its"}
# What a side may be one of.
_WHOLES = {"liver", "patient", "hepatic", "body", "abdomen", "lobe", "lobes"}
_PICTURES = {"image", "picture", "screen", "slice", "scan", "ct", "photo", "viewer", "display", "page"}
_OWNERS = {"patients", "livers"}
# "front-most" is a rank of its own.
_ENDS = {"front", "rear"}
_RANKS = {"most", "more", "from", "far", "further", "farther"}
# "right behind" is nearer than "behind".
_ADVERB_OF = {"next", "behind", "in", "before", "after", "at", "near", "beside", "there", "here", "above", "below"}
_NOUN_AFTER = {"the", "on", "patients", "and", "or"}


def parts_of(words: Sequence[Word], contract: Contract) -> list[list[Word]]:
    """Return the sentence in parts about one lesion each: "the cyst / next to / the abscess"."""
    parts: list[list[Word]] = [[]]
    for at, word in enumerate(words):
        if any(stands_at(words, at, keys) for keys in contract.relations.get(word.key, ())):
            parts.append([])
        parts[-1].append(word)
    return parts


def side_of(words: Sequence[Word]) -> str | None:
    """Return "left", "right", "both", or None."""
    named = {word.key for word in words} & set(SIDES)
    return "both" if len(named) > 1 else next(iter(named), None)


def side_problems(words: Sequence[Word], contract: Contract, is_open: bool) -> list[Reason]:
    """Return why the side that is named would be misread."""
    if any(side_of(part) == "both" for part in parts_of(words, contract)):
        return [Reason("side", "it names left and right together; ask for each side by itself")]
    keys = [word.key for word in words]
    for at, key in enumerate(keys):
        whole = _whole_of(keys, at) if key in SIDES else None
        # A network with an open vocabulary may have been taught what is left of what; a picture's left is not known.
        if whole is not None and whole not in _WHOLES and (whole in _PICTURES or not is_open):
            return [Reason("side", f'"{key}" of something other than the liver is not understood')]
        if key in SIDES and _is_beside_picture(keys, at):
            return [Reason("side", f'"{key}" of a picture may be the patient\'s other side; say "{key} lobe"')]
        if key == "right" and _may_be_no_side(words, at):
            return [Reason("side", '"right" may be no side here; leave it out, or say "right lobe"')]
        if key in SIDES and _is_compared(words, at):
            return [Reason("side", f'"{key}" as a rank, or of something other than the liver, is not understood')]
    return []


def _may_be_no_side(words: Sequence[Word], at: int) -> bool:
    """Whether a "right" may mean something else: "right, find the cyst", "right behind the cyst"."""
    after, before = words[at + 1 : at + 2], words[max(0, at - 1) : at]
    if not before and after and after[0].before.startswith(","):
        return True
    return bool(_ADVERB_OF & {word.key for word in after}) and not _NOUN_AFTER & {word.key for word in before}


def _is_beside_picture(keys: Sequence[str], at: int) -> bool:
    """Whether a side stands beside a picture: "image left", "left on the image", "left slice lesion"."""
    small = {"on", "at", "in", "the", "of", "side", "to"}
    after = [key for key in keys[at + 1 : at + 4] if key not in small]
    before = [key for key in keys[max(0, at - 3) : at] if key not in small]
    return bool(_PICTURES & {*after[:1], *before[-1:]})


def _is_compared(words: Sequence[Word], at: int) -> bool:
    """Whether a side is a rank, or another thing's: "most left", "from the left", "the cyst's left"."""
    after = words[at + 1].key if at + 1 < len(words) else ""
    if after == "most":
        return True
    before = [word for word in words[max(0, at - 3) : at] if word.key not in ("the", "to")]
    if not before or {word.key for word in before} & _ENDS:
        return False
    last = before[-1]
    return (last.key in _RANKS and after not in _WHOLES) or (
        last.text.lower().endswith("'s") and last.key not in _OWNERS
    )


def _whole_of(keys: list[str], at: int) -> str | None:
    """Return what a side is one of: "cyst" of "left of the cyst"; None if nothing is said, "" if it is not a word."""
    at += 1
    if keys[at : at + 1] and keys[at] in _PARTS:
        at += 1
    if keys[at : at + 1] != ["of"]:
        return None
    at += 1
    while keys[at : at + 1] and keys[at] in _ARTICLES:
        at += 1
    return keys[at] if keys[at : at + 1] else ""
