"""Tokenize a sentence, and reject sentences that the engine cannot use."""

from __future__ import annotations

import json
import string
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .digest import sha256
from .errors import EngineInvalidError, InputError, brief

BUILD_COMMAND = "lsms-rt build-engine"
CLS, SEP, PAD, UNK = "[CLS]", "[SEP]", "[PAD]", "[UNK]"
# Of a sentence, and as it is given: with spaces and characters that a normalization drops or joins.
MAX_CHARACTERS, MAX_GIVEN_CHARACTERS = 1000, 4000
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

    Invisible characters inside of a word, such as a soft hyphen, are left out.

    Raises:
        InputError: ``text`` is not a string, is far too long, or contains no letters or digits.
    """
    if not isinstance(text, str):
        raise InputError(f"the sentence is a {type(text).__name__}, not a string; give one sentence")
    # Before anything else: normalizing takes time that grows with the square of the length.
    if len(text) > MAX_GIVEN_CHARACTERS:
        raise InputError(f"the sentence has {len(text)} characters; give one sentence of at most {MAX_CHARACTERS}")
    normal = unicodedata.normalize("NFKC", text)
    visible = "".join(c for c in normal if unicodedata.category(c) != "Cf")
    printable = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in visible)
    sentence = " ".join(printable.split())
    if not any(c.isalnum() for c in sentence):
        raise InputError('the sentence is empty; describe the lesion, e.g. "the cyst in the left lobe of the liver"')
    # Before tokenizing, too: hostile input must not cost time.
    if len(sentence) > MAX_CHARACTERS:
        raise InputError(f"the sentence has {len(sentence)} characters; give one sentence of at most {MAX_CHARACTERS}")
    return sentence


def words_of(sentence: str) -> list[str]:
    """Return the distinct words of a sentence, without punctuation around them, in their order."""
    words = dict.fromkeys(word.strip(string.punctuation) for word in sentence.split())
    return [word for word in words if word]


def check_count(tokens: int, limit: int) -> None:
    """Raise InputError for a sentence of more tokens than an engine reads."""
    if tokens > limit:
        raise InputError(f"the sentence has {tokens} tokens and this engine reads at most {limit}; shorten it")


# Normalizers and splitters that a tokenizer file may use -> their options.  None of them takes a regular expression:
# one from a file may take hours for a sentence.
_PARTS: dict[str, tuple[str, ...]] = {
    "BertNormalizer": ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"),
    **dict.fromkeys(("Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "StripAccents"), ()),
    "Strip": ("strip_left", "strip_right"),
    **dict.fromkeys(("BertPreTokenizer", "Whitespace", "WhitespaceSplit"), ()),
    "Punctuation": ("behavior",),
    "Digits": ("individual_digits",),
    "ByteLevel": ("add_prefix_space", "trim_offsets", "use_regex"),
    "Metaspace": ("replacement", "add_prefix_space", "prepend_scheme", "split"),
}
# Sequences of them, one inside the other at most; and parts of a file in all.
_SEQUENCES, _MAX_NESTED, _MAX_PARTS = ("normalizers", "pretokenizers"), 4, 32
_MODELS, _MAX_ENTRIES = ("WordPiece", "WordLevel", "BPE", "Unigram"), 10**6
# What puts [CLS] and [SEP] around a sentence, and pieces of a template.
_PROCESSORS, _MAX_PIECES = ("BertProcessing", "RobertaProcessing", "TemplateProcessing"), 16


def _known_parts(values: Any) -> dict[str, Any]:
    """Return a tokenizer file reduced to what is used here and known to be harmless; ValueError for anything else."""
    if not isinstance(values, dict):
        raise ValueError("no object")
    # Not used: a sentence is neither cut nor padded by the library, nor made of tokens.
    unused = dict.fromkeys(("truncation", "padding", "decoder"))
    kept = {name: values[name] for name in ("version", "added_tokens") if name in values}
    left = [_MAX_PARTS]
    parts = {name: _known_part(values.get(name), left) for name in ("normalizer", "pre_tokenizer")}
    around = {"post_processor": _known_processor(values.get("post_processor")), "model": _known_model(values)}
    return kept | unused | parts | around


def _known_model(values: dict[str, Any]) -> dict[str, Any]:
    """Return the model without its dropout, which would tokenize a sentence differently every time."""
    model = values.get("model")
    # Files of older versions do not name their model.
    if not isinstance(model, dict) or model.get("type", _MODELS[0]) not in _MODELS:
        raise ValueError(f"its model is none of {', '.join(_MODELS)}")
    tables = (model.get("vocab"), model.get("merges"), values.get("added_tokens"))
    if any(isinstance(table, (dict, list)) and len(table) > _MAX_ENTRIES for table in tables):
        raise ValueError(f"its model has more than {_MAX_ENTRIES} entries")
    return {name: value for name, value in model.items() if name != "dropout"}


def _known_processor(processor: Any) -> Any:
    if processor is None:
        return None
    kind = processor.get("type") if isinstance(processor, dict) else None
    if kind not in _PROCESSORS:
        raise ValueError(f"its post_processor is none of {', '.join(_PROCESSORS)}")
    if kind != "TemplateProcessing":
        return processor
    for name in ("single", "pair"):
        pieces = processor.get(name)
        if not isinstance(pieces, list) or len(pieces) > _MAX_PIECES:
            raise ValueError(f"its template has more than {_MAX_PIECES} pieces, or none")
    tokens = processor.get("special_tokens")
    ids = [token.get("ids") for token in tokens.values() if isinstance(token, dict)] if isinstance(tokens, dict) else []
    if len(ids) > _MAX_PIECES or any(not isinstance(each, list) or len(each) > _MAX_PIECES for each in ids):
        raise ValueError(f"its template has more than {_MAX_PIECES} special tokens")
    sentences = [piece["Sequence"] for piece in processor["single"] if isinstance(piece, dict) and "Sequence" in piece]
    if len(sentences) != 1 or not isinstance(sentences[0], dict) or sentences[0].get("id") != "A":
        raise ValueError("its template does not hold the sentence exactly once")
    return processor


def _known_part(part: Any, left: list[int], depth: int = 0) -> Any:
    if part is None:
        return None
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"it normalizes and splits in more than {_MAX_PARTS} steps")
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "Sequence" and depth < _MAX_NESTED:
        lists = {name: part[name] for name in _SEQUENCES if isinstance(part.get(name), list)}
        return {"type": kind} | {name: [_known_part(item, left, depth + 1) for item in lists[name]] for name in lists}
    if not isinstance(kind, str) or kind not in _PARTS:
        raise ValueError(f"it normalizes or splits by something other than {', '.join(_PARTS)}")
    return {"type": kind} | {name: part[name] for name in _PARTS[kind] if name in part}


@contextmanager
def _library(what: str) -> Iterator[None]:
    """Turn every failure of the library into EngineInvalidError: bare Exceptions, and panics of its Rust code."""
    try:
        yield
    except BaseException as error:
        # A panic is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise EngineInvalidError(
            f"tokenizer.json {what} ({brief(error)}); rebuild the engine: {BUILD_COMMAND}"
        ) from error


class Tokenizer:
    """Tokenizes sentences to a fixed number of tokens.

    Args:
        data: content of a ``tokenizer.json`` (the format of Hugging Face ``tokenizers``).
        max_tokens: T, the number of tokens.

    Attributes:
        is_open: whether words that are not in the vocabulary are made of its pieces, as BERT's are, and are not only
            spelled letter by letter.
        digest: of what is used of ``data``.
        whole_words: the vocabulary's words of more than one letter; empty if it is open.

    Raises:
        EngineInvalidError: ``data`` is not a valid tokenizer file.
    """

    def __init__(self, data: bytes, max_tokens: int) -> None:
        from tokenizers import Tokenizer as Fast

        with _library("is not a valid tokenizer file"):
            parts = _known_parts(json.loads(data))
            used = json.dumps(parts).encode()
            self._fast = Fast.from_buffer(used)
        self.digest = sha256(used)
        entries = self._fast.get_vocab()
        self._inside = str(parts["model"].get("continuing_subword_prefix", "##"))
        inside = [entry for entry in entries if entry.startswith(self._inside) and len(entry) > len(self._inside)]
        pieces = parts["model"].get("type", _MODELS[0]) not in ("WordPiece", "WordLevel")
        self.is_open = pieces or any(len(entry) > len(self._inside) + 1 for entry in inside)
        words = () if self.is_open else (entry for entry in entries if len(entry) > 1 and entry.isalnum())
        self.whole_words: tuple[str, ...] = tuple(words)
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
        ids = self._encode(sentence).ids
        check_count(len(ids), self.max_tokens)
        words = words_of(sentence)
        unknown = tuple(word for word in words if self.is_unknown(word))
        if all(word in unknown or word.lower() in FUNCTION_WORDS for word in words):
            raise InputError("the sentence contains no word that this engine knows; describe the lesion in English")
        tokens = np.full((1, self.max_tokens), self._pad, np.int64)
        mask = np.zeros((1, self.max_tokens), np.float32)
        tokens[0, : len(ids)], mask[0, : len(ids)] = ids, 1.0
        return Tokens(tokens, mask, unknown)

    def _encode(self, text: str, special: bool = True) -> Any:
        # e.g. a vocabulary without [UNK]
        with _library("cannot encode a word"):
            return self._fast.encode(text, add_special_tokens=special)

    def count(self, text: str) -> int:
        """Return the number of tokens of a sentence, the marks at its ends included."""
        return len(self._encode(text).ids)

    def can_spell(self, word: str) -> bool:
        """Whether ``word`` can be made of the vocabulary's pieces, single letters included."""
        return UNK not in self._encode(word, special=False).tokens

    def is_whole(self, word: str) -> bool:
        """Whether ``word`` is one entry of the vocabulary, and not made of several pieces."""
        pieces = self._encode(word, special=False).tokens
        return len(pieces) == 1 and UNK not in pieces

    def is_unknown(self, word: str) -> bool:
        """Whether ``word`` is not in the vocabulary, or can only be spelled letter by letter."""
        pieces = self._encode(word, special=False).tokens
        if not self.is_open:
            # "lefty" is "left" and a letter.
            return UNK in pieces or any(piece.startswith(self._inside) for piece in pieces)
        spelled = len(pieces) > 1 and all(len(piece.removeprefix(self._inside)) == 1 for piece in pieces)
        return UNK in pieces or spelled
