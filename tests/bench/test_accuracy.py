"""Figures of accuracy by hand: kinds of sentences, scores as a classifier, intervals, reference lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_dataset import write_dataset

from lsms_rt.bench.accuracy.answers import FIGURES, NAMES, save_answers
from lsms_rt.bench.accuracy.evaluate import evaluate
from lsms_rt.bench.accuracy.judged import Judged
from lsms_rt.bench.accuracy.kinds import kind_of, type_of
from lsms_rt.bench.accuracy.lines import reference_lines
from lsms_rt.bench.accuracy.presence import presence_of
from lsms_rt.bench.accuracy.tables import tables
from lsms_rt.calibration.bounds import interval_by_case
from lsms_rt.cli.evaluate_texts import accuracy_text
from lsms_rt.datasets.questions import Answer, ask, questions
from lsms_rt.datasets.refhl import Annotation, read_annotations
from lsms_rt.errors import DatasetError, InputError, SentenceNotUnderstoodError

QUERIES = {
    "any": ("any", ""),
    "high+right": ("density + lobe", ""),
    "low+enh-rim": ("density + enhancement", ""),
    "cyst+left": ("type + lobe", "cyst"),
    "small+low": ("size", ""),
    "left+2-largest": ("order", ""),
    "low+1-most-posterior": ("order", ""),
    "low+anterior-to(cyst+left)": ("relation", ""),
    "": ("", ""),
}


@pytest.mark.parametrize("query", QUERIES)
def test_kinds(query: str) -> None:
    assert (kind_of(query), type_of(query)) == QUERIES[query]


def test_every_meaning_of_the_grammar_has_a_kind() -> None:
    from training_slices import lesion

    from lsms_rt.datasets.phantom.sentences import random_query

    rng = np.random.default_rng(0)
    lesions = (lesion(1), lesion(2, lobe="right", diameter_mm=35.0))
    assert all(kind_of(random_query(lesions, rng).key()) for _ in range(300))


def judged(true: bool, score: float | None, dice: float = 0.0, case: str = "a", query: str = "") -> Judged:
    """An answer; an empty mask where its Dice is 0."""
    row = Annotation(case, "0", Path("i"), Path("m"), "s", "", "test", query)
    answer = Answer(row, dice, dice > 0, true, None, 1, None)
    return Judged(answer=answer, score=score, dice_open=dice, on_target=None, on_others=None, meant=int(true))


def test_scores_as_a_classifier() -> None:
    true = [judged(True, score, dice=0.8) for score in (0.9, 0.8, 0.3, 0.7)]
    false = [judged(False, score) for score in (0.1, 0.2, 0.3, 0.4)]
    presence = presence_of(true, false)
    assert presence is not None
    # 0.3 loses to 0.4 and ties with 0.3: 14.5 of 16 pairs
    assert presence.auroc == pytest.approx(14.5 / 16)
    # 90 % of four false sentences: the score must exceed the highest of them, and 0.3 does not
    assert presence.missed_at_silence == {"90%": 0.25, "95%": 0.25}
    assert presence.dice_at_silence["95%"] == pytest.approx(0.6)
    # the 5 % quantile of the true scores is 0.3, below which lie two of the four
    assert presence.silence_at_missed["5%"] == 0.5
    assert presence_of(true, []) is None
    assert presence_of([judged(True, None)], false) is None


def test_a_perfect_score_has_no_calibration_error() -> None:
    presence = presence_of([judged(True, 1.0)] * 3, [judged(False, 0.0)] * 3)
    assert presence is not None
    assert (presence.auroc, presence.calibration_error) == (1.0, 0.0)


def test_intervals_resample_cases_not_sentences() -> None:
    values = [(f"case {n % 4}", float(n % 4 < 2)) for n in range(400)]
    low, high = interval_by_case(values) or (1, 0)
    # Four cases, two of them all right: as wide as four numbers allow, however many sentences there are.
    assert low < 0.1
    assert high > 0.9
    assert interval_by_case([("one", 1.0), ("one", 0.0)]) is None


def test_tables_count_true_and_false_sentences() -> None:
    found = tables([
        judged(True, 0.9, dice=0.6, query="cyst+left"),
        judged(True, 0.1, query="cyst"),
        judged(False, 0.1, query="cyst+left"),
        judged(False, 0.9, dice=0.0, query="low"),
    ])  # fmt: skip
    row = found["type"]["cyst"]
    assert (row.true, row.false, row.dice, row.missed, row.dice_where_painted) == (2, 1, 0.3, 0.5, 0.6)
    assert list(found["kind"]) == ["type + lobe", "type", "density"]
    assert tables([judged(True, None)]) == {}


@pytest.fixture
def two_lesions(tmp_path: Path) -> Path:
    """A slice with a low cyst in the left lobe and a high metastasis in the right one."""
    np.save(tmp_path / "0.npy", np.full((20, 20), -50, np.int16))
    for name, boxes in {"0_1": [2], "0_2": [10], "0_1-2": [2, 10], "0_none": []}.items():
        mask = np.zeros((20, 20), np.uint8)
        for start in boxes:
            mask[start : start + 4, start : start + 4] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    rows = [("0_1", "low+left"), ("0_2", "metastasis"), ("0_1-2", "any"), ("0_none", "cyst+right"), ("0_none", "hcc")]
    lines = ["case_id,slice_id,image,mask,sentence,lesion_type,split,query"]
    lines += [f"c,0,0.npy,{mask}.png,{n},x,test,{query}" for n, (mask, query) in enumerate(rows)]
    (tmp_path / "annotations.csv").write_text("\n".join(lines))
    (tmp_path / "lesions.csv").write_text(
        "case_id,slice_id,lesion,lesion_type,lobe,density\nc,0,1,cyst,left,low\nc,0,2,metastasis,right,high\n"
    )
    return tmp_path


def test_reference_lines_obey_some_words_only(two_lesions: Path) -> None:
    lines = reference_lines(two_lesions, read_annotations(two_lesions))
    # Both lesions for one: Dice 2/3.
    assert lines["every lesion"]["dice"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert lines["every lesion"]["silence"] == 0
    # "metastasis" names neither lobe nor density.
    assert lines["lobe and density"]["dice"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert lines["lobe and density"]["silence"] == 0
    assert lines["lobe, density and type"] == {"dice": 1.0, "silence": 1.0}
    (two_lesions / "lesions.csv").unlink()
    assert list(reference_lines(two_lesions, read_annotations(two_lesions))) == ["every lesion"]


def test_sentences_that_are_not_understood_are_counted(two_lesions: Path, tmp_path: Path) -> None:
    class Model:
        """Understands one sentence after another less; knows no word of one."""

        def predict(self, img: object, text: str) -> SimpleNamespace:
            if text == "4":
                raise SentenceNotUnderstoodError("no word")
            return SimpleNamespace(mask=np.zeros((20, 20), bool), understood=("yes", "partly", "no", "no")[int(text)])

    found, answers = evaluate(Model(), read_annotations(two_lesions))
    assert (found.sentences, found.partly_understood, found.not_understood, found.unanswered) == (4, 1, 2, 1)
    save_answers(tmp_path / "a.csv", answers)
    assert [line.split(",")[-1] for line in (tmp_path / "a.csv").read_text().splitlines()] == [
        "understood", "yes", "partly", "no", "no",
    ]  # fmt: skip


class Scored:
    """A model that is right, with scores and probabilities, and a threshold that empties half of its masks."""

    manifest = type("Manifest", (), {"threshold": 0.5})()

    def __init__(self, folder: Path) -> None:
        self.truth = {row.sentence: row.read_mask() for row in read_annotations(folder)}

    def predict(self, img: object, text: str) -> object:
        truth = self.truth[text]
        found = text != "1"
        fields = {"mask": truth & found, "probability": np.where(truth, 0.9, 0.1), "score": 0.9 if truth.any() else 0.1}
        return type("Result", (), fields)()


@pytest.mark.parametrize(("cases", "told"), [(1, False), (2, True), (9, True), (10, False)])
def test_intervals_of_few_cases_are_called_too_narrow(two_lesions: Path, cases: int, told: bool) -> None:
    """Of one case there is none."""
    accuracy, _ = evaluate(Scored(two_lesions), read_annotations(two_lesions))
    assert ("too narrow" in accuracy_text(replace(accuracy, cases=cases), {})) == told


def test_what_the_confidence_rule_hides_is_seen(two_lesions: Path, tmp_path: Path) -> None:
    accuracy, answers = evaluate(Scored(two_lesions), read_annotations(two_lesions))
    assert accuracy.dice == pytest.approx(2 / 3)
    assert accuracy.presence is not None
    assert accuracy.presence.dice_at_silence["95%"] == 1.0
    save_answers(tmp_path / "a.csv", answers)
    assert (tmp_path / "a.csv").stat().st_mode & 0o077 == 0
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == ",".join((*NAMES, *FIGURES))
    assert lines[2].startswith("c,0,metastasis,x,1,0,0.0000,type,,16,0,,0.9000,1.0000,,")
    save_answers(tmp_path / "a.csv", answers, names=False)
    assert (tmp_path / "a.csv").read_text().splitlines()[2].startswith("3,1,0,0.0000,type,,16,0,,0.9000,1.0000,,")


@pytest.mark.parametrize("kind", [InputError, lambda text: DatasetError("table", [text], 1)])
def test_errors_name_the_row(tmp_path: Path, kind: Callable[[str], InputError]) -> None:
    """In evaluate, and in calibrate, which uses ask; their class stays the same."""
    rows = read_annotations(write_dataset(tmp_path / "data"))

    class Choosy:
        def predict(self, img: object, text: str) -> SimpleNamespace:
            if text == rows[1].sentence:
                raise kind("no such word")
            return SimpleNamespace(mask=np.zeros((96, 96), bool), score=None, logits=None)

    for run in (lambda: evaluate(Choosy(), rows[1:]), lambda: list(ask(Choosy(), questions(rows), title=None))):
        with pytest.raises(type(kind("")), match=r"^line 3: .*no such word"):
            run()
    rows[3].image.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"^line 5: "):
        list(questions(rows[3:]))
