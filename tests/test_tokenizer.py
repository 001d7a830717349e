"""The tokenizer file of an engine that somebody else made, and sentences that cost time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from lsms_rt.errors import EngineInvalidError, InputError
from lsms_rt.tokenizer import Tokenizer, clean_sentence

CATASTROPHIC = {"Regex": "(a+)+$"}
REPLACE = {"type": "Replace", "pattern": CATASTROPHIC, "content": "x"}
SPLIT = {"type": "Split", "pattern": CATASTROPHIC, "behavior": "Isolated", "invert": False}


@pytest.fixture
def values(demo_engine: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((demo_engine / "tokenizer.json").read_text())
    return loaded


def opened(values: Any) -> Tokenizer:
    return Tokenizer(json.dumps(values).encode(), 32)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": REPLACE},
        {"normalizer": {"pattern": CATASTROPHIC, "content": "x"}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, REPLACE]}},
        {"pre_tokenizer": SPLIT},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, SPLIT],
            }
        },
        {"pre_tokenizer": {"type": ["Split"]}},
        {"pre_tokenizer": "Split"},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    ],
)
def test_no_expression_of_a_file_is_compiled(values: dict[str, Any], changes: dict[str, Any]) -> None:
    with pytest.raises(EngineInvalidError, match="something other than BertNormalizer") as caught:
        opened(values | changes)
    assert "a+" not in str(caught.value)


def test_expressions_where_they_are_not_used_are_dropped(values: dict[str, Any]) -> None:
    decoder = {"type": "Replace", "pattern": CATASTROPHIC, "content": "x"}
    normalizer = values["normalizer"] | {"pattern": CATASTROPHIC}
    tokens = opened(values | {"decoder": decoder, "normalizer": normalizer, "truncation": {"max_length": 1}})
    assert tokens("the cyst").ids.tolist() == opened(values)("the cyst").ids.tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": None},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "Strip",
         "strip_left": True, "strip_right": True}, {"type": "StripAccents"}]}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Punctuation",
         "behavior": "Isolated"}, {"type": "Digits", "individual_digits": True}]}},
        {"added_tokens": [{"id": 0, "content": "[PAD]", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}]},
    ],
)  # fmt: skip
def test_usual_tokenizers_open(values: dict[str, Any], changes: dict[str, Any]) -> None:
    assert opened(values | changes)("the cyst in the liver").mask.sum() == 7


def template(*pieces: Any) -> dict[str, Any]:
    special = {name: {"id": name, "ids": [number], "tokens": [name]} for name, number in (("[CLS]", 2), ("[SEP]", 3))}
    return {"type": "TemplateProcessing", "single": list(pieces), "pair": list(pieces), "special_tokens": special}


CLS, SEP = ({"SpecialToken": {"id": name, "type_id": 0}} for name in ("[CLS]", "[SEP]"))
A, B = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")


def test_a_template_of_bert_opens(values: dict[str, Any]) -> None:
    both = template(CLS, A, SEP) | {"pair": [CLS, A, SEP, B, SEP]}
    assert opened(values | {"post_processor": both})("the cyst").ids.tolist() == opened(values)("the cyst").ids.tolist()
    assert opened(values | {"post_processor": None})("the cyst").mask.sum() == 2


def nested(count: int) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [{"type": "NFC"}] * count}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"normalizer": nested(40)}, "more than 32 steps"),
        ({"normalizer": {"type": "Sequence", "normalizers": [nested(8)] * 8}}, "more than 32 steps"),
        ({"normalizer": nested(20), "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}] * 20}},
         "more than 32 steps"),
        ({"post_processor": {"type": "ByteLevel"}}, "post_processor is none of"),
        ({"post_processor": {"type": "Sequence", "processors": []}}, "post_processor is none of"),
        ({"post_processor": 3}, "post_processor is none of"),
        ({"post_processor": template(CLS, *[A] * 1000)}, "more than 16 pieces"),
        ({"post_processor": template(CLS, A, A, SEP)}, "exactly once"),
        ({"post_processor": template(CLS, B, SEP)}, "exactly once"),
        ({"post_processor": template(CLS, SEP)}, "exactly once"),
        ({"model": {"type": "Other"}}, "model is none of"),
        ({"model": {"type": ["BPE"]}}, "model is none of"),
        ({"added_tokens": [{}] * 1_000_001}, "more than 1000000 entries"),
    ],
)  # fmt: skip
def test_what_would_cost_time_or_change_the_sentence_is_refused(
    values: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(EngineInvalidError, match=said):
        opened(values | changes)


def test_a_sentence_is_never_tokenized_by_chance(values: dict[str, Any]) -> None:
    vocab = {"[UNK]": 0, "c": 1, "y": 2, "cy": 3}
    model = {"type": "BPE", "dropout": 0.9, "unk_token": "[UNK]", "vocab": vocab, "merges": ["c y"]}
    tokenizer = opened(values | {"model": model, "post_processor": None})
    assert {tuple(tokenizer("cy").ids[0]) for _ in range(20)} == {(3, *[0] * 31)}


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"[" * 100_000, b"\xff", b'{"model": 3}'])
def test_what_is_no_tokenizer_is_refused(data: bytes) -> None:
    with pytest.raises(EngineInvalidError, match="not a valid tokenizer file"):
        Tokenizer(data, 32)


def test_a_panic_of_the_library_is_an_error_of_the_engine(values: dict[str, Any]) -> None:
    class PanicException(BaseException):
        """As pyo3 raises it, which is no Exception."""

    class Panics:
        def encode(self, text: str, add_special_tokens: bool) -> Any:
            raise PanicException("index out of bounds")

    tokenizer = opened(values)
    tokenizer._fast = Panics()
    with pytest.raises(EngineInvalidError, match="index out of bounds"):
        tokenizer("the cyst")

    class Interrupted:
        def encode(self, text: str, add_special_tokens: bool) -> Any:
            raise KeyboardInterrupt

    tokenizer._fast = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        tokenizer("the cyst")


def test_a_long_sentence_is_refused_before_it_is_normalized() -> None:
    marks = "the cyst" + "\u0300\u0316" * 500_000
    begin = time.perf_counter()
    with pytest.raises(InputError, match="has 1000008 characters; give one sentence of at most 1000"):
        clean_sentence(marks)
    assert time.perf_counter() - begin < 1
    # Spaces do not count, unless there are very many.
    assert clean_sentence("the" + " " * 3000 + "cyst") == "the cyst"
