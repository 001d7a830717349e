"""What is read into a sentence, and what its reading says."""

from __future__ import annotations

import json
import pickle
import time

import pytest

from lsms_rt.errors import InputError
from lsms_rt.sentences import Reader, Reading
from lsms_rt.sentences.lexicon import one_edit
from lsms_rt.sentences.reader import refuse
from lsms_rt.sentences.words import joined, split

ROMAN = dict(zip(("II", "III", "IV", "V", "VI", "VII", "VIII"), range(2, 9), strict=True))


@pytest.mark.parametrize("roman", ROMAN)
def test_segments_lie_in_the_lobe_on_their_side_of_cantlies_line(reader: Reader, roman: str) -> None:
    side = "left" if ROMAN[roman] <= 4 else "right"
    numerals = [roman, str(ROMAN[roman])] + (["IVa", "IVb", "4a", "4B"] if roman == "IV" else [])
    for numeral in numerals:
        reading = reader.read(f"the cyst in segment {numeral}")
        assert (reading.read_as, reading.side) == (f"the cyst in the {side} lobe", side)
        assert [(one.kind, one.refuses) for one in reading.reasons] == [("segment", False)]


@pytest.mark.parametrize("said", ["I", "1", "9", "IX", "IV and V", "4-8", "II, III, VI"])
def test_segments_of_no_lobe_or_of_both_are_refused(reader: Reader, said: str) -> None:
    reading = reader.read(f"the cyst in segment {said}")
    assert reading.understood == "no"
    assert "segment" in {one.kind for one in reading.reasons}


@pytest.mark.parametrize(
    ("said", "read_as"),
    [
        ("lesion in the left lateral section", "lesion in the left lobe"),
        ("lesion in the left medial sector", "lesion in the left lobe"),
        ("lesion in the right anterior section", "lesion in the right lobe"),
        ("right posterior segment cyst", "right-lobe cyst"),
        ("cyst in the posterior section of the right hepatic lobe", "cyst in the right lobe"),
        ("segment VII cyst", "right-lobe cyst"),
        ("the segment VII cyst", "the right-lobe cyst"),
        ("cyst, segment VII", "cyst in the right lobe"),
        ("cyst in segment VII of the right lobe of the liver", "cyst in the right lobe of the liver"),
        ("cyst in the right lobe (segment VII)", "cyst in the right lobe"),
        ("please segment the segment 3 cyst", "please segment the left-lobe cyst"),
    ],
)
def test_a_lobe_is_said_as_the_sentence_goes_on(reader: Reader, said: str, read_as: str) -> None:
    assert reader.read(said).read_as == read_as


@pytest.mark.parametrize(
    "said", ["the cyst in the right medial section", "lateral section of the right lobe", "segment II, right lobe"]
)
def test_a_section_of_the_other_lobe_is_refused(reader: Reader, said: str) -> None:
    assert reader.read(f"{said} cyst").understood == "no"


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("no", "lesion in the right atrium"),
        ("no", "lesion of the left atrium"),
        ("no", "the lesion near the ligamentum"),
        ("partly", "lesion in the arterial phase"),
        ("partly", "lesion in keeping with a cyst"),
        ("no", "lesion in segemnt 7"),
        ("no", "lesion in sector 7"),
        ("no", "lesions in segment II as well as V"),
        ("no", "lesions in segments II through V"),
        ("no", "the third lesion from the left"),
        ("yes", "lesion on the left of the liver"),
        ("no", "the most left lesion"),
        ("no", "left-most lesion"),
        ("yes", "the front-most left-lobe lesion"),
        ("no", "the cyst's left side"),
        ("yes", "the patient's left lobe cyst"),
        ("no", "the lesion in the affected lobe"),
        ("no", "nto the cyst in the liver"),
        ("yes", "it might be a cyst"),
        ("partly", "eight lesions"),
        ("partly", "cyst/hemangioma"),
        ("no", "hypodense opacity in the left lobe"),
        ("yes", "hypodensities in the left lobe"),
        ("yes", "lesion that enhances"),
        ("no", "all"),
    ],
)
def test_places_and_ranks_are_not_lost(reader: Reader, verdict: str, said: str) -> None:
    reading = reader.read(said)
    assert reading.understood == verdict, (reading.read_as, reading.notes(names=True))


def test_segment_is_a_command_too(reader: Reader) -> None:
    for said in ("segment the cyst", "please segment the cyst", "can you segment the cyst"):
        assert reader.read(said).understood == "yes"


def test_a_known_word_is_never_replaced(reader: Reader) -> None:
    for word in ("tumour", "haemangioma", "dark", "big", "near"):
        assert word in reader.read(f"the {word} lesion").read_as


def test_a_sentence_in_which_nothing_changes_stays_as_it_is(reader: Reader) -> None:
    for said in ("The cyst, in the left lobe!", "(the cyst)", "low-density lesion"):
        assert reader.read(said).read_as == said


def test_tokens_are_counted_as_the_engine_gets_them(reader: Reader) -> None:
    for said in ("the cyst", "the left-sided spiculated cyst in segment II", "low-density lesion"):
        reading = reader.read(said)
        assert reading.tokens == int(reader.tokenizer(reading.read_as).mask.sum())


def test_the_nearest_known_words_are_named(reader: Reader) -> None:
    nearest = {word.text: word.nearest for word in reader.read("hypodens leison of the livr, xyz").unknown}
    assert nearest == {"hypodens": "hypodense", "leison": "lesion", "livr": "liver", "xyz": None}


def test_a_word_that_may_be_a_name_is_called_by_its_number(reader: Reader) -> None:
    reading = reader.read("the lesion of Mr Leison, not the cyst")
    shown, hidden = ("; ".join(reading.notes(names=names)) for names in (True, False))
    assert "Leison -> lesion?" in shown
    assert "word 5 -> lesion?" in hidden and "Leison" not in hidden
    assert '"not"' in hidden
    with pytest.raises(InputError) as caught:
        refuse(reading)
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.reading == reading
    assert "Leison" not in f"{error} {error!r} {vars(error)}"


def test_without_text_a_record_counts_words(reader: Reader) -> None:
    reading = reader.read("the spiculated cyst on the left")
    assert reading.to_dict() == {"understood": "partly", "unknown_words": 1, "side": "left"}
    assert reading.to_dict(include_text=True) == {
        "understood": "partly",
        "read_as": "the cyst in the left lobe",
        "unknown_words": ["spiculated"],
        "side": "left",
    }


@pytest.mark.parametrize("said", ["la lésion hypodense du lobe gauche", "die Läsion im linken Lappen", "печень"])
def test_another_language_is_named_once(reader: Reader, said: str) -> None:
    reading = reader.read(said)
    assert [one.kind for one in reading.reasons if one.refuses] == ["language"]


def test_hostile_sentences_cost_no_time(reader: Reader) -> None:
    begin = time.perf_counter()
    for said in ("segment 1 " * 99, "lesiom " * 140, "not " * 240, "left right " * 90, "a-" * 480 + "a", "IV " * 330):
        reader.read(said)
    assert time.perf_counter() - begin < 5


@pytest.mark.parametrize(
    ("a", "b", "one"),
    [("left", "lfet", True), ("left", "lef", True), ("left", "leeft", True), ("left", "lent", True),
     ("left", "left", False), ("left", "felt", False), ("right", "rihgtt", False), ("", "a", True)],
)  # fmt: skip
def test_one_edit(a: str, b: str, one: bool) -> None:
    assert one_edit(a, b) == one_edit(b, a) == one


def test_words_are_joined_as_they_were() -> None:
    for said in ("a, b-c (d) 1.5cm", "w/o x's"):
        assert joined(*split(said)) == said


# An open vocabulary


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("yes", "the hypodense leison in segment VII near the spleen"),
        ("yes", "two nodules of 12 mm in the left lung"),
        ("yes", "the tumour"),
        ("yes", "a T2 lesion of 3.5x2 cm, HCC"),
        ("no", "no lesion in the left lobe"),
        ("no", "everything except the cyst"),
        ("no", "the liver without lesions"),
        ("no", "la lésion hypodense du lobe gauche"),
        ("no", "the lesion in the left and right lobe"),
        ("no", "how many lesions"),
        ("no", "the lesion on the left of the image"),
        ("no", "the cyst in the lfet lobe"),
        ("yes", "the nodule left of the aorta"),
        ("yes", "the nonenhancing lesion"),
        ("no", "the liver"),
        ("no", "a non-cystic lesion"),
    ],
)
def test_an_open_vocabulary_is_read_alike(open_reader_: Reader, verdict: str, said: str) -> None:
    reading = open_reader_.read(said)
    assert open_reader_.lexicon.is_open
    assert reading.understood == verdict, reading.notes(names=True)
    if verdict == "yes":
        assert reading.read_as == said


@pytest.mark.parametrize(
    ("sentence", "ranks"),
    [("the largest lesion", True), ("2nd largest cyst", True), ("most anterior lesion", True), ("a large cyst", False)],
)
def test_a_rank_is_noticed(reader: Reader, sentence: str, ranks: bool) -> None:
    assert reader.read(sentence).ranks == ranks


@pytest.mark.parametrize("sentence", ["the cyst", "no leison in segment VII", "zzz qqq", "the large cyst in the livr"])
def test_a_record_is_read_back_whole(reader: Reader, sentence: str) -> None:
    reading = reader.read(sentence)
    assert Reading.from_record(json.loads(json.dumps(reading.to_record()))) == reading
    # What an older server leaves out is not made up.
    with pytest.raises(KeyError):
        Reading.from_record({name: value for name, value in reading.to_record().items() if name != "answerable"})
