"""Couinaud's segments and the sections of the liver, read as lobes for an engine that knows lobes only.

Cantlie's line parts the lobes: segments II to IV are left of it, V to VIII right.  The left lateral section is II and
III, the left medial IV, the right anterior V and VIII, the right posterior VI and VII.  Segment I, the caudate lobe, is
in neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .contract import Contract
from .lexicon import Lexicon
from .numbers import NO_UNITS
from .reading import Reason
from .words import Word, phrase

_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6, "vii": 7, "viii": 8, "ix": 9}
_NAMES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CARDINALS = dict(zip(_NAMES, range(1, 10), strict=True))
_NUMERAL = re.compile(rf"([1-9]|viii|vii|vi|iv|ix|v|iii|ii|i|{'|'.join(CARDINALS)})([ab]?)")
# What counts lesions, too.
_COUNTS = {*map(str, range(1, 10)), *CARDINALS}
# "S7", "seg4a", "segmentVII"
_SHORT = re.compile(r"(?:s(?=\d)|segs?|segments?)((?:[1-9]|viii|vii|vi|iv|ix|v|iii|ii|i)[ab]?)")
_OF_LOBE = re.compile(r"of (?:the )?(left|right) (?:hepatic |liver )?lobe\b")
_LINKS = {"and", "or", "to", "through", "thru", "plus"}
_BEFORE = {"liver", "hepatic", "couinaud", "couinauds"}
PREPOSITIONS = {"in", "of", "within", "inside", "from", "at", "on", "to", "involving", "into", "throughout"}
_ARTICLES = {"the", "a", "an", "this", "that", "any"}
_PLURALS = {"foci", "masses", "metastases", "abscesses", "abnormalities"}


@dataclass(frozen=True)
class _Found:
    """Words that name segments: where they end, the lobe they are read as, and why they cannot be."""

    end: int
    said: str
    side: str | None = None
    problem: str = ""

    def reason(self) -> Reason:
        if self.problem:
            return Reason("segment", f'"{self.said}" cannot be read as a lobe: {self.problem}')
        text = f'this engine knows lobes only: "{self.said}" is read as the {self.side} lobe'
        return Reason("segment", text, refuses=False)


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
        self._knows_lobes = lexicon.knows_all("left right lobe")
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
            found = self._at(result, start)
            if found is None:
                start += 1
                continue
            if not (found.problem or self._knows_lobes):
                found = replace(found, problem="this engine knows no lobes either")
            reasons.append(found.reason())
            if found.side is None or found.problem:
                start = found.end
                continue
            place = self._place(result, start, found.end, found.side)
            result[start : found.end] = place
            start += len(place)
        known = not any(reason.refuses for reason in reasons)
        if known and any(map(self._is_left_over, result, [*result[1:], None])):
            reasons.append(
                Reason("segment", "a Roman numeral is not read as a segment; name segments one after another")
            )
        return result, reasons

    def _is_left_over(self, word: Word, after: Word | None) -> bool:
        """Whether a word may be a segment's numeral that was not read: not "I", and not "IV contrast"."""
        numeral = word.text.isupper() and word.key in _ROMAN and word.key != "i" and word.number > 0
        return numeral and not (after is not None and after.key in self._contract.context)

    def _at(self, words: list[Word], start: int) -> _Found | None:
        """Return the segments that are named from here on; None if none is."""
        first = start
        while first < len(words) and words[first].key in _BEFORE and first - start < 2:
            first += 1
        if first == len(words):
            return None
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
            return _Found(start + 1, words[start].key, problem="which one is not said in words of this engine")
        return None

    def _numeral(self, words: list[Word], at: int) -> re.Match[str] | None:
        if at >= len(words) or not set(words[at].before) <= set(" -./#"):
            return None
        if self._is_measure(words, at):
            return None
        return _NUMERAL.fullmatch(words[at].key) if not _SHORT.fullmatch(words[at].key) else None

    def _is_measure(self, words: list[Word], at: int) -> bool:
        """Whether a number is one of a measure: "2 cm", "2 x 3 cm"; "segment" before it is a command then."""
        after = words[at + 1 : at + 2]
        return (
            words[at].key.isdecimal()
            and bool(after)
            and after[0].before in (" ", "-")
            and after[0].key in self._contract.units - NO_UNITS
        )

    def _numbered(self, words: list[Word], start: int, at: int) -> _Found:
        numbers = [_number(words[at].key)]
        end = at + 1
        while end < len(words):
            linked = end
            while words[linked].key in _LINKS and linked + 1 < len(words):
                linked += 1
            word = words[linked]
            if not set(words[end].before) <= set(" ,/-&+") or (linked == end and words[end].before == " "):
                break
            if word.key in ("a", "b") and "/" in word.before:
                end = linked + 1
                continue
            is_one = _NUMERAL.fullmatch(word.key) or _SHORT.fullmatch(word.key)
            if not is_one or self._is_measure(words, linked):
                break
            numbers.append(_number(word.key))
            end = linked + 1
        sides = {self._contract.segments.get(number) for number in numbers}
        said = f"segment {', '.join(numbers)}"
        if self._is_command(words, start) and words[at].key in _COUNTS and self._counts(words, end):
            problem = "it may be a segment or a number of lesions; write the numeral in Roman letters"
            return _Found(end, said, problem=problem)
        if sides == {None}:
            return _Found(end, said, problem="it belongs to neither lobe")
        if len(sides) > 1:
            return _Found(end, said, problem="they are not in one lobe; ask for each lobe by itself")
        (side,) = sides
        end, other = self._lobe_after(words, end)
        before = self._lobe_before(words, start)
        if {other, before} - {None, side}:
            return _Found(end, said, problem=f"it is in the {side} lobe, and the sentence names the other one")
        return _Found(end, said, side)

    def _section(self, words: list[Word], start: int) -> _Found | None:
        """Read "left lateral section" or "lateral section of the left lobe"."""
        keys = [word.key for word in words[start : start + 3]]
        sections, parts = self._contract.sections, self._contract.section_words
        if len(keys) == 3 and keys[0] in ("left", "right") and keys[1] in sections and keys[2] in parts:
            wrong = sections[keys[1]] != keys[0]
            problem = f"the {keys[1]} section is in the other lobe" if wrong else ""
            return _Found(start + 3, " ".join(keys), keys[0], problem)
        if len(keys) >= 2 and keys[0] in sections and keys[1] in parts:
            end, side = self._lobe_after(words, start + 2)
            problem = "" if side == sections[keys[0]] else "its lobe is not said, or is the other one"
            return _Found(end, " ".join(keys[:2]), side, problem)
        return None

    def _lobe_after(self, words: list[Word], at: int) -> tuple[int, str | None]:
        """Return (end, side) of an "of the left lobe" that begins here."""
        match = _OF_LOBE.match(" ".join(word.key for word in words[at : at + 5]))
        return (at, None) if match is None else (at + len(match[0].split()), match[1])

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
        described = self._contract.nouns | self._contract.looks
        goes_on = end < len(words) and words[end].before == " " and words[end].key in described
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
    return f"{(_ROMAN | CARDINALS).get(match[1], match[1])}{match[2]}"
