"""Read a sentence before anything is computed: what an engine takes it to say, and whether it understands it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lsms_rt.errors import SentenceNotUnderstoodError
from lsms_rt.privacy import names_shown
from lsms_rt.tokenizer import Tokenizer, Tokens, clean_sentence

from .asides import without_asides
from .contract import TABLE, Contract, contract_of, default_contract
from .language import other_language
from .lexicon import MAX_LOOKED_UP, Lexicon
from .meaning import meaning
from .numbers import is_number, measured
from .pointers import pointers
from .reading import NO_WORD, NOT_UNDERSTOOD, Reading, Reason, Understood, UnknownWord
from .refusals import refusals, signs
from .segments import Segments
from .sides import side_of, side_problems
from .structure import lost_meaning, unneeded_places
from .synonyms import Synonyms
from .words import Word, joined, places_of, split, without_gaps

if TYPE_CHECKING:
    from lsms_rt.engine.manifest import EngineDirectory

# Of the words of a sentence, at most, that may be unknown.
MAX_UNKNOWN = 1 / 3
FIX = (
    'see lsms-rt words ENGINE for what may be said, or add --lenient (in Python on_unknown="warn") to ask all the same'
)


class Reader:
    """Reads sentences for one engine.

    Args:
        tokenizer: of the engine.
        contract: its table of words; None for the package's own.
    """

    def __init__(self, tokenizer: Tokenizer, contract: Contract | None = None) -> None:
        self.tokenizer = tokenizer
        self.contract = default_contract() if contract is None else contract
        self.lexicon = Lexicon(tokenizer, self.contract)
        self._synonyms = Synonyms(self.contract, self.lexicon)
        self._segments = Segments(self.contract, self.lexicon)

    @property
    def knows_segments(self) -> bool:
        """Whether the engine was taught segments of the liver, so that they are not read as lobes."""
        return self._segments.taught

    def asked(self, text: str, *, refuses: bool) -> tuple[Reading, Tokens]:
        """Read a sentence that is to be answered; return how it is read, and its tokens.

        Args:
            text: the sentence.
            refuses: raise SentenceNotUnderstoodError for a sentence that is not understood.

        Raises:
            SentenceNotUnderstoodError: see ``refuses``; or nothing of the sentence is left to ask.
            InputError: as for ``read``; or it has more tokens than the engine reads.
        """
        reading = self.read(text)
        refuse_unanswerable(reading)
        if refuses:
            refuse(reading)
        return reading, self.tokenizer(reading.read_as)

    def read(self, text: str) -> Reading:
        """Read a sentence.

        Args:
            text: the sentence.

        Returns:
            How it is read; a sentence that is not understood is no error here.

        Raises:
            InputError: ``text`` is not a string, is empty, or is far too long.
        """
        sentence = clean_sentence(text)
        said, end = split(sentence)
        named, reasons = self._segments.replaced(without_asides(said, self.contract))
        reasons += signs(sentence)
        # Before "on the left" becomes a lobe, whatever it is the left of.
        reasons += side_problems(named, self.contract, self.lexicon.is_open)
        # An open vocabulary knows other words than the table's, and was trained with the mark of an unknown one.
        words, broader = (named, []) if self.lexicon.is_open else self._synonyms.replaced(named)
        reasons += broader
        dropped = [word for word in words if not self.lexicon.knows(word)]
        reasons += self._reasons(words, dropped)
        left = list(words) if self.lexicon.is_open else self._left(words)
        read_as = joined(said, end) if self.lexicon.is_open or left == said else without_gaps(words, left)
        content = [word for word in left if word not in dropped and not self._is_small(word)]
        return Reading(
            text=sentence,
            read_as=read_as,
            understood=_verdict(reasons, dropped, self._is_small),
            unknown=self._unknown([word for word in dropped if not self._is_small(word)]),
            reasons=tuple(dict.fromkeys(reasons)),
            side=side_of(left),
            tokens=self.tokenizer.count(read_as) if read_as else 0,
            answerable=any(word.key not in self.contract.commands for word in content),
            ranks=bool(places_of(left, self.contract.orders)),
        )

    def _reasons(self, words: Sequence[Word], dropped: Sequence[Word]) -> list[Reason]:
        language = other_language(words, self.contract, self.lexicon)
        if language:
            return language
        reasons = refusals(words, self.contract, self.lexicon)
        reasons += side_problems(words, self.contract, self.lexicon.is_open)
        if not any(reason.refuses for reason in reasons):
            reasons += pointers(words, self.contract, self.lexicon) or lost_meaning(words, self.contract, self.lexicon)
        unneeded = unneeded_places(words, self.contract, self.lexicon)
        counted = [word for at, word in enumerate(words) if at not in unneeded]
        unknown = [word for word in counted if word in dropped and not self._is_small(word)]
        if len(unknown) > MAX_UNKNOWN * len(counted) and not reasons:
            reasons.append(Reason("unknown", f"{len(unknown)} of its {len(counted)} words are not known"))
        if any(reason.kind in ("organ", "type", "unknown") for reason in reasons):
            # It names something, which is told already.
            return reasons
        return reasons + meaning(words, self.contract, self.lexicon)

    def _left(self, words: Sequence[Word]) -> list[Word]:
        """Return the words that are known, but those of measures: "most" of "at most 2 cm"."""
        places = measured(words, self.contract, self.lexicon)
        return [word for at, word in enumerate(words) if self.lexicon.knows(word) and at not in places]

    def _is_small(self, word: Word) -> bool:
        """Whether nothing changes if a word is left out."""
        return word.key in self.contract.function or word.key in self.contract.context

    def _unknown(self, words: Sequence[Word]) -> tuple[UnknownWord, ...]:
        refused = self.contract.refused
        asked = [word.key for word in words if word.key not in refused and not is_number(word, self.contract)]
        looked_up = {key: self.lexicon.nearest(key) for key in asked[:MAX_LOOKED_UP]}
        return tuple(
            UnknownWord(word.text, word.number, looked_up.get(word.key), word.key not in refused) for word in words
        )


def open_reader(directory: EngineDirectory) -> Reader:
    """Return the reader of an engine: with its own table, or the package's if it was built without one.

    Raises:
        EngineError: a file is missing, changed or malformed.
    """
    manifest = directory.manifest
    tokenizer = Tokenizer(directory.read("tokenizer.json"), manifest.max_tokens)
    return Reader(tokenizer, contract_of(directory.read(TABLE)) if TABLE in manifest.files else None)


def refuse(reading: Reading, fix: str = FIX) -> None:
    """Raise SentenceNotUnderstoodError, which says the ``fix``, for a sentence that is not understood."""
    if reading.understood != "no":
        return
    why = "; ".join(reading.notes(names=names_shown()))
    raise SentenceNotUnderstoodError(f"{NOT_UNDERSTOOD}: {why}; {fix}", reading)


def refuse_unanswerable(reading: Reading, words: str = "lsms-rt words ENGINE") -> None:
    """Raise SentenceNotUnderstoodError for a sentence of which nothing is left to ask; ``words`` lists what may be."""
    if not reading.answerable:
        notes = "".join(f"; {note}" for note in reading.notes(names=names_shown()))
        message = f"{NO_WORD}{notes}; {words} lists them"
        raise SentenceNotUnderstoodError(message, reading)


def _verdict(reasons: Sequence[Reason], dropped: Sequence[Word], is_small: Callable[[Word], bool]) -> Understood:
    if any(reason.refuses for reason in reasons):
        return "no"
    return "partly" if reasons or not all(map(is_small, dropped)) else "yes"
