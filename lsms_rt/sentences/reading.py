"""How a sentence is read: what the engine takes it to say, and what of it is not understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

# What the two refusals of a sentence begin with.
NOT_UNDERSTOOD, NO_WORD = "the sentence is not understood", "the sentence contains no word that this engine knows"
Understood = Literal["yes", "partly", "no"]
UNKNOWN_WORDS = "words not in this engine's vocabulary"
# Words that a message lists, at most.
LISTED = 8


def listed(words: Sequence[str]) -> str:
    """Return words for a message: all of them, or the first ones and how many more there are."""
    more = len(words) - LISTED
    return ", ".join(words[:LISTED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class Reason:
    """Why a sentence is not, or only partly, understood.

    Attributes:
        kind: "negation", "exception", "question", "side", "position", "segment", "organ", "type", "order", "language",
            "unknown", "no lesion", "number", "several", "broader" or "contradiction".
        text: in words; it holds words of tables, none of the sentence that may be a name.
        refuses: whether the sentence is not understood; else it is partly.
    """

    kind: str
    text: str
    refuses: bool = True


@dataclass(frozen=True)
class UnknownWord:
    """A word that the engine does not know.

    Attributes:
        text: as it is written.
        number: which word of the sentence it is, from 1.
        nearest: the known word that it may be misspelled for; None if none is like it.
        private: whether it may be a name; a word of the table is none.
    """

    text: str = field(repr=False)
    number: int
    nearest: str | None = None
    private: bool = True

    def said(self, names: bool) -> str:
        """Return it for a message: "leison -> lesion?", or its number in the place of a word that may be a name."""
        word = self.text if names or not self.private else f"word {self.number}"
        return word if self.nearest is None else f"{word} -> {self.nearest}?"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A sentence as an engine reads it, before anything is computed.

    Attributes:
        text: the sentence, cleaned.
        read_as: what the tokenizer gets: with known words for unknown ones of the same meaning, and without words that
            the engine does not know.
        understood: "yes"; "partly": it is answered, with a note; "no": it is refused, unless asked for leniently.
        unknown: its words that the engine does not know.
        reasons: why it is not understood, or only partly.
        side: "left", "right", "both" (of different lesions), or None if it names no side.
        tokens: tokens of ``read_as``, the marks at its ends included.
        answerable: whether anything is left to ask.
        ranks: whether it ranks lesions ("the largest"), which the network does within each slice.
    """

    text: str = field(repr=False)
    read_as: str = field(repr=False)
    understood: Understood
    unknown: tuple[UnknownWord, ...] = ()
    reasons: tuple[Reason, ...] = ()
    side: str | None = None
    tokens: int = 0
    answerable: bool = True
    ranks: bool = False

    @property
    def unknown_words(self) -> tuple[str, ...]:
        """The words that the engine does not know, once each."""
        return tuple(dict.fromkeys(word.text for word in self.unknown))

    def notes(self, *, names: bool = False) -> tuple[str, ...]:
        """Return one line per reason, and one for the unknown words.

        Args:
            names: show unknown words, which may be a patient's name; else their numbers.
        """
        said = list(dict.fromkeys(word.said(names) for word in self.unknown))
        unknown = (f"{UNKNOWN_WORDS}: {listed(said)}",) if said else ()
        return (*(reason.text for reason in self.reasons), *unknown)

    def to_dict(self, *, include_text: bool = False) -> dict[str, Any]:
        """Return the fields of results.json, in plain types.

        Args:
            include_text: include ``read_as`` and the unknown words, which may contain a patient's data; without it
                unknown words are only counted.
        """
        words: dict[str, Any] = {"unknown_words": len(self.unknown_words)}
        if include_text:
            words = {"read_as": self.read_as, "unknown_words": list(self.unknown_words)}
        return {"understood": self.understood, **words, "side": self.side}

    def to_record(self) -> dict[str, Any]:
        """Return all of it in plain types, with the sentence's words; :meth:`from_record` reads it."""
        return {
            "text": self.text,
            **self.to_dict(include_text=True),
            "unknown": [asdict(word) for word in self.unknown],
            "reasons": [asdict(reason) for reason in self.reasons],
            "tokens": self.tokens,
            "answerable": self.answerable,
            "ranks": self.ranks,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Reading:
        """Return what :meth:`to_record` wrote.

        Raises:
            KeyError, TypeError: it is of another version.
        """
        names = ("text", "read_as", "understood", "side", "tokens", "answerable", "ranks")
        plain = {name: record[name] for name in names}
        return cls(
            **plain,
            unknown=tuple(UnknownWord(**word) for word in record["unknown"]),
            reasons=tuple(Reason(**reason) for reason in record["reasons"]),
        )
