"""Sentences of somebody who wanted the contract to fail: a meaning that is easily lost is refused, not painted."""

from __future__ import annotations

import pytest

from lsms_rt.sentences import Reader

REFUSED = (
    "Left kidney: 3 cm cyst", "cyst of the kidney, 14 mm", "lesion in the kidney 2 cm", "adenoma 3 cm lesion left lobe",
    "lesion adjacent to the spleen 2 cm", "do n't outline the lesion", "n't lesion in the left lobe", "!cyst",
    "lesions ≠ cyst", "lesion (-) left lobe", "❌ cyst", "~lesion", "0 lesions in the left lobe", "lesion=0",
    "nope: lesion in the left lobe", "liver clear of lesions", "the resected lesion in the left lobe",
    "lesions but cysts", "avoid the cyst in the left lobe", "mask out the cyst", "anywhere but in the right lobe",
    "lesion in the lobe gauche", "lesion nie ma in the left lobe", "the iliac lesion", "the darkest lesion",
    "lesion on image left", "image left lesion", "the cyst at image left of the liver", "left slice lesion",
    "the smalest lesion in the liver", "the largets cyst", "the secnd largest cyst in the liver",
    "right-handed patient, lesion in the liver", "lesion of the other lobe", "describe the lesion in the left lobe",
)  # fmt: skip
# -> what is read
ANSWERED = {
    "segment 2 cm lesion": "lesion",
    "please segment 6 mm cyst": "cyst",
    "cyst in segment 6, 2 x 3 cm": "right lobe",
    "lesion in segment 7 - 2 cm": "right lobe",
    "hypodense lesion, less than 2 cm, in the left lobe": "left lobe",
    "lesion under 2 cm in the right lobe": "right lobe",
    "in this slice, the lesion in the left lobe": "left lobe",
    "the lesion of the left lobe in this image": "left lobe",
    "the patient's lesion in the left lobe": "left lobe",
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_would_be_lost_is_refused(reader: Reader, sentence: str) -> None:
    assert reader.read(sentence).understood == "no"


def test_a_decimal_does_not_reach_the_network(reader: Reader) -> None:
    for sentence in ("a 2.3 cm hypodense lesion", "a 2,3 cm hypodense lesion", "a hypodense lesion of 3.0 x 2.1 cm"):
        reading = reader.read(sentence)
        assert (reading.understood, reading.read_as.replace(" of", "")) == ("partly", "a hypodense lesion")


@pytest.mark.parametrize("sentence", ANSWERED)
def test_a_size_is_no_segment_and_no_exception(reader: Reader, sentence: str) -> None:
    reading = reader.read(sentence)
    assert reading.understood in ("yes", "partly")
    assert ANSWERED[sentence] in reading.read_as
    lobes = {"left lobe", "right lobe"} - {ANSWERED[sentence]}
    assert not [lobe for lobe in lobes if lobe in reading.read_as]
