"""The accuracy gate: its questions, its verdict, and its report."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_answers import answer as made
from fake_answers import compared, unit

from lsms_rt.calibration import gate
from lsms_rt.calibration.gate import GateData, gate_data, run_gate
from lsms_rt.calibration.pictures import agreement_picture, layers_picture, worst_picture
from lsms_rt.calibration.report import gate_report
from lsms_rt.calibration.search import Trial
from lsms_rt.calibration.sensitivity import Effect
from lsms_rt.datasets.questions import Question, questions
from lsms_rt.datasets.refhl import Annotation, read_annotations
from lsms_rt.errors import InputError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> GateData:
    from lsms_rt.datasets.phantom.dataset import write_phantom
    from lsms_rt.datasets.phantom.spec import PhantomSpec

    folder = tmp_path_factory.mktemp("gate") / "phantom"
    write_phantom(folder, PhantomSpec(cases=2, seed=7, matrix=96), workers=1)
    # As if every sentence were about another patient.
    rows = [
        replace(row, case_id=f"<case {row.line}>", sentence=row.sentence + " $x$") for row in read_annotations(folder)
    ]
    return GateData(rows, "two phantom <cases>", "ab" * 32, frozenset(), user_supplied=True)


@pytest.mark.parametrize(("size", "side"), [(96, 96), (4096, gate.MAX_MATRIX)])
def test_the_phantom_has_the_engines_size(
    size: int, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lsms_rt.datasets.phantom import dataset

    class Seen(Exception):
        pass

    def seen(folder: Path, spec: Any) -> int:
        raise Seen(spec.matrix)

    monkeypatch.setattr(dataset, "write_phantom", seen)
    with pytest.raises(Seen, match=f"^{side}$"):
        gate_data(None, "test", 4, tmp_path, size)


@cache
def read(rows: tuple[Annotation, ...]) -> list[Question]:
    return list(questions(rows))


@pytest.fixture(autouse=True)
def slices_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gate reads all slices twice, which takes longer than all else of it."""
    monkeypatch.setattr(gate, "questions", lambda rows: read(tuple(rows)))


@cache
def truths(folder: Path) -> dict[tuple[bytes, str], np.ndarray]:
    """Image and sentence -> the true mask."""
    return {(id_of(q.ct.hu), q.row.sentence + " $x$"): q.truth for q in questions(read_annotations(folder))}


class Oracle:
    """Knows every true mask, and predicts what ``spoil`` makes of it."""

    def __init__(self, data: GateData, spoil=lambda truth: truth) -> None:  # type: ignore[no-untyped-def]
        self.truth = truths(data.rows[0].image.parents[2])
        self.spoil = spoil

    def predict(self, img, text: str):  # type: ignore[no-untyped-def]
        @dataclass
        class Answer:
            mask: np.ndarray

        return Answer(self.spoil(self.truth[id_of(img.hu), text]))


def id_of(hu: np.ndarray) -> bytes:
    return hu.tobytes()


def shifted(truth: np.ndarray) -> np.ndarray:
    return np.roll(truth, 1, axis=1)


def overeager(truth: np.ndarray) -> np.ndarray:
    mask = truth.copy()
    if not truth.any():
        mask[40:44, 40:44] = True
    return mask


@pytest.mark.slow
def test_the_same_answers_pass(data: GateData) -> None:
    result = run_gate(Oracle(data), Oracle(data), data, 0.1)
    assert result.passed and not result.failures and not result.worst
    assert result.comparison.dice is not None and result.comparison.dice.reference == 1
    assert result.comparison.sentences == len(data.rows)
    assert result.comparison.area is not None and result.comparison.area.bias == 0


@pytest.mark.parametrize(("spoil", "message"), [(shifted, "mean Dice changes"), (overeager, "become false positives")])
def test_worse_answers_are_rejected(data: GateData, spoil, message: str) -> None:  # type: ignore[no-untyped-def]
    result = run_gate(Oracle(data), Oracle(data, spoil), data, 0.1)
    assert not result.passed and message in " ".join(result.failures)
    assert result.worst and result.worst[0].dice_loss == max(a.dice - b.dice for a, b in result.answers)
    # The other way round nothing is lost.
    assert run_gate(Oracle(data, spoil), Oracle(data), data, 0.1).passed


def test_a_reference_that_finds_nothing_cannot_judge(data: GateData) -> None:
    blind = Oracle(data, np.zeros_like)
    result = run_gate(blind, blind, data, 0.1)
    assert not result.passed and not result.failures
    assert "mean Dice of 0.000" in result.unjudged and "--dataset" not in result.unjudged
    phantom = replace(data, user_supplied=False)
    assert "use --dataset" in run_gate(blind, blind, phantom, 0.005).unjudged
    # Failures that can be seen are reported anyway.
    loud = run_gate(blind, Oracle(data, overeager), data, 0.1)
    assert loud.unjudged and "become false positives" in " ".join(loud.failures)


def test_sentences_that_are_rejected_are_counted(data: GateData) -> None:
    class Choosy(Oracle):
        def predict(self, img, text: str):  # type: ignore[no-untyped-def]
            if text == data.rows[0].sentence:
                raise InputError("no such word")
            return super().predict(img, text)

    result = run_gate(Choosy(data), Oracle(data), data, 0.1)
    assert result.passed
    assert f"of {len(data.rows)} sentences were rejected: no such word" in result.unchecked[0]
    assert "Not checked:" in gate_report({"precision": "fp16"}, data, result, 0.1, accepted=False)


def test_a_vocabulary_that_knows_no_word(data: GateData) -> None:
    class Foreign:
        def predict(self, img, text: str):  # type: ignore[no-untyped-def]
            raise InputError(f"no word of {text!r} is known")

    result = run_gate(Foreign(), Oracle(data), data, 0.1)
    assert f"{len(data.rows)} of {len(data.rows)} sentences were rejected: no word of" in result.unjudged


def test_the_data_of_a_gate(tmp_path: Path, data: GateData) -> None:
    folder = data.rows[0].image.parents[2]
    split = data.rows[0].split
    some = gate_data(folder, split, 3, tmp_path, 96)
    assert len(some.rows) == 3 and some.user_supplied and split in some.description
    assert (
        some.digest
        == gate_data(folder, split, 3, tmp_path, 96).digest
        != gate_data(folder, split, 4, tmp_path, 96).digest
    )
    with pytest.raises(InputError, match="has no rows of the split that was asked for"):
        gate_data(folder, "nowhere", 3, tmp_path, 96)


def test_the_report_shows_the_result(data: GateData) -> None:
    rejected = run_gate(Oracle(data), Oracle(data, lambda truth: overeager(shifted(truth))), data, 0.1)
    engine = {"precision": "int8", "weights": "<demo>"}
    page = gate_report(engine, data, rejected, 0.1, accepted=True)
    assert "<b>Rejected.</b>" in page and "--accept" in page and "not a medical device" in page
    assert "&lt;demo&gt;" in page and "two phantom &lt;cases&gt;" in page and "<demo>" not in page
    assert page.count("data:image/png;base64,") == 2
    # Nothing is fetched: the page is self-contained.
    assert not re.search(r"(?:src|href)=['\"]https?:", page)
    assert f"{rejected.comparison.dice.engine:.4f}" in page  # type: ignore[union-attr]
    assert "New false positives: only the engine predicts a mask" in page
    # Of lesions, the report and the manifest show what the verdict does not use.
    lesions = rejected.to_dict()["lesions"]
    assert lesions["reference"]["f1"] == lesions["reference"]["hit_rate"] == 1
    assert lesions["engine"]["precision"] < lesions["engine"]["recall"] <= 1
    assert f"<td>F1 per lesion</td><td class=n>1.0000</td><td class=n>{lesions['engine']['f1']:.4f}</td>" in page
    false = lesions["engine"]["false"]
    assert f"<td>predicted lesions that match none</td><td class=n>0</td><td class=n>{false}</td>" in page
    # Rows of a user's data set are called by their lines, unless names are shown.
    assert "case 7" not in page and data.rows[0].sentence not in page
    passed = gate_report(engine, data, run_gate(Oracle(data), Oracle(data), data, 0.1), 0.1, accepted=False)
    assert "<b>Passed.</b>" in passed and "Rejected" not in passed and "No answer lost any Dice" in passed


@pytest.mark.slow
def test_pictures_are_drawn(data: GateData, tmp_path: Path) -> None:
    """Not blank, also for unusual input: empty masks only, one answer, no trial."""
    from PIL import Image

    result = run_gate(Oracle(data), Oracle(data, shifted), data, 0.1)
    units = [unit("encoder.stages.0.blocks.0.mlp.expand", 10), unit("linear_1", 1, "text")]
    effects = {u.key: Effect(u.key, "minmax", noise, 30, 0) for u, noise in zip(units, (1.0, 0.0), strict=True)}
    trial = Trial(1, 0.5, 1.0, compared((made(1, 0.5), made(1, 0.4))), ("exceeded",), ())
    for number, png in enumerate(
        [
            worst_picture(result.worst, names=True), agreement_picture(result.answers), agreement_picture([]),
            layers_picture(units, effects, {units[0].key}, [trial]), layers_picture(units, effects, set(), []),
        ]
    ):  # fmt: skip
        path = tmp_path / f"{number}.png"
        path.write_bytes(png)
        assert np.asarray(Image.open(path).convert("L")).std() > 5
    pixels = np.asarray(Image.open(tmp_path / "0.png").convert("RGB")).astype(int)
    # Truth, reference and engine are all outlined.
    for color in ((0, 255, 0), (0, 191, 255), (255, 0, 0)):
        assert (np.abs(pixels - color).sum(-1) < 60).sum() > 50, color
