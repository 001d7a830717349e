"""Words that mean the same: one that the engine does not know is replaced by one that it knows."""

from __future__ import annotations

from collections.abc import Sequence

from .contract import SIDES, Contract
from .lexicon import Lexicon
from .words import Word, phrase, split, stands_at

_LOBES = {"lobe", "liver", "hepatic"}


class Synonyms:
    """The groups of a table, ready to be searched for.

    Args:
        contract: the table.
        lexicon: the words that the engine knows.
    """

    def __init__(self, contract: Contract, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        # first word -> (keys, joints, what is said instead if they are not known or joined in another way)
        self._by_first: dict[str, list[tuple[tuple[str, ...], tuple[str, ...], str | None]]] = {}
        for rows in contract.groups.values():
            for row in rows:
                known = next((text for text in row if lexicon.knows_all(text)), None)
                for text in row:
                    self._add(text, text if lexicon.knows_all(text) else known)
        for found in self._by_first.values():
            found.sort(key=lambda entry: -len(entry[0]))

    def _add(self, text: str, instead: str | None) -> None:
        words, _ = split(text)
        keys, joints = tuple(word.key for word in words), tuple(word.before for word in words[1:])
        self._by_first.setdefault(keys[0], []).append((keys, joints, instead))

    def replaced(self, words: Sequence[Word]) -> list[Word]:
        """Return the words, with known ones for unknown ones that mean the same."""
        result: list[Word] = []
        start = 0
        while start < len(words):
            length, said = self._at(words, start)
            result += words[start : start + length] if said is None else phrase(said, words[start])
            start += length
        return result

    def _at(self, words: Sequence[Word], start: int) -> tuple[int, str | None]:
        """Return how many words the longest phrase at ``start`` has, and what is said instead; None: as it is."""
        fitting = [e for e in self._by_first.get(words[start].key, ()) if stands_at(words, start, e[0])]
        fitting = [entry for entry in fitting if not _goes_on(words, start + len(entry[0]) - 1)]
        for keys, _, _ in fitting:
            part = words[start : start + len(keys)]
            joints = tuple(word.before for word in part[1:])
            same = [entry for entry in fitting if entry[0] == keys]
            known = all(map(self._lexicon.knows, part))
            # As it is said, or as an open vocabulary splits it anyway.
            if known and (self._lexicon.is_open or any(entry[1] == joints for entry in same)):
                return len(keys), None
            instead = next((entry[2] for entry in same if entry[2] is not None), None)
            if instead is not None:
                return len(keys), instead
        return 1, None


def _goes_on(words: Sequence[Word], last: int) -> bool:
    """Whether a phrase that ends with a side is only a part of one: "on the left" of "on the left liver lobe"."""
    after = words[last + 1 : last + 2]
    return words[last].key in SIDES and bool(after) and after[0].before == " " and after[0].key in _LOBES
