"""Which words an engine knows: its tokenizer's, and those it was taught; and which of them a misspelled one is near."""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache

from lsms_rt.tokenizer import Tokenizer

from .contract import Contract
from .words import Word, words_of

# Of a suggestion, from 0 to 1.
CLOSE = 0.8
# Words of which the nearest is looked up, and their length: hostile input must not cost time.
MAX_LOOKED_UP, MAX_LETTERS = 8, 30


class Lexicon:
    """The words of one engine.

    Args:
        tokenizer: of the engine.
        contract: its table.

    Attributes:
        is_open: whether the vocabulary spells words from pieces, as BERT's does; it then knows nearly every word.
    """

    def __init__(self, tokenizer: Tokenizer, contract: Contract) -> None:
        self._tokenizer, self._contract = tokenizer, contract
        self.is_open = tokenizer.is_open
        # The same words come again and again; the vocabulary does not change.
        self._is_known = lru_cache(4096)(self._look_up)
        self._phrases = _known_phrases(tokenizer.digest, contract.taught)
        self._suggested = sorted(word for word in tokenizer.whole_words if len(word) > 3)

    def knows(self, word: Word) -> bool:
        """Whether the network has seen a word."""
        return self._is_known(word.text, word.key)

    def _look_up(self, text: str, key: str) -> bool:
        if key in self._contract.taught:
            return True
        if self.is_open:
            return self._tokenizer.can_spell(text)
        # A closed vocabulary holds letters and digits to spell with.
        pieces = text.casefold().removesuffix("'s").replace(",", ".").replace("'", ".").split(".")
        if any(piece.isdecimal() or (len(piece) == 1 and pieces != ["a"]) for piece in pieces):
            return False
        return not self._tokenizer.is_unknown(text)

    def knows_all(self, text: str) -> bool:
        """Whether the network has seen every word of a phrase of a table."""
        known = self._phrases.get(text)
        if known is None:
            known = self._phrases[text] = all(map(self.knows, words_of(text)))
        return known

    def is_word(self, word: Word) -> bool:
        """Whether a word is one, also where an open vocabulary would spell anything."""
        return self._tokenizer.is_whole(word.text) if self.is_open else self.knows(word)

    def is_slip(self, key: str) -> bool:
        """Whether a word is one letter away from a known one of a closed vocabulary."""
        return not self.is_open and any(one_edit(key, word) for word in self._suggested)

    def nearest(self, key: str) -> str | None:
        """Return the known word that is most like ``key``; None if none is, or if the vocabulary is open."""
        if self.is_open or not 3 < len(key) <= MAX_LETTERS:
            return None
        swapped = next((word for word in self._suggested if one_edit(key, word)), None)
        return swapped or next(iter(get_close_matches(key, self._suggested, 1, CLOSE)), None)


@lru_cache(8)
def _known_phrases(vocabulary: str, taught: frozenset[str]) -> dict[str, bool]:
    """Return what all readers of a vocabulary share: which phrases of tables it knows, never words of a sentence."""
    return {}


def one_edit(a: str, b: str) -> bool:
    """Whether two different words differ by one letter left out, added or changed, or by two that changed places."""
    if a == b or abs(len(a) - len(b)) > 1:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[:2][::-1] and a[2:] == b[2:])
