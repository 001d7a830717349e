"""Sentences are true of exactly their targets: judged by code of this file's own, from the query and from the text."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lsms_rt.datasets.phantom.case import Lesion, generate_case
from lsms_rt.datasets.phantom.lesion import possible_densities, possible_enhancements, possible_types
from lsms_rt.datasets.phantom.queries import Ambiguous, Query, is_answerable, select
from lsms_rt.datasets.phantom.sentences import (
    Sentence,
    false_sentence,
    random_query,
    say,
    true_sentence,
    vocabulary_sentences,
)

PHASES = ("noncontrast", "arterial", "portal", "delayed")
TYPES = ("cyst", "hemangioma", "metastasis", "hcc", "abscess", "calcification")
NO_PIXELS = np.zeros((1, 1), bool)


def lesion(id: int = 0, type: str = "cyst", lobe: str = "left", mm: float = 20.0, **more: object) -> Lesion:
    values = {"centroid_mm": (0.0, 0.0), "density": "low", "enhancement": "none", "margin": "sharp"} | more
    return Lesion(id=id, type=type, mask=NO_PIXELS, lobe=lobe, diameter_mm=mm, **values)  # type: ignore[arg-type]


def density(hu_difference: float) -> dict[str, object]:
    word = "low" if hu_difference < -12 else "high" if hu_difference > 12 else "iso"
    return {"density": word, "hu_difference": hu_difference}


def random_lesions(rng: np.random.Generator, phase: str) -> tuple[Lesion, ...]:
    """0 to 6 lesions with attributes more mixed than the phantom's."""
    looks = ("none", "rim", "nodular", "homogeneous", "heterogeneous") if phase != "noncontrast" else ("none",)
    return tuple(
        lesion(
            number,
            str(rng.choice(TYPES)),
            str(rng.choice(("left", "right"))),
            float(np.exp(rng.uniform(np.log(3), np.log(60)))),
            centroid_mm=tuple(rng.uniform(-60, 60, 2).tolist()),
            enhancement=str(rng.choice(looks)),
            margin=str(rng.choice(("sharp", "ill-defined"))),
            **density(float(rng.choice((-40.0, -13.0, -10.0, 0.0, 9.5, 14.0, 30.0, 200.0)))),
        )
        for number in range(int(rng.integers(0, 7)))
    )


@cache
def pairs() -> tuple[tuple[tuple[Lesion, ...], str, Sentence], ...]:
    """(lesions of a slice, phase, sentence), some of real phantom slices and many of made-up ones."""
    slices = []
    for seed in range(40, 46):
        case = generate_case(seed, 3, 96)
        slices += [(item.lesions, case.phase) for item in case.slices]
    rng = np.random.default_rng(0)
    for number in range(400):
        phase = PHASES[number % 4]
        slices.append((random_lesions(rng, phase), phase))
    found = []
    for lesions, phase in slices:
        for single in (None, None, True):
            sentence = true_sentence(lesions, phase, rng, single=single)
            if sentence:
                assert single is None or len(sentence.targets) == 1
                found.append((lesions, phase, sentence))
        found.append((lesions, phase, false_sentence(lesions, phase, rng)))
    return tuple(found)


# -- the meaning of a query, once more ---------------------------------------------------------------------------------


DARK = {"cyst", "hemangioma", "metastasis", "hcc", "abscess"}
BRIGHT = DARK - {"cyst"}


def could_be(one: Lesion) -> set[str]:
    """The types that a reader might name, told in this file's own words."""
    if one.type == "calcification":
        return {"calcification"}
    if one.diameter_mm < 10 or (one.enhancement == "none" and one.type != "cyst"):
        bright = one.density == "high" and one.hu_difference is not None and one.hu_difference > 60
        return {one.type} | (BRIGHT if one.density == "high" else DARK) | ({"calcification"} if bright else set())
    looks = (one.type, one.enhancement, one.margin)
    if looks in (("metastasis", "heterogeneous", "sharp"), ("hcc", "heterogeneous", "ill-defined")):
        return {"metastasis", "hcc"}
    if looks[:2] == ("metastasis", "homogeneous"):
        return {"metastasis", "hcc", "hemangioma"}
    return {"metastasis", "hcc", "abscess"} if looks == ("metastasis", "rim", "sharp") else {one.type}


def could_be_density(one: Lesion) -> set[str]:
    if one.hu_difference is None:
        return {one.density}
    near = 9 < abs(one.hu_difference) < 15
    return {one.density} if not near else {"iso", "low" if one.hu_difference < 0 else "high"}


def could_enhance(one: Lesion) -> set[str]:
    word = "diffuse" if one.enhancement in ("homogeneous", "heterogeneous") else one.enhancement
    if one.type == "calcification":
        return {word}
    if one.diameter_mm < 10:
        return {"none", "rim", "nodular", "diffuse"}
    vague = word in ("none", "diffuse") and one.density != "high" and one.type != "cyst"
    return {"none", "diffuse"} if vague else {word}


def fits(query: Query, one: Lesion) -> bool:
    """The filters alone; what readers could disagree about must not have been spoken of."""
    said = [
        (query.lobe, {one.lobe}),
        (query.type, could_be(one)),
        (query.density, could_be_density(one)),
        (query.enhancement, could_enhance(one) | ({"diffuse"} if query.enhancement == "diffuse" else set())),
    ]
    if query.enhancement == "diffuse" and not could_enhance(one) & {"rim", "nodular", "diffuse"}:
        return False
    if query.size is not None:
        limit = {"small": 10.0, "large": 30.0}[query.size]
        sizes = {"small"} if one.diameter_mm < limit else {"large"}
        if limit / 1.15 < one.diameter_mm < 1.15 * limit:
            sizes = {"small", "large"}
        said.append((query.size, sizes))
    if any(word is not None and word not in words for word, words in said):
        return False
    for word, words in said:
        assert word is None or words == {word}, f"readers could disagree about {word}"
    return True


def truth(query: Query, lesions: tuple[Lesion, ...]) -> set[int]:
    """Ids that the query is true of, by comparing every lesion with every other."""
    kept = [one for one in lesions if fits(query, one)]
    if query.order is not None:
        chosen = set()
        for one in kept:
            beaten_by = 0
            for other in kept:
                further_back = other.centroid_mm[1] - one.centroid_mm[1]
                bigger = other.diameter_mm > one.diameter_mm
                beaten_by += {
                    "largest": bigger,
                    "smallest": other.diameter_mm < one.diameter_mm,
                    "most anterior": further_back < 0,
                    "most posterior": further_back > 0,
                }[query.order]
            if beaten_by == query.rank - 1:
                chosen.add(one.id)
        for one in kept:
            for other in kept:
                if one.id in chosen and other is not one:
                    if "most" in query.order:
                        assert abs(one.centroid_mm[1] - other.centroid_mm[1]) >= 5
                    else:
                        sizes = sorted((one.diameter_mm, other.diameter_mm))
                        assert sizes[1] >= 1.15 * sizes[0]
        return chosen
    if query.relation is not None:
        assert query.anchor is not None
        anchor_ids = truth(query.anchor, lesions)
        assert len(anchor_ids) <= 1
        for anchor in lesions:
            if anchor.id not in anchor_ids:
                continue
            others = [one for one in kept if one.id != anchor.id]
            if query.relation == "closest to":
                far = {one.id: float(np.hypot(*np.subtract(one.centroid_mm, anchor.centroid_mm))) for one in others}
                near = [one for one in far if far[one] == min(far.values())]
                assert sum(value < 1.15 * min(far.values()) for value in far.values()) <= 1
                return set(near)
            back = {one.id: one.centroid_mm[1] - anchor.centroid_mm[1] for one in others}
            assert all(abs(value) >= 5 for value in back.values())
            return {one for one, value in back.items() if (value > 0) == (query.relation == "posterior to")}
        return set()
    return {one.id for one in kept}


def test_sentences_are_true_of_exactly_their_targets() -> None:
    assert len(pairs()) > 1000
    for lesions, _, sentence in pairs():
        assert {one.id for one in sentence.targets} == truth(sentence.query, lesions), sentence.text
        assert all(any(one is target for one in lesions) for target in sentence.targets)


def test_select_never_errs_on_random_queries() -> None:
    rng = np.random.default_rng(5)
    judged = 0
    for _ in range(1500):
        lesions = random_lesions(rng, "portal")
        if lesions:
            query = random_query(lesions, rng)
            try:
                found = select(query, lesions)
            except Ambiguous:
                continue
            assert {one.id for one in found} == truth(query, lesions), query.key()
            judged += 1
    assert judged > 300


# -- the meaning of a text, read back ----------------------------------------------------------------------------------

SAID: dict[tuple[str, str], str] = {
    ("density", "low"): "low-density|hypodense|hypoattenuating|low-attenuation|dark",
    ("density", "high"): "high-density|hyperdense|hyperattenuating|high-attenuation|bright",
    ("enhancement", "none"): "non-enhancing|non-enhanced|unenhanced",
    ("enhancement", "rim"): "rim-enhancing|ring-enhancing|peripherally enhancing",
    ("enhancement", "nodular"): "nodular enhancing|nodularly enhancing",
    ("enhancement", "diffuse"): "enhancing|enhanced",
    ("size", "small"): "small|tiny|little",
    ("size", "large"): "large|big|sizeable",
    ("order", "largest"): "largest|biggest",
    ("order", "smallest"): "smallest|tiniest",
    ("order", "most anterior"): "most anterior|front-most|most ventral",
    ("order", "most posterior"): "most posterior|rear-most|most dorsal",
    ("rank", "2"): "second",
    ("rank", "3"): "third",
    ("lobe", "left"): "(?:in|of|within|located in) the left (?:liver |hepatic )?lobe(?: of the liver)?|left-lobe",
    ("lobe", "right"): "(?:in|of|within|located in) the right (?:liver |hepatic )?lobe(?: of the liver)?|right-lobe",
    ("one", "any"): "lesion|focus|nodule|mass|abnormality",
    ("many", "any"): "lesions|foci|nodules|masses|abnormalities",
    ("one", "cyst"): "cyst|cystic lesion|simple cyst",
    ("many", "cyst"): "cysts|cystic lesions|simple cysts",
    ("one", "hemangioma"): "ha?emangioma",
    ("many", "hemangioma"): "ha?emangiomas",
    ("one", "metastasis"): "metastasis|metastatic lesion",
    ("many", "metastasis"): "metastases|metastatic lesions",
    ("one", "hcc"): "hcc|hepatocellular carcinoma",
    ("many", "hcc"): "hccs|hepatocellular carcinomas",
    ("one", "abscess"): "abscess|liver abscess",
    ("many", "abscess"): "abscesses|liver abscesses",
    ("one", "calcification"): "calcification|calcified focus",
    ("many", "calcification"): "calcifications|calcified foci",
    ("place", ""): "(?:in|of|within) the liver",
    ("opening", ""): "(?:please )?segment|find|show|outline",
    ("article", "the"): "the|all the|all",
    ("article", "a"): "a",
}
RELATIONS = {
    "closest to": "closest to|nearest to|next to|close to",
    "anterior to": "anterior to|in front of|ventral to",
    "posterior to": "posterior to|behind|dorsal to",
}


def read(text: str) -> tuple[Query, bool, str]:
    """(query, plural, article) from English, longest phrase first; fails on a word that it does not know."""
    text = text.lower()
    for relation, words in RELATIONS.items():
        if parts := re.fullmatch(f"(.*) (?:{words}) the (.*)", text):
            anchor, plural, _ = read(parts[2])
            assert not plural
            query, plural, article = read(parts[1])
            return Query(**{**vars(query), "relation": relation, "anchor": anchor}), plural, article
    said: dict[str, str] = {}
    while text:
        matches = [(m.end(), key) for key, words in SAID.items() if (m := re.match(f"(?:{words})(?= |$)", text))]
        assert matches, f"not understood: {text}"
        end, (field, value) = max(matches)
        assert field not in said, f"said twice: {field}"
        said[field] = value
        text = text[end:].strip()
    assert ("one" in said) != ("many" in said) and not {"lobe", "place"} <= set(said)
    type_ = said.get("one", said.get("many"))
    query = Query(
        type=None if type_ == "any" else type_,
        rank=int(said.get("rank", 1)),
        **{name: said.get(name) for name in ("density", "enhancement", "lobe", "size", "order")},  # type: ignore[arg-type]
    )
    return query, "many" in said, said.get("article", "")


def test_texts_say_their_queries() -> None:
    for _, _, sentence in pairs():
        query, plural, article = read(sentence.text)
        assert query == sentence.query, sentence.text
        if sentence.targets:
            assert plural == (len(sentence.targets) > 1), sentence.text
        assert not (plural and article == "a") and not (query.order and article == "a"), sentence.text
        assert sentence.text == " ".join(sentence.text.split())


def test_every_way_of_asking_occurs() -> None:
    said: Counter[object] = Counter()
    for _, _, sentence in pairs():
        query = sentence.query
        said.update(vars(query).items() if query.anchor is None else [*vars(query).items()][:-1])
        said[f"{len(sentence.targets)} targets"] += 1
    for field, values in {
        "type": TYPES,
        "density": ("low", "high"),
        "enhancement": ("none", "rim", "nodular", "diffuse"),
        "lobe": ("left", "right"),
        "size": ("small", "large"),
        "order": ("largest", "smallest", "most anterior", "most posterior"),
        "rank": (2,),
        "relation": tuple(RELATIONS),
    }.items():
        assert all(said[field, value] for value in values), field
    assert all(said[f"{count} targets"] for count in (0, 1, 2, 3))


def test_paraphrases_keep_the_meaning_and_vary() -> None:
    rng = np.random.default_rng(1)
    query = Query(density="low", lobe="right")
    texts = {say(query, 1, rng) for _ in range(200)}
    assert len(texts) > 50
    assert all(read(text)[0] == query for text in texts)


def test_equal_keys_are_equal_meanings() -> None:
    by_key: dict[str, Query] = {}
    for _, _, sentence in pairs():
        assert by_key.setdefault(sentence.query.key(), sentence.query) == sentence.query


# -- what must not be said ---------------------------------------------------------------------------------------------

BACK, FRONT = (0.0, 30.0), (0.0, -30.0)


@pytest.mark.parametrize(
    ("query", "lesions"),
    [
        (Query(order="largest"), [lesion(0, mm=20.0), lesion(1, mm=22.0)]),
        (Query(order="largest", rank=2), [lesion(0, mm=40.0), lesion(1, mm=20.0), lesion(2, mm=18.0)]),
        (Query(order="smallest"), [lesion(0, mm=8.0), lesion(1, mm=8.5)]),
        (Query(density="low"), [lesion(**density(-13.0))]),
        (Query(density="low"), [lesion(**density(-10.0))]),
        (Query(density="high"), [lesion(**density(14.9))]),
        (Query(type="hcc"), [lesion(type="hcc", mm=9.0)]),
        (Query(type="hcc"), [lesion(type="metastasis", mm=9.0)]),
        (Query(type="cyst"), [lesion(mm=20.0), lesion(1, type="abscess", mm=9.0)]),
        (Query(type="cyst"), [lesion(type="abscess", enhancement="none")]),
        (Query(type="calcification"), [lesion(type="hemangioma", mm=5.0, **density(90.0))]),
        (Query(type="hcc"), [lesion(type="hcc", enhancement="heterogeneous", margin="ill-defined")]),
        (Query(type="hcc"), [lesion(type="metastasis", enhancement="heterogeneous")]),
        (Query(type="hcc"), [lesion(type="metastasis", enhancement="homogeneous", **density(40.0))]),
        (Query(type="abscess"), [lesion(type="metastasis", enhancement="rim")]),
        (Query(type="metastasis"), [lesion(type="metastasis", margin="ill-defined")]),
        (Query(enhancement="none"), [lesion(type="metastasis", margin="ill-defined")]),
        (Query(enhancement="none"), [lesion(type="hcc", enhancement="heterogeneous")]),
        (Query(enhancement="rim"), [lesion(type="abscess", enhancement="rim", mm=9.0)]),
        (Query(order="most anterior"), [lesion(0, centroid_mm=(0, 0)), lesion(1, centroid_mm=(40, 4))]),
        (Query(size="small"), [lesion(mm=9.5)]),
        (Query(size="small"), [lesion(mm=11.0)]),
        (Query(size="large"), [lesion(mm=29.0)]),
        (Query(size="large"), [lesion(mm=34.0)]),
        (Query(enhancement="diffuse"), [lesion(0, enhancement="homogeneous"), lesion(1, enhancement="rim")]),
        (Query(enhancement="diffuse"), [lesion(0, enhancement="nodular")]),
        (
            Query(relation="closest to", anchor=Query(type="hcc")),
            [lesion(0, "hcc"), lesion(1, centroid_mm=(20, 0)), lesion(2, centroid_mm=(-21, 0))],
        ),
        (Query(relation="anterior to", anchor=Query(type="hcc")), [lesion(0, "hcc"), lesion(1, centroid_mm=(30, 3))]),
        (Query(relation="closest to", anchor=Query(type="hcc")), [lesion(0, "hcc"), lesion(1, "hcc"), lesion(2)]),
    ],
)
def test_what_is_open_to_argument_is_ambiguous(query: Query, lesions: list[Lesion]) -> None:
    with pytest.raises(Ambiguous):
        select(query, lesions)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        (Query(), [0, 1, 2]),
        (Query(lobe="left"), [0, 1]),
        (Query(order="largest"), [2]),
        (Query(order="largest", rank=2), [1]),
        (Query(order="largest", rank=3), [0]),
        (Query(order="largest", lobe="left"), [1]),
        (Query(order="largest", rank=3, lobe="left"), []),
        (Query(order="smallest"), [0]),
        (Query(order="most anterior"), [1]),
        (Query(order="most posterior"), [2]),
        (Query(size="small"), [0]),
        (Query(size="large"), [2]),
        (Query(enhancement="diffuse", lobe="left"), [1]),
        (Query(relation="anterior to", anchor=Query(type="calcification")), [1]),
        (Query(relation="posterior to", anchor=Query(type="hcc")), [0, 2]),
        (Query(relation="closest to", anchor=Query(type="abscess")), [0]),
        (Query(relation="closest to", anchor=Query(type="metastasis")), []),
    ],
)
def test_select(query: Query, ids: list[int]) -> None:
    lesions = (
        lesion(0, "calcification", "left", 6.0, centroid_mm=(0.0, 0.0), density="high"),
        lesion(1, "hcc", "left", 20.0, centroid_mm=FRONT, enhancement="heterogeneous", density="high"),
        lesion(2, "abscess", "right", 50.0, centroid_mm=BACK, enhancement="rim"),
    )
    assert [one.id for one in select(query, lesions)] == ids


@pytest.mark.parametrize(
    ("query", "one"),
    [
        (Query(density="low"), lesion(**density(-15.5))),
        (Query(type="hcc"), lesion(type="hcc", mm=10.5, enhancement="rim")),
        (Query(type="hcc"), lesion(type="hcc", enhancement="heterogeneous", **density(40.0))),
        (Query(type="metastasis"), lesion(type="metastasis", enhancement="rim", margin="ill-defined")),
        (Query(type="cyst"), lesion(mm=10.5)),
        (Query(type="calcification"), lesion(type="calcification", mm=5.0, **density(200.0))),
        (Query(enhancement="none"), lesion()),
        (Query(enhancement="diffuse"), lesion(type="hcc", enhancement="homogeneous", **density(40.0))),
        (Query(enhancement="rim"), lesion(type="abscess", enhancement="rim")),
    ],
)
def test_what_readers_agree_on_is_said(query: Query, one: Lesion) -> None:
    assert select(query, [one]) == (one,)


def test_a_word_that_rules_a_lesion_out_settles_it() -> None:
    vague = lesion(0, "metastasis", "left", enhancement="heterogeneous", **density(-13.0))
    sure = lesion(1, "hcc", "right", enhancement="rim", **density(-30.0))
    assert select(Query(type="hcc", lobe="right"), [vague, sure]) == (sure,)
    assert select(Query(density="low", lobe="right"), [vague, sure]) == (sure,)
    assert select(Query(type="hcc", density="high"), [vague, sure]) == ()
    with pytest.raises(Ambiguous):
        select(Query(type="hcc"), [vague, sure])


def test_false_sentences_are_false_for_every_reader() -> None:
    judged = 0
    for lesions, _, sentence in pairs():
        query = sentence.query
        if sentence.targets or query.order or query.relation:
            continue
        judged += len(lesions) > 0
        for one in lesions:
            enhances = could_enhance(one)
            if enhances & {"rim", "nodular"}:
                enhances = enhances | {"diffuse"}
            size = {"small"} if one.diameter_mm < 10 * 1.15 else set()
            size |= {"large"} if one.diameter_mm > 30 / 1.15 else set()
            words = (
                (query.type, could_be(one)),
                (query.density, could_be_density(one)),
                (query.enhancement, enhances),
                (query.lobe, {one.lobe}),
                (query.size, size),
            )
            assert any(word is not None and word not in possible for word, possible in words), sentence.text
    assert judged > 150


def test_what_a_lesion_could_be_taken_for() -> None:
    """The same as this file's own rules, and always the truth among it."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        for one in random_lesions(rng, "portal"):
            assert possible_types(one) == could_be(one) and one.type in could_be(one)
            assert possible_densities(one) == could_be_density(one) and one.density in could_be_density(one)
            assert possible_enhancements(one) == could_enhance(one)


def test_lesions_of_version_1_have_no_hu_difference() -> None:
    assert lesion().hu_difference is None and select(Query(density="low"), [lesion()])


def test_nothing_is_said_of_contrast_without_contrast() -> None:
    judged = 0
    for _, phase, sentence in pairs():
        if phase == "noncontrast":
            judged += 1
            for query in (sentence.query, sentence.query.anchor or sentence.query):
                assert query.enhancement is None and query.type in (None, "cyst", "calcification"), sentence.text
            assert "enhanc" not in sentence.text
    assert judged > 200
    assert not is_answerable(Query(relation="closest to", anchor=Query(type="hcc")), "noncontrast")
    assert is_answerable(Query(relation="closest to", anchor=Query(type="hcc")), "portal")


def test_no_lesions() -> None:
    rng = np.random.default_rng(0)
    assert true_sentence((), "portal", rng) is None
    assert all(false_sentence((), phase, rng).targets == () for phase in PHASES for _ in range(50))


def test_false_sentences_are_near_the_truth() -> None:
    """Most of them name a lesion's attributes but for a word, so that reading half of the sentence is not enough."""
    rng = np.random.default_rng(0)
    lesions = (lesion(0, "cyst", "left"), lesion(1, "hcc", "right", density="high", enhancement="rim"))
    queries = [false_sentence(lesions, "portal", rng).query for _ in range(200)]
    assert sum(query.lobe is not None and query.density is not None for query in queries) > 30
    assert len({query.key() for query in queries}) > 30


def test_sentences_fit_the_demo_vocabulary(tmp_path: Path) -> None:
    from lsms_rt.tokenizer import UNK, Tokenizer
    from lsms_rt.training.vocabulary import write_vocabulary

    size = write_vocabulary(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer((tmp_path / "tokenizer.json").read_bytes(), max_tokens=32)
    assert tokenizer.vocab_size == size
    unknown = tokenizer._fast.token_to_id(UNK)
    more = vocabulary_sentences(np.random.default_rng(9), 500)
    lengths = []
    for text in [*(sentence.text for _, _, sentence in pairs()), *more]:
        # Raises above 32.
        tokens = tokenizer(text)
        assert unknown not in tokens.ids, text
        lengths.append(int(tokens.mask.sum()))
    assert max(lengths) <= 32
