"""A sentence as words, each with what stands before it, so that a sentence in which nothing changes stays as it is."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

# Numbers with a decimal point or comma, then runs of letters and digits with apostrophes inside.
_WORD = re.compile(r"\d+(?:[.,]\d+)+[^\W_]*|[^\W_]+(?:'[^\W_]+)*")
# What may stand between the words of one phrase: "low-density", "w/o".
_JOINTS = {" ", "-", "/", " - "}
# Dashes and apostrophes that a keyboard, a word processor or a report system writes for one of ASCII.
_ASCII = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63", "-") | dict.fromkeys(
    "\u2018\u2019\u02bc\u00b4`", "'"
))  # fmt: skip


@dataclass(frozen=True)
class Word:
    """One word of a sentence.

    Attributes:
        text: as it is written.
        key: in lower case, without accents and apostrophes; what tables are searched for.
        before: what stands between it and the word before: spaces, hyphens, punctuation.
        number: which word of the sentence it is, counted from 1 by spaces; 0 for a word that was not said.
    """

    text: str
    key: str
    before: str
    number: int = 0


def key_of(text: str) -> str:
    """Return a word in lower case, without accents and apostrophes."""
    parts = unicodedata.normalize("NFD", text.casefold())
    return "".join(c for c in parts if not unicodedata.combining(c)).replace("'", "")


def split(sentence: str) -> tuple[list[Word], str]:
    """Return the words of a cleaned sentence, and what stands after the last one."""
    sentence = sentence.translate(_ASCII)
    words: list[Word] = []
    end = number = 0
    for match in _WORD.finditer(sentence):
        before = sentence[end : match.start()]
        number += not words or " " in before
        words.append(Word(match[0], key_of(match[0]), before, number))
        end = match.end()
    return words, sentence[end:]


def joined(words: Sequence[Word], end: str = "") -> str:
    """Return words as one text, without a space at its beginning or two in a row."""
    return " ".join(("".join(word.before + word.text for word in words) + end).split())


def without_gaps(words: Sequence[Word], left: Sequence[Word]) -> str:
    """Return the words that are ``left`` of some as one text, without punctuation, which would stand alone."""
    text, last = "", -2
    for at, word in enumerate(words):
        if word in left:
            text += ("-" if word.before == "-" and last == at - 1 else " ") + word.text
            last = at
    return text.strip()


def phrase(text: str, first: Word) -> list[Word]:
    """Return the words of ``text`` to be said in the place of ``first``."""
    words, _ = split(text)
    return [replace(words[0], before=first.before, number=0), *(replace(word, number=0) for word in words[1:])]


@lru_cache(8192)
def words_of(text: str) -> tuple[Word, ...]:
    """Return the words of a phrase of a table, which many engines share; never of a sentence, which is not kept."""
    return tuple(split(text)[0])


def keys_of(text: str) -> tuple[str, ...]:
    """Return the keys of the words of a phrase of a table."""
    return tuple(word.key for word in words_of(text))


def stands_at(words: Sequence[Word], start: int, keys: Sequence[str]) -> bool:
    """Whether a phrase begins at ``start``, with nothing but spaces and hyphens between its words."""
    part = words[start : start + len(keys)]
    return [word.key for word in part] == list(keys) and all(word.before in _JOINTS for word in part[1:])


def places_of(words: Sequence[Word], phrases: Mapping[str, Sequence[Sequence[str]]]) -> set[int]:
    """Return where words stand that belong to one of the phrases, which are given by their first words."""
    found: set[int] = set()
    for start, word in enumerate(words):
        for keys in phrases.get(word.key, ()):
            if stands_at(words, start, keys):
                found.update(range(start, start + len(keys)))
    return found
