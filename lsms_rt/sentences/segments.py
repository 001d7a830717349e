"""Couinaud's segments and the sections of the liver, read as lobes for an engine that knows lobes only.

Cantlie's line parts the lobes: segments II to IV are left of it, V to VIII right.  The left lateral section is II and
III, the left medial IV, the right anterior V and VIII, the right posterior VI and VII.  Segment I, the caudate lobe, is
in neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .contract import Contract
from .lexicon import Lexicon
from .reading import Reason
from .words import Word, phrase

_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9}
_NUMERAL = re.compile(r"([1-9]|viii|vii|vi|iv|ix|v|iii|ii|i)([ab]?)")
# "S7", "seg4a"
_SHORT = re.compile(r"(?:s|segs?|segments?)([1-9][ab]?)")
_LINKS = {"and", "or", "to"}
_BEFORE = {"liver", "hepatic", "couinaud", "couinauds"}
PREPOSITIONS = {"in", "of", "within", "inside", "from", "at", "on", "to", "involving", "into", "throughout"}
_ARTICLES = {"the", "a", "an", "this", "that", "any"}
_PLURALS = {"foci", "masses", "metastases", "abscesses", "abnormalities"}


class Segments:
    """Reads segments as lobes.

    Args:
        contract: the table.
        lexicon: the words that the engine knows.

    Attributes:
        taught: whether the engine knows segments itself, so that nothing is replaced.
    """

    def __init__(self, contract: Contract, lexicon: Lexicon) -> None:
        self._contract = contract
        self._polite = contract.function | contract.commands
        # An engine that knows their numerals was taught segments.
        self.taught = lexicon.is_open or any(map(lexicon.knows_all, ("ii", "iii", "vii", "viii", "7", "8")))
        self._plurals = {w for w in contract.nouns if w in _PLURALS or w.endswith("s")} - {
            "abscess", "focus", "metastasis", "mass",
        }  # fmt: skip

    def replaced(self, words: Sequence[Word]) -> tuple[list[Word], list[Reason]]:
        """Return the words with lobes in the place of segments, and what that changes."""
        result, reasons = list(words), list[Reason]()
        if self.taught:
            return result, reasons
        start = 0
        while start < len(result):
            end, side, said, problem = self._at(result, start)
            if said:
                reasons.append(_mapped(said, side, problem))
                if side is not None and not problem:
                    place = self._place(result, start, end, side)
                    result[start:end] = place
                    end = start + len(place)
            start = max(end, start + 1)
        return result, reasons

    def _at(self, words: list[Word], start: int) -> tuple[int, str | None, str, str]:
        """Return (end, side, what is said in words of tables, why it cannot be read) of a segment that begins here."""
        first = start
        while first < len(words) and words[first].key in _BEFORE and first - start < 2:
            first += 1
        if first == len(words):
            return start, None, "", ""
        short = _SHORT.fullmatch(words[first].key)
        if short or (words[first].key in self._contract.segment_words and self._numeral(words, first + 1)):
            return self._numbered(words, start, first if short else first + 1)
        # "Couinaud VII"
        if first > start and words[first - 1].key in self._contract.segment_words and self._numeral(words, first):
            return self._numbered(words, start, first)
        section = self._section(words, start)
        if section is not None:
            return section
        if words[start].key in self._contract.segment_words and not self._is_command(words, start):
            return start + 1, None, words[start].key, "which one is not said in words of this engine"
        return start, None, "", ""

    def _numeral(self, words: list[Word], at: int) -> re.Match[str] | None:
        if at >= len(words) or not set(words[at].before) <= set(" -./#"):
            return None
        return _NUMERAL.fullmatch(words[at].key) if not _SHORT.fullmatch(words[at].key) else None

    def _numbered(self, words: list[Word], start: int, at: int) -> tuple[int, str | None, str, str]:
        numbers = [_number(words[at].key)]
        end = at + 1
        while end < len(words):
            linked = end + (words[end].key in _LINKS and end + 1 < len(words))
            word = words[linked]
            if not set(words[end].before) <= set(" ,/-&+") or (linked == end and words[end].before == " "):
                break
            if word.key in ("a", "b") and "/" in word.before:
                end = linked + 1
                continue
            if not (_NUMERAL.fullmatch(word.key) or _SHORT.fullmatch(word.key)):
                break
            numbers.append(_number(word.key))
            end = linked + 1
        sides = {self._contract.segments.get(number) for number in numbers}
        said = f"segment {', '.join(numbers)}"
        if self._is_command(words, start) and words[at].key.isdecimal() and self._counts(words, end):
            return end, None, said, "it may be a segment or a number of lesions; write the numeral in Roman letters"
        if sides == {None}:
            return end, None, said, "it belongs to neither lobe"
        if len(sides) > 1:
            return end, None, said, "they are not in one lobe; ask for each lobe by itself"
        (side,) = sides
        end, other = self._lobe_after(words, end)
        before = self._lobe_before(words, start)
        if {other, before} - {None, side}:
            return end, None, said, f"it is in the {side} lobe, and the sentence names the other one"
        return end, side, said, ""

    def _section(self, words: list[Word], start: int) -> tuple[int, str | None, str, str] | None:
        """Read "left lateral section" or "lateral section of the left lobe"."""
        keys = [word.key for word in words[start : start + 3]]
        sections, parts = self._contract.sections, self._contract.section_words
        if len(keys) == 3 and keys[0] in ("left", "right") and keys[1] in sections and keys[2] in parts:
            wrong = sections[keys[1]] != keys[0]
            problem = f"the {keys[1]} section is in the other lobe" if wrong else ""
            return start + 3, keys[0], " ".join(keys), problem
        if len(keys) >= 2 and keys[0] in sections and keys[1] in parts:
            end, side = self._lobe_after(words, start + 2)
            problem = "" if side == sections[keys[0]] else "its lobe is not said, or is the other one"
            return end, side, " ".join(keys[:2]), problem
        return None

    def _lobe_after(self, words: list[Word], at: int) -> tuple[int, str | None]:
        """Return (end, side) of an "of the left lobe" that begins here."""
        keys = [word.key for word in words[at : at + 5]]
        if keys[:1] != ["of"]:
            return at, None
        rest = keys[1:]
        skipped = 1 + (rest[:1] == ["the"])
        rest = rest[1:] if rest[:1] == ["the"] else rest
        if rest[:1] in (["left"], ["right"]):
            middle = 1 if rest[1:2] in (["hepatic"], ["liver"]) else 0
            if rest[1 + middle : 2 + middle] == ["lobe"]:
                return at + skipped + 2 + middle, rest[0]
        return at, None

    def _lobe_before(self, words: list[Word], at: int) -> str | None:
        """Return the side of a "left lobe" that ends here."""
        keys = [word.key for word in words[max(0, at - 3) : at]]
        if keys[-1:] != ["lobe"]:
            return None
        return next((key for key in reversed(keys) if key in ("left", "right")), None)

    def _place(self, words: list[Word], start: int, end: int, side: str) -> list[Word]:
        """Return the words for a lobe in the place of a segment, as the sentence goes on."""
        if self._lobe_before(words, start):
            return []
        before = [word.key for word in words[max(0, start - 2) : start]]
        if before[-1:] == ["the"] and before[-2:-1] and before[-2] in PREPOSITIONS:
            return phrase(f"{side} lobe", words[start])
        if before and before[-1] in PREPOSITIONS:
            return phrase(f"the {side} lobe", words[start])
        goes_on = end < len(words) and words[end].before == " " and words[end].key not in PREPOSITIONS
        return phrase(f"{side}-lobe" if goes_on else f"in the {side} lobe", words[start])

    def _is_command(self, words: list[Word], at: int) -> bool:
        """Whether "segment" is what to do, and not a part of the liver."""
        named = at > 0 and words[at - 1].key in PREPOSITIONS - {"to"} | _ARTICLES
        return words[at].key == "segment" and not named and all(word.key in self._polite for word in words[:at])

    def _counts(self, words: list[Word], at: int) -> bool:
        for word in words[at:]:
            if word.key in PREPOSITIONS:
                break
            if word.key in self._plurals:
                return True
        return False


def _number(key: str) -> str:
    """Return a segment in Arabic numerals: "iva" -> "4a"."""
    short = _SHORT.fullmatch(key)
    match = _NUMERAL.fullmatch(short[1] if short else key)
    assert match is not None
    return f"{_ROMAN.get(match[1], match[1])}{match[2]}"


def _mapped(said: str, side: str | None, problem: str) -> Reason:
    if problem:
        return Reason("segment", f'"{said}" cannot be read as a lobe: {problem}')
    return Reason("segment", f'this engine knows lobes only: "{said}" is read as the {side} lobe', refuses=False)
