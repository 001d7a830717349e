"""Tokenize a sentence, and reject sentences that the engine cannot use."""

from __future__ import annotations

import string
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import EngineInvalidError, InputError, brief

BUILD_COMMAND = "lsms-rt build-engine"
CLS, SEP, PAD, UNK = "[CLS]", "[SEP]", "[PAD]", "[UNK]"
FUNCTION_WORDS = {
    "a", "an", "and", "at", "find", "in", "is", "of", "on", "or", "please", "segment", "show", "that",
    "the", "this", "to", "with",
}  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """A tokenized sentence.

    Attributes:
        ids: int64 (1, T).
        mask: float32 (1, T), 1 for a token and 0 for padding.
        unknown_words: words that are not in the vocabulary.
    """

    ids: np.ndarray
    mask: np.ndarray
    unknown_words: tuple[str, ...] = ()


def clean_sentence(text: str) -> str:
    """Normalize a sentence: NFKC, without control characters and repeated spaces; the tokenizer handles case.

    Raises:
        InputError: ``text`` is not a string, or contains no letters or digits.
    """
    if not isinstance(text, str):
        raise InputError(f"the sentence is a {type(text).__name__}, not a string; give one sentence")
    normal = unicodedata.normalize("NFKC", text)
    printable = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in normal)
    if not any(c.isalnum() for c in printable):
        raise InputError('the sentence is empty; describe the lesion, e.g. "the cyst in the left lobe of the liver"')
    return " ".join(printable.split())


def words_of(sentence: str) -> list[str]:
    """Return the distinct words of a sentence, without punctuation around them, in their order."""
    words = dict.fromkeys(word.strip(string.punctuation) for word in sentence.split())
    return [word for word in words if word]


class Tokenizer:
    """Tokenizes sentences to a fixed number of tokens.

    Args:
        data: content of a ``tokenizer.json`` (the format of Hugging Face ``tokenizers``).
        max_tokens: T, the number of tokens.

    Raises:
        EngineInvalidError: ``data`` is not a valid tokenizer file.
    """

    def __init__(self, data: bytes, max_tokens: int) -> None:
        from tokenizers import Tokenizer as Fast

        try:
            self._fast = Fast.from_buffer(data)
        except Exception as error:
            # the library raises bare Exception
            raise EngineInvalidError(
                f"tokenizer.json is not a valid tokenizer file ({brief(error)}); rebuild the engine: {BUILD_COMMAND}"
            ) from error
        self._fast.no_padding()
        self._fast.no_truncation()
        self._pad = self._fast.token_to_id(PAD) or 0
        self.max_tokens = max_tokens
        self.vocab_size: int = self._fast.get_vocab_size()

    def __call__(self, text: str) -> Tokens:
        """Tokenize ``text`` and pad it to ``max_tokens``.

        Raises:
            InputError: the sentence is empty, or too long (it is never truncated silently), or contains only unknown
                words and function words ("the", "in", "show").
        """
        sentence = clean_sentence(text)
        # Before tokenizing: hostile input must not cost time.
        if len(sentence) > 1000:
            raise InputError(f"the sentence has {len(sentence)} characters; give one sentence of at most 1000")
        ids = self._encode(sentence).ids
        if len(ids) > self.max_tokens:
            raise InputError(
                f"the sentence has {len(ids)} tokens and this engine reads at most {self.max_tokens}; shorten it"
            )
        words = words_of(sentence)
        unknown = tuple(word for word in words if self.is_unknown(word))
        if all(word in unknown or word.lower() in FUNCTION_WORDS for word in words):
            raise InputError("the sentence contains no word that this engine knows; describe the lesion in English")
        tokens = np.full((1, self.max_tokens), self._pad, np.int64)
        mask = np.zeros((1, self.max_tokens), np.float32)
        tokens[0, : len(ids)], mask[0, : len(ids)] = ids, 1.0
        return Tokens(tokens, mask, unknown)

    def _encode(self, text: str, special: bool = True) -> Any:
        try:
            return self._fast.encode(text, add_special_tokens=special)
        except Exception as error:
            # bare Exception, e.g. for a vocabulary without [UNK]
            raise EngineInvalidError(
                f"tokenizer.json cannot encode a word ({brief(error)}); rebuild the engine: {BUILD_COMMAND}"
            ) from error

    def is_unknown(self, word: str) -> bool:
        """Whether ``word`` is not in the vocabulary, or can only be spelled letter by letter."""
        pieces = self._encode(word, special=False).tokens
        spelled = len(pieces) > 1 and all(len(piece.removeprefix("##")) == 1 for piece in pieces)
        return UNK in pieces or spelled
