"""Every sentence of the phantom's grammar is understood as it is said."""

from __future__ import annotations

import numpy as np

from lsms_rt.datasets.phantom.case import generate_case
from lsms_rt.datasets.phantom.lesion_types import TYPES
from lsms_rt.datasets.phantom.queries import ORDERS, RELATIONS, Query
from lsms_rt.datasets.phantom.sentences import WORDS, say, slice_sentences, vocabulary_sentences
from lsms_rt.sentences import Reader


def check(reader: Reader, sentences: set[str]) -> None:
    for text in sentences:
        reading = reader.read(text)
        assert (reading.understood, reading.read_as, reading.notes(names=True)) == ("yes", text, ()), text


def test_the_grammar_is_understood_as_it_is_said(reader: Reader) -> None:
    """So that training, calibration, gate and evaluation ask what they asked."""
    rng = np.random.default_rng(19)
    whole = {text for text in vocabulary_sentences(rng, 3000) if text not in said_alone()}
    assert len(whole) > 2500
    check(reader, whole)


def said_alone() -> set[str]:
    return {word for table in WORDS.values() for words in table.values() for word in words}


def test_every_word_of_the_grammar_is_understood(reader: Reader) -> None:
    rng = np.random.default_rng(20)
    queries = [Query(type=name, lobe=lobe) for name in TYPES for lobe in (None, "left", "right")]
    queries += [
        Query(density=density, enhancement=enhancement, size=size)
        for density in ("low", "high")
        for enhancement in WORDS["enhancement"]
        for size in (None, "small", "large")
    ]
    queries += [Query(order=order, rank=rank, lobe="left") for order in ORDERS for rank in (1, 2, 3)]
    queries += [Query(density="low", lobe="left", relation=relation, anchor=Query(density="high", lobe="right"))
                for relation in RELATIONS]  # fmt: skip
    said = {say(query, count, rng) for query in queries for count in (0, 1, 2) for _ in range(12)}
    check(reader, said)
    words = " ".join(said).lower()
    assert all(word.lower() in words for word in said_alone())


def test_the_sentences_of_slices_and_their_paraphrases_are_understood(reader: Reader) -> None:
    rng = np.random.default_rng(21)
    said = set()
    for seed in (4242, 7):
        case = generate_case(seed, 6, 96)
        for item in case.slices:
            said |= {one.text for _ in range(10) for one in slice_sentences(item.lesions, case.phase, rng)}
    assert len(said) > 100
    check(reader, said)
