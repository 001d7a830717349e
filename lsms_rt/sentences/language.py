"""In which language a sentence is."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from .contract import Contract
from .lexicon import Lexicon
from .reading import Reason
from .words import Word


def other_language(words: Sequence[Word], contract: Contract, lexicon: Lexicon) -> list[Reason]:
    """Return the reason to refuse a sentence of another language or script.

    Two words of another language tell it, or a longer one in a sentence without any function word of the engine's own.
    Words that a closed vocabulary holds are the engine's, whatever their language.
    """
    if any(not _is_latin(c) for word in words for c in word.text if c.isalpha()):
        return [_reason("another script", contract)]
    strange = [word for word in words if lexicon.is_open or not lexicon.knows(word)]
    keys = {word.key for word in strange}
    counts = {language: len(keys & known) for language, known in contract.foreign.items()}
    language, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    # Accented words of a language that the table does not hold.
    accented = sum(not word.text.isascii() for word in strange if not lexicon.knows(word))
    own = any(word.key in contract.function for word in words)
    # A single one may be misspelled: "hypodens".
    alone = accented or any(
        len(key) > 3 and not lexicon.is_slip(key) for key in keys & contract.foreign.get(language, frozenset())
    )
    if count + accented >= 2 or (count + accented == 1 and alone and not own):
        return [_reason(language if count else "another language", contract)]
    return []


def _reason(language: str, contract: Contract) -> Reason:
    return Reason("language", f"it seems to be in {language}; write it in {contract.language}")


def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith(("LATIN", "MICRO", "MASCULINE", "FEMININE"))
