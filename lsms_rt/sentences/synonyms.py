"""Words that mean the same, or more: one that the engine does not know is replaced by one that it knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .contract import SIDES, Contract
from .lexicon import Lexicon
from .reading import Reason
from .words import Word, phrase, stands_at, words_of

_LOBES = {"lobe", "liver", "hepatic"}
# The category of words that are replaced by ones that mean more.
_BROADER = "broader"


@dataclass(frozen=True)
class _Entry:
    """A phrase of the table: its words, what joins them, and what is said instead if it is not known as it stands."""

    keys: tuple[str, ...]
    joints: tuple[str, ...]
    instead: str | None
    broader: bool


class Synonyms:
    """The groups of a table, ready to be searched for.

    Args:
        contract: the table.
        lexicon: the words that the engine knows.
    """

    def __init__(self, contract: Contract, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        # By their first words, the longest first.
        self._by_first: dict[str, list[_Entry]] = {}
        for category, rows in contract.groups.items():
            for row in rows:
                known = next((text for text in row if lexicon.knows_all(text)), None)
                for text in row:
                    self._add(text, text if lexicon.knows_all(text) else known, broader=category == _BROADER)
        for found in self._by_first.values():
            found.sort(key=lambda entry: -len(entry.keys))

    def _add(self, text: str, instead: str | None, *, broader: bool) -> None:
        words = words_of(text)
        keys, joints = tuple(word.key for word in words), tuple(word.before for word in words[1:])
        self._by_first.setdefault(keys[0], []).append(_Entry(keys, joints, instead, broader))

    def replaced(self, words: Sequence[Word]) -> tuple[list[Word], list[Reason]]:
        """Return the words, with known ones for unknown ones, and where those mean more."""
        result, reasons = list[Word](), list[Reason]()
        start = 0
        while start < len(words):
            length, entry = self._at(words, start)
            said = words[start : start + length]
            if entry is None or entry.instead is None:
                result += said
            else:
                result += phrase(entry.instead, words[start])
                if entry.broader:
                    text = f'"{" ".join(entry.keys)}" is read as "{entry.instead}", which is a broader term'
                    reasons.append(Reason(_BROADER, text, refuses=False))
            start += length
        return result, reasons

    def _at(self, words: Sequence[Word], start: int) -> tuple[int, _Entry | None]:
        """Return how many words the longest phrase at ``start`` has, and the entry that replaces it; None: as it is."""
        fitting = [e for e in self._by_first.get(words[start].key, ()) if stands_at(words, start, e.keys)]
        fitting = [entry for entry in fitting if not _goes_on(words, start + len(entry.keys) - 1)]
        for keys in dict.fromkeys(entry.keys for entry in fitting):
            part = words[start : start + len(keys)]
            joints = tuple(word.before for word in part[1:])
            same = [entry for entry in fitting if entry.keys == keys]
            known = all(map(self._lexicon.knows, part))
            # As it is said, or as an open vocabulary splits it anyway.
            if known and (self._lexicon.is_open or any(entry.joints == joints for entry in same)):
                return len(keys), None
            replacing = next((entry for entry in same if entry.instead is not None), None)
            if replacing is not None:
                return len(keys), replacing
        return 1, None


def _goes_on(words: Sequence[Word], last: int) -> bool:
    """Whether a phrase that ends with a side is only a part of one: "on the left" of "on the left liver lobe"."""
    after = words[last + 1 : last + 2]
    return words[last].key in SIDES and bool(after) and after[0].before == " " and after[0].key in _LOBES
