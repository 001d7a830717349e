"""Sentences that an engine has read and encoded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from .engine import Backend, SentenceFeatures
from .engine.process import Home
from .sentences import Reader, Reading
from .tokenizer import clean_sentence

# A sentence's features are about half a megabyte (tiny) to two (large).
CACHED_SENTENCES = 64


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoded:
    """A sentence, computed once and used for every slice.

    Attributes:
        text: the sentence as it was given.
        reading: how the engine reads it.
        features: its features.
    """

    text: str
    reading: Reading
    features: SentenceFeatures


class EncodedSentences:
    """Reads and encodes sentences, and keeps the last ``CACHED_SENTENCES``; safe to use from several threads.

    Args:
        backend: encodes them.
        reader: reads them.
        refuses: raise SentenceNotUnderstoodError for a sentence that is not understood.
        home: the process that opened the engine.
    """

    def __init__(self, backend: Backend, reader: Reader, *, refuses: bool, home: Home) -> None:
        self._backend, self._reader, self._refuses, self._home = backend, reader, refuses, home
        self._kept: OrderedDict[str, tuple[Reading, SentenceFeatures]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str) -> Encoded:
        """Return a sentence, read and encoded; errors as for ``Segmenter.prepare_sentence``."""
        # First: in another process the lock may be held by a thread that is not there.
        self._home.check()
        key = clean_sentence(text)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if found is None:
            found = self._encode(key)
            with self._lock:
                self._kept[key] = found
                while len(self._kept) > CACHED_SENTENCES:
                    self._kept.popitem(last=False)
        return Encoded(text=text, reading=found[0], features=found[1])

    def _encode(self, sentence: str) -> tuple[Reading, SentenceFeatures]:
        reading, tokens = self._reader.asked(sentence, refuses=self._refuses)
        return reading, self._backend.encode_text(tokens.ids, tokens.mask)


def joined(sentences: Sequence[Encoded]) -> SentenceFeatures:
    """Return the features of several sentences, one row each, as one input of the image graph."""
    parts = [sentence.features for sentence in sentences]
    return parts[0] if len(parts) == 1 else type(parts[0]).joined(parts)
