"""WordPiece vocabularies of our own: the words of some sentences, some of radiology's, and every letter."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lsms_rt.atomic import write_text
from lsms_rt.datasets.phantom.sentences import vocabulary_sentences
from lsms_rt.tokenizer import CLS, PAD, SEP, UNK, Tokenizer, words_of

# Words that users may well say though the phantom's grammar does not.
MORE = [
    "lesions",
    "tumor",
    "tumour",
    "hepatic",
    "segment",
    "ct",
    "image",
    "slice",
    "patient",
    "this",
    "that",
    "is",
    "are",
    "there",
    "any",
    "where",
    "please",
    "and",
    "with",
    "near",
]


def write_vocabulary(path: Path, seed: int = 0) -> int:
    """Write the ``tokenizer.json`` of the phantom's grammar; returns the vocabulary's size."""
    data = vocabulary_of(vocabulary_sentences(np.random.default_rng(seed), 20_000))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, data)
    return len(json.loads(data)["model"]["vocab"])


def knows_grammar(tokenizer: Tokenizer) -> bool:
    """Whether a vocabulary holds every word of the phantom's grammar."""
    said = vocabulary_sentences(np.random.default_rng(0), 2000)
    return not any(map(tokenizer.is_unknown, {word for text in said for word in words_of(text)}))


def vocabulary_of(sentences: Iterable[str]) -> str:
    """Make a WordPiece vocabulary: all words of some sentences, ``MORE``, letters, digits and punctuation.

    Lower case, accents stripped, BERT's splitting.

    Args:
        sentences: where the words come from.

    Returns:
        The content of a ``tokenizer.json``.
    """
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece

    normal = normalizers.BertNormalizer(lowercase=True)
    split = pre_tokenizers.BertPreTokenizer()
    words = set(MORE)
    for sentence in sentences:
        words.update(word for word, _ in split.pre_tokenize_str(normal.normalize_str(sentence)))
    letters = list(string.ascii_lowercase + string.digits)
    pieces = [PAD, UNK, CLS, SEP, *letters, *(f"##{c}" for c in letters), *string.punctuation]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, *sorted(words)]))}
    tokenizer = Fast(WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=40))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normal, split, decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing((SEP, vocabulary[SEP]), (CLS, vocabulary[CLS]))
    return json.dumps(json.loads(tokenizer.to_str()), indent=1, ensure_ascii=False) + "\n"
