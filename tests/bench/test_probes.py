"""Probes of words: a model that is perfect, models that ignore a word, and what a data set allows to probe."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_dataset import write_dataset

from lsms_rt.bench.plots import draw
from lsms_rt.bench.probes.ask import ANOTHER, NOTHING, Outcome, Probed, probe_words
from lsms_rt.bench.probes.figures import probe_figures, probe_rows
from lsms_rt.bench.probes.words import ATTRIBUTES, named, others, reworded
from lsms_rt.bench.records import KINDS, PROBES, record_of, rows_of
from lsms_rt.bench.tables import markdown
from lsms_rt.bench.values import values_of
from lsms_rt.datasets.phantom.dataset import LESION_FIELDS
from lsms_rt.datasets.phantom.lesion_types import TYPES
from lsms_rt.datasets.phantom.queries import Query, query_of
from lsms_rt.datasets.phantom.sentences import random_query, say
from lsms_rt.datasets.refhl import FIELDS, Annotation, read_annotations
from lsms_rt.errors import InputError, SentenceNotUnderstoodError

SIDE = 64
# number: (type, lobe, density, its box: top, left, side); the area of a pixel is 1 mm2
LESIONS = {
    1: ("cyst", "left", "low", (8, 40, 20)),
    2: ("cyst", "right", "low", (40, 8, 14)),
    3: ("calcification", "right", "high", (10, 8, 11)),
}
# lesions that are meant, meaning, sentence
ROWS = (
    ((1,), "low+left", "The hypodense lesion in the left lobe"),
    ((1,), "low+left", "the dark left-lobe focus"),
    ((2,), "cyst+right", "find the simple cyst in the right hepatic lobe"),
    ((3,), "high+right", "a bright nodule of the right lobe"),
    ((1,), "1-largest", "the biggest mass"),
    ((2,), "2-largest", "the second largest lesion of the liver"),
    ((1,), "anterior-to(cyst+right)", "the lesion in front of the cyst in the right lobe"),
    ((), "high+left", "the bright lesion in the left lobe"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cases of one slice each, with three lesions: two low ones and a high one, two of them in the right lobe."""
    annotations: list[list[str]] = []
    lesions: list[list[str]] = []
    for case in ("a", "b"):
        np.save(tmp_path / f"{case}.npy", np.full((SIDE, SIDE), -50, np.int16))
        for ids, query, sentence in ROWS:
            mask = np.zeros((SIDE, SIDE), np.uint8)
            for number in ids:
                top, left, side = LESIONS[number][3]
                mask[top : top + side, left : left + side] = 255
            path = f"{case}_{'-'.join(map(str, ids)) or 'none'}.png"
            Image.fromarray(mask).save(tmp_path / path)
            annotations.append([case, "0", f"{case}.npy", path, sentence, "", "test", query])
        for number, (kind, lobe, density, (top, left, side)) in LESIONS.items():
            values = {
                "case_id": case, "slice_id": "0", "lesion": number, "lesion_type": kind, "phase": "portal",
                "lobe": lobe, "density": density, "enhancement": "none", "margin": "sharp",
                "diameter_mm": 2 * side / np.pi**0.5, "left_mm": left + side / 2, "posterior_mm": top + side / 2,
                "area_mm2": side**2, "hu_difference": {"low": -60.0, "high": 90.0}[density],
            }  # fmt: skip
            lesions.append([str(values[name]) for name in LESION_FIELDS])
    for name, head, rows in (("annotations", (*FIELDS, "query"), annotations), ("lesions", LESION_FIELDS, lesions)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([list(head), *rows])
    return tmp_path


@pytest.fixture(autouse=True)
def pixels_of_1_mm(monkeypatch: pytest.MonkeyPatch) -> None:
    from lsms_rt.ct_slice import slice_from_array

    monkeypatch.setattr(
        "lsms_rt.datasets.questions.load_slice", lambda path: slice_from_array(np.load(path), spacing_mm=(1.0, 1.0))
    )


class Reader:
    """Reads every word but those that are ignored; paints what is left of the meaning, or all lesions."""

    def __init__(self, *ignored: str) -> None:
        self.ignored, self.asked = ignored, list[str]()

    def predict(self, img: object, text: str) -> SimpleNamespace:
        self.asked.append(text)
        mask = np.zeros((SIDE, SIDE), bool)
        for number in self.meant(f" {text.lower()} "):
            top, left, side = LESIONS[number][3]
            mask[top : top + side, left : left + side] = True
        return SimpleNamespace(mask=mask)

    def meant(self, text: str) -> set[int]:
        found = set(LESIONS)
        head = text.split(" in front of ")[0].split(" behind ")[0]
        for attribute, place, words in (
            ("side", 1, {"left": "left", "right": "right"}),
            ("density", 2, {"low": " hypodense | dark ", "high": " hyperdense | bright "}),
            ("type", 0, {"cyst": "cyst", "calcification": "calcif", "other": "angioma|metasta|hcc|absc|carcin"}),
        ):  # fmt: skip
            for value, ways in words.items():
                if attribute not in self.ignored and any(way in head for way in ways.split("|")):
                    found = {n for n in found if LESIONS[n][place] == value}
        if " in front of " in text or " behind " in text or "nearest" in text or "closest" in text:
            # Lesion 2 is the cyst in the right lobe, behind both others; 3 is the nearest.
            ahead = "behind" not in text or "relation" in self.ignored
            return {n for n in found if n != 2} if ahead else set()
        sizes = sorted(found, key=lambda n: -LESIONS[n][3][2])
        for word, place in ((" second ", 1), (" third ", 2), ("largest", 0), ("biggest", 0)):
            if word in text:
                return set(sizes[place : place + 1])
        for words, key in (
            (("smallest", "tiniest"), lambda n: LESIONS[n][3][2]),
            (("anterior", "front-most", "ventral"), lambda n: LESIONS[n][3][0] + LESIONS[n][3][2] / 2),
            (("posterior", "rear-most", "dorsal"), lambda n: -LESIONS[n][3][0] - LESIONS[n][3][2] / 2),
        ):
            if any(word in text for word in words):
                return {min(found, key=key)}  # type: ignore[arg-type]
        return found


def figures(model: Any, folder: Path) -> tuple[dict[tuple[str, str], dict[str, Any]], Probed]:
    rows = read_annotations(folder)
    probed = probe_words(model, folder, rows)
    found = probe_figures(rows, probed)
    return {(row["attribute"], row["true_of"]): row for row in found["rows"]}, probed


def test_a_perfect_model_is_reported_perfect(folder: Path) -> None:
    model = Reader()
    rows, probed = figures(model, folder)
    for true_of, wanted in ((ANOTHER, "moved"), (NOTHING, "empty")):
        for attribute in ("side", "density", "type", "order"):
            row = rows[attribute, true_of]
            if row["probes"]:
                assert (row[wanted], row["same"], row["dice_before"]) == (1, 0, 1), (attribute, true_of, model.asked)
                # Of two cases.
                assert row["wanted_interval"] is None
                assert row["dice_new"] == (1 if true_of == ANOTHER else None)
    assert all(rows[attribute, NOTHING]["probes"] for attribute in ("density", "type"))
    assert all(rows[attribute, ANOTHER]["probes"] for attribute in ("side", "density", "type", "order"))
    # The two wordings of one meaning are one, the false sentence is none.
    assert (probed.meanings, probed.named["side"], probed.named["relation"]) == (12, 6, 2)


@pytest.mark.parametrize("attribute", ["side", "density", "type"])
def test_a_word_that_is_ignored_is_reported_as_ignored(folder: Path, attribute: str) -> None:
    rows, _ = figures(Reader(attribute), folder)
    probed = [rows[attribute, true_of] for true_of in (ANOTHER, NOTHING) if rows[attribute, true_of]["probes"]]
    assert probed
    assert all(row["same"] == row["dice_between"] == 1 and row["moved"] == row["empty"] == 0 for row in probed)
    other = "density" if attribute == "side" else "side"
    assert all(rows[other, true_of]["same"] in (None, 0) for true_of in (ANOTHER, NOTHING))


def test_counts_tell_what_was_not_probed(folder: Path) -> None:
    class Silent:
        def predict(self, img: object, text: str) -> SimpleNamespace:
            return SimpleNamespace(mask=np.zeros((SIDE, SIDE), bool))

    rows, probed = figures(Silent(), folder)
    assert not probed.outcomes
    for row in rows.values():
        assert (row["probes"], row["cases"], row["same"], row["wanted_interval"]) == (0, 0, None, None)
        assert row["not_found"] + row["without_mask"] == row["named"]

    class Deaf:
        def predict(self, img: object, text: str) -> SimpleNamespace:
            raise SentenceNotUnderstoodError("no word")

    assert figures(Deaf(), folder)[1].unanswered > 0


def test_without_a_table_the_other_sentences_say_what_is_true(folder: Path) -> None:
    """As of a converted set: "high+left" is false by a sentence, and nothing else is known of other words."""
    (folder / "lesions.csv").unlink()
    model = Reader()
    rows, _ = figures(model, folder)
    assert rows["density", NOTHING]["probes"] == 2
    assert rows["density", NOTHING]["empty"] == 1
    assert "The hyperdense lesion in the left lobe" in model.asked
    # "the biggest" and "the second largest" are each other's.
    assert (rows["order", ANOTHER]["probes"], rows["order", ANOTHER]["moved"]) == (4, 1)
    assert rows["side", ANOTHER]["probes"] == rows["type", ANOTHER]["probes"] == 0


def test_a_set_without_meanings_cannot_be_probed(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "data")
    rows = read_annotations(folder)
    with pytest.raises(InputError, match="records its meaning"):
        probe_words(Reader(), folder, rows)
    strange = [Annotation(**{**vars(row), "query": "left lesion, Mr Smith"}) for row in rows]
    with pytest.raises(InputError, match="records its meaning") as caught:
        probe_words(Reader(), folder, strange)
    assert "Smith" not in str(caught.value)


SAID: tuple[tuple[str, str, str, Callable[[Query], bool], str | None], ...] = (
    ("low+left", "The dark left-lobe focus", "side", lambda q: q.lobe == "right", "The dark right-lobe focus"),
    ("low+left", "Dark lesion of the left lobe", "density", lambda q: True, "Bright lesion of the left lobe"),
    ("enh-diffuse", "an enhanced mass", "enhancement", lambda q: q.enhancement == "rim", "an ring-enhancing mass"),
    ("cyst", "a simple cyst", "type", lambda q: q.type == "abscess", "the abscess"),
    ("cyst", "simple cysts", "type", lambda q: q.type == "hcc", "HCCs"),
    ("2-largest", "the second biggest mass", "order", lambda q: q.order == "smallest", "the tiniest mass"),
    ("1-largest", "the largest mass", "order", lambda q: q.rank == 3, "the third largest mass"),
    # Of a relation, only what stands before it belongs to the lesion that is meant.
    ("left+posterior-to(cyst+left)", "the left-lobe mass behind the cyst in the left lobe", "side", lambda q: True,
     "the right-lobe mass behind the cyst in the left lobe"),
    ("any+posterior-to(cyst)".removeprefix("any+"), "the mass behind the cyst", "relation",
     lambda q: q.relation == "anterior to", "the mass in front of the cyst"),
    ("low", "the cold lesion", "density", lambda q: True, None),
    ("posterior-to(cyst)", "the mass beyond the cyst", "relation", lambda q: True, None),
)  # fmt: skip


@pytest.mark.parametrize(("key", "text", "attribute", "chosen", "expected"), SAID)
def test_only_one_word_changes(
    key: str, text: str, attribute: str, chosen: Callable[[Query], bool], expected: str | None
) -> None:
    query = query_of(key)
    other = next(one for one in others(query, attribute) if chosen(one))
    assert reworded(text, query, other, attribute) == expected


def test_every_sentence_of_the_grammar_can_be_reworded() -> None:
    from training_slices import lesion

    rng = np.random.default_rng(0)
    lesions = (lesion(1), lesion(2, lobe="right", diameter_mm=35.0))
    seen = set()
    for _ in range(200):
        query = random_query(lesions, rng)
        assert query_of(query.key()) == query
        text = say(query, 1, rng)
        for attribute in named(query):
            seen.add(attribute)
            for other in others(query, attribute):
                changed = reworded(text, query, other, attribute)
                assert changed is not None and changed != text
                assert reworded(changed, other, query, attribute) is not None
    assert seen == set(ATTRIBUTES)
    for key in ("", "left+left", "lesion", "anterior-to(lesion)", "left+low", *(f"{kind}s" for kind in TYPES)):
        with pytest.raises(ValueError, match="no meaning of the grammar"):
            query_of(key)


def test_intervals_say_how_few_the_cases_are() -> None:
    def outcome(case: int, verdict: str) -> Outcome:
        return Outcome(
            case_id=str(case), attribute="side", true_of=NOTHING, dice_before=1.0, dice_new=None, dice_between=0.0,
            verdict=verdict,
        )  # fmt: skip

    def row(outcomes: list[Outcome]) -> dict[str, Any]:
        return next(r for r in probe_rows(Probed(outcomes=outcomes, named=Counter(side=99))) if r["true_of"] == NOTHING)

    assert row([outcome(case, "empty") for case in range(9)])["wanted_interval"] is None
    found = row([outcome(case % 10, "empty") for case in range(50)])
    # Ten cases that are all right leave room for a share of 0.69 (Clopper-Pearson), however many probes they are.
    assert found["wanted_interval"] == pytest.approx((0.025**0.1, 1))
    assert found["same_interval"] == pytest.approx((0, 1 - 0.025**0.1))
    low, high = row([outcome(case, "empty" if case < 15 else "same") for case in range(20)])["wanted_interval"]
    assert 0.5 < low < 0.75 < high < 0.95


def test_a_record_of_probes_has_a_table_and_a_picture(folder: Path, tmp_path: Path) -> None:
    rows = read_annotations(folder)
    found = probe_figures(rows, probe_words(Reader("side"), folder, rows))
    record = record_of(PROBES, (), what="a fake", **found)
    text = markdown(record)
    assert text.startswith("a fake.\n\n12 true sentences with different meanings on 2 slices of 2 cases.")
    assert len([line for line in text.splitlines() if line.startswith("| side |")]) == 2
    assert "| 1.00 |" in text
    (picture,) = draw(record, tmp_path / "probes")
    assert picture.stat().st_size > 10_000
    assert any(name.startswith("side, ") for name, _ in values_of(record))
    assert all(field in row for row in rows_of(record) for field in KINDS[PROBES])
