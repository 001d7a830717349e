"""What an engine can be told: the table of words beside its tokenizer, or the package's own for engines without one."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

from lsms_rt.errors import EngineFormatError, EngineInvalidError

from .words import key_of, keys_of, split

# Name of the table, in an engine and in a checkpoint.
TABLE = "sentences.json"
FORMAT = 1
_DEFAULT = Path(__file__).with_name("english.json")
# A word or phrase of a table; messages repeat them.
_PHRASE = re.compile(r"[^\W_][\w '/-]{0,59}")
_MAX_PHRASES = 200_000
SIDES = ("left", "right")

# First word -> the phrases that begin with it, as words in lower case.
Phrases = dict[str, tuple[tuple[str, ...], ...]]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """A table of words, in lower case.

    Attributes:
        language: the language that the engine was taught, in English.
        groups: category -> groups of words that mean the same; one that the engine does not know is read as the first
            of its group that it knows, which under "broader" is a broader term.
        function: words that change nothing if they are left out.
        context: words about the examination, not about a lesion; left out, too.
        harmless: words and phrases that do not say which lesion is meant; they may be left out wherever they stand.
        relating: small words that relate a lesion to another one where they stand between two.
        distance: what a measure of a distance stands before.
        numbered: what a number stands behind that says which lesion or slice is meant.
        headings: of a report's parts; left out before a colon.
        asides: phrases that are left out whole, though the engine may know a word of them: "too small to characterize".
        always: what no mask can answer, "negation", "exception" and "question", whatever the engine's vocabulary.
        lost: what would be lost, and a wrong lesion found, if the engine does not know it: "side", "position", "organ",
            "type", "order".
        not_negation: phrases with a word of negation that negate nothing.
        negation_prefixes: what turns a word into its opposite.
        numbers: words of number.
        units: words of measure.
        segment_words: names of a segment of the liver.
        segments: Couinaud segment, e.g. "4a" -> "left" or "right".
        sections: adjective of a section of the liver -> the side it belongs to.
        section_words: names of a section.
        foreign: language -> words of it that are none of this one's.
        taught: words that the vocabulary does not hold and the network was trained with all the same.
    """

    language: str
    groups: dict[str, tuple[tuple[str, ...], ...]]
    function: frozenset[str]
    context: frozenset[str]
    harmless: Phrases
    relating: frozenset[str]
    distance: frozenset[str]
    numbered: frozenset[str]
    headings: frozenset[str]
    asides: Phrases
    always: dict[str, Phrases]
    lost: dict[str, Phrases]
    not_negation: Phrases
    negation_prefixes: tuple[str, ...]
    numbers: frozenset[str]
    units: frozenset[str]
    segment_words: frozenset[str]
    segments: dict[str, str]
    sections: dict[str, str]
    section_words: frozenset[str]
    foreign: dict[str, frozenset[str]]
    taught: frozenset[str] = field(default=frozenset(), repr=False)

    @cached_property
    def nouns(self) -> frozenset[str]:
        """Words that name a lesion."""
        return self._last_words("lesion", "type", "broader")

    @cached_property
    def looks(self) -> frozenset[str]:
        """Words that describe a lesion."""
        return self._last_words("density", "enhancement", "size", "order", "nature")

    @cached_property
    def indifferent(self) -> frozenset[str]:
        """Words of which a misspelled one may be left out: those of any lesion, and single ones of places."""
        places = {keys_of(text) for row in self.groups.get("place", ()) for text in row}
        return self._any_lesion | {keys[0] for keys in places if len(keys) == 1}

    @cached_property
    def distinguishing(self) -> frozenset[str]:
        """Words that say of which kind a lesion is: without one of them, another lesion may be meant."""
        kinds = self._last_words("lesion", "type", "broader", "nature", "density", "enhancement", "size")
        return kinds - self._any_lesion

    @cached_property
    def _any_lesion(self) -> frozenset[str]:
        # but of rows like "hypodense lesion", "hypodensity", "dark area"
        rows = [row for row in self.groups.get("lesion", ()) if len(keys_of(row[0])) == 1]
        return frozenset(keys_of(text)[-1] for row in rows for text in row)

    @cached_property
    def places(self) -> frozenset[str]:
        """Words that name a part of the body."""
        return self._last_words("place") | self.organs | frozenset(SIDES)

    @cached_property
    def organs(self) -> frozenset[str]:
        """Words that name an organ, the last ones of phrases."""
        return frozenset(keys[-1] for phrases in self.lost["organ"].values() for keys in phrases)

    @cached_property
    def refused(self) -> frozenset[str]:
        """Every word of ``always`` and ``lost``."""
        books = (*self.always.values(), *self.lost.values())
        return frozenset(key for phrases in books for found in phrases.values() for keys in found for key in keys)

    @cached_property
    def commands(self) -> frozenset[str]:
        """Words that say what to do."""
        return self._last_words("command")

    @cached_property
    def named(self) -> frozenset[str]:
        """Every word of ``groups``."""
        return frozenset(key for rows in self.groups.values() for row in rows for text in row for key in keys_of(text))

    @cached_property
    def relations(self) -> Phrases:
        """Phrases that relate a lesion to another one."""
        return phrases_of([text for row in self.groups.get("relation", ()) for text in row])

    @cached_property
    def orders(self) -> Phrases:
        """Phrases that rank lesions."""
        return phrases_of([text for row in self.groups.get("order", ()) for text in row])

    @cached_property
    def ranks(self) -> frozenset[str]:
        """Words that rank lesions, the last ones of phrases."""
        return self._last_words("order")

    @cached_property
    def densities(self) -> tuple[Phrases, ...]:
        """Phrases of one density each."""
        return tuple(map(phrases_of, self.groups.get("density", ())))

    def _last_words(self, *categories: str) -> frozenset[str]:
        rows = [row for category in categories for row in self.groups.get(category, ())]
        return frozenset(keys_of(text)[-1] for row in rows for text in row) - self.function


def default_table() -> dict[str, Any]:
    """Return the package's own table, as it stands in a file."""
    table: dict[str, Any] = json.loads(_DEFAULT.read_text(encoding="utf-8"))
    return table


@cache
def default_contract() -> Contract:
    """Return the package's own table: for engines that were built without one."""
    return _parsed(default_table())


@lru_cache(maxsize=4)
def contract_of(data: bytes) -> Contract:
    """Return the table of an engine or a checkpoint.

    Args:
        data: content of its ``sentences.json``.

    Raises:
        EngineFormatError: it was written by a newer lsms-rt.
        EngineInvalidError: it is malformed.
    """
    try:
        table = json.loads(data)
        if table["format"] > FORMAT:
            raise EngineFormatError(
                f"{TABLE} has a newer format than {FORMAT}, which this lsms-rt reads; pip install --upgrade lsms-rt"
            )
        return _parsed(table)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineInvalidError(
            f"{TABLE} is not a valid table of words ({type(error).__name__}); build the engine again, or restore it"
        ) from error


def table_of(checkpoint: Path) -> bytes:
    """Return the content of a checkpoint's table, as it is copied into engines; the package's own if it has none.

    Raises:
        EngineFormatError, EngineInvalidError: as for ``contract_of``.
    """
    file = checkpoint / TABLE
    if not file.is_file():
        return _DEFAULT.read_bytes()
    data = file.read_bytes()
    contract_of(data)
    return data


def taught_table(sentences: Iterable[str], is_unknown: Callable[[str], bool], begun_with: bytes | None = None) -> str:
    """Return a table with the words that a network learned though its vocabulary does not hold them.

    A word of one sentence alone is taken for a slip, or a name.

    Args:
        sentences: that it was trained with.
        is_unknown: whether the vocabulary does not hold a word.
        begun_with: the table of the checkpoint that the training began with; None for the package's own.
    """
    table = default_table() if begun_with is None else json.loads(begun_with)
    words = Counter(word for text in set(sentences) for word in {(w.key, w.text) for w in split(text)[0]})
    taught = {key for (key, text), count in words.items() if count > 1 and (len(text) == 1 or is_unknown(text))}
    taught |= set(table.get("taught", ()))
    return json.dumps(table | {"taught": sorted(filter(_PHRASE.fullmatch, taught))}, indent=1) + "\n"


# Lists that tables of before do not have: the package's own are taken.
LATER = ("relating", "distance", "numbered", "asides")


def _parsed(table: dict[str, Any]) -> Contract:
    table = {name: default_table()[name] for name in LATER if name not in table} | table
    _check({name: value for name, value in table.items() if name != "format"})
    segments = table["segments"]
    values: dict[str, Any] = {
        "language": table["language"],
        "groups": {
            category: tuple(tuple(_texts(row)) for row in _texts(rows)) for category, rows in table["groups"].items()
        },
        "always": {name: phrases_of(_texts(table["always"][name])) for name in ("negation", "exception", "question")},
        "lost": {
            name: phrases_of(_texts(table["lost"][name])) for name in ("side", "position", "organ", "type", "order")
        },
        "harmless": phrases_of(_texts(table["harmless"])),
        "asides": phrases_of(_texts(table["asides"])),
        "not_negation": phrases_of(_texts(table["not_negation"])),
        "negation_prefixes": tuple(_texts(table["negation_prefixes"])),
        "segment_words": _words(segments["words"]),
        "segments": _by_side(segments["numbers"]),
        "sections": _by_side(segments["sections"]),
        "section_words": _words(segments["section_words"]),
        "foreign": {name: _words(words) for name, words in table["foreign"].items()},
        "taught": _words(table.get("taught", [])),
    }
    flat: dict[str, Any] = {f.name: _words(table[f.name]) for f in fields(Contract) if f.name not in values}
    return Contract(**values, **flat)


def phrases_of(texts: Iterable[str]) -> Phrases:
    """Return phrases by their first words."""
    found: dict[str, tuple[tuple[str, ...], ...]] = {}
    for keys in map(keys_of, texts):
        found[keys[0]] = (*found.get(keys[0], ()), keys)
    return found


def _texts(values: Any) -> list[Any]:
    """Return a list as it is; TypeError for anything else, such as a text, whose letters would be taken for words."""
    if not isinstance(values, list):
        raise TypeError("no list")
    return values


def _words(values: Any) -> frozenset[str]:
    return frozenset(map(key_of, _texts(values)))


def _by_side(sides: Mapping[str, list[str]]) -> dict[str, str]:
    return {word: side for side in SIDES for word in _texts(sides.get(side, []))}


def _check(table: Any) -> None:
    """Raise ValueError unless a table holds words and short phrases only, in lists and records, and not too many."""
    left = _MAX_PHRASES
    todo: list[tuple[Any, int]] = [(table, 0)]
    while todo:
        item, depth = todo.pop()
        left -= 1
        if left < 0 or depth > 4:
            raise ValueError("too much")
        if isinstance(item, str):
            if not _PHRASE.fullmatch(item):
                raise ValueError("no phrase")
        elif isinstance(item, dict):
            todo += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            todo += [(part, depth + 1) for part in item]
        else:
            raise TypeError("no text")
