"""Accuracy on a data set, a real slice, and the quality of the bundled weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsms_rt.bench import real_ct
from lsms_rt.bench.accuracy.answers import save_answers
from lsms_rt.bench.accuracy.evaluate import evaluate
from lsms_rt.data import DATA
from lsms_rt.datasets.refhl import read_annotations
from lsms_rt.errors import InputError
from lsms_rt.postprocess import dice
from lsms_rt.reading.load import load_slice
from lsms_rt.segmenter import Segmenter


class Oracle:
    """A fake Segmenter that returns a given mask for each sentence."""

    def __init__(self, masks: dict[str, np.ndarray]) -> None:
        self.masks = masks

    def predict(self, _: object, text: str):
        return type("Result", (), {"mask": self.masks[text]})()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two lesions in one slice, five sentences; rows of two slices interleaved."""
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.full((20, 20), -50, np.int16))
    masks = {"left": np.zeros((20, 20), bool), "right": np.zeros((20, 20), bool), "none": np.zeros((20, 20), bool)}
    masks["left"][2:6, 2:6] = True
    masks["right"][10:14, 10:14] = True
    for name, mask in masks.items():
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(tmp_path / f"{name}.png")
    rows = [
        ("a", "left", "first", "q1"),
        ("b", "none", "of b", "q0"),
        ("a", "left", "first again", "q1"),
        ("a", "right", "second", "q2"),
        ("a", "none", "false", "q3"),
    ]
    lines = ["case_id,slice_id,image,mask,sentence,lesion_type,split,query"]
    lines += [f"c,{image},{image}.npy,{mask}.png,{text},x,test,{query}" for image, mask, text, query in rows]
    (tmp_path / "annotations.csv").write_text("\n".join(lines))
    return tmp_path


def test_accuracy_by_hand(dataset: Path, tmp_path: Path) -> None:
    rows = read_annotations(dataset)
    truth = {row.sentence: row.read_mask() for row in rows}
    perfect, _ = evaluate(Oracle(truth), rows)  # type: ignore[arg-type]
    assert (perfect.dice, perfect.dice_other, perfect.silence, perfect.missed, perfect.paraphrase_dice) == (
        1,
        1,
        1,
        0,
        1,
    )
    assert (perfect.cases, perfect.slices, perfect.sentences) == (1, 2, 5)
    # A model that ignores the sentence and always segments the left lesion is right for the first sentence.
    deaf, answers = evaluate(Oracle(dict.fromkeys(truth, truth["first"])), rows)  # type: ignore[arg-type]
    assert deaf.dice == pytest.approx(2 / 3)
    assert (deaf.dice_other, deaf.silence, deaf.missed, deaf.paraphrase_dice) == (0, 0, 0, 1)
    # It segments the left lesion for three true sentences, once wrongly; nobody's lesion is elsewhere.
    assert (deaf.on_target, deaf.on_others, deaf.elsewhere) == (pytest.approx(2 / 3), pytest.approx(1 / 3), 0)
    assert (perfect.told_apart, deaf.told_apart, deaf.wrong_lesion) == (1, 0, pytest.approx(1 / 3))
    assert (deaf.dice_by_meaning, deaf.paraphrase_flips) == (0.5, 0)
    # Arrays have no spacing, one case has no interval, the oracle gives no scores.
    assert deaf.dice_by_diameter_mm is None
    assert deaf.intervals == {"dice": None, "silence": None, "missed": None, "hit_rate": None}
    assert (perfect.hit_rate, deaf.hit_rate) == (1, pytest.approx(2 / 3))
    # Its left lesion is found for two of three true sentences, and is a false positive for the others.
    assert deaf.lesions is not None
    assert (deaf.lesions.meant, deaf.lesions.predicted, deaf.lesions.found) == (3, 5, 2)
    assert deaf.surface is not None
    assert (deaf.surface.measured, deaf.surface.without_spacing) == (0, 3)
    assert deaf.presence is None
    save_answers(tmp_path / "answers.csv", answers)
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 6


def test_a_mask_in_another_grid_is_rejected(dataset: Path) -> None:
    Image.fromarray(np.zeros((1, 20), np.uint8)).save(dataset / "left.png")
    rows = read_annotations(dataset)
    with pytest.raises(InputError, match="the image's own grid"):
        evaluate(Oracle({row.sentence: np.zeros((20, 20), bool) for row in rows}), rows)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_real_slice_with_a_drawn_lesion(demo_engine: Path, tmp_path: Path) -> None:
    """The drawn disc lies in the liver, and the results are in the grid of the file."""
    from pydicom.data import get_testdata_file

    plain = load_slice(get_testdata_file(real_ct.NAME))
    image, disc = real_ct.with_lesion(plain)
    # Enhanced liver, before drawing.
    assert 80 < np.median(plain.hu[disc]) < 160
    assert -10 < np.median(image.hu[disc]) < 30
    changed = image.hu != plain.hu
    assert (changed & disc).sum() > 0.9 * disc.sum()
    # The soft edge.
    assert (changed & ~disc).sum() < 0.15 * disc.sum()
    answers = real_ct.answer(demo_engine, tmp_path / "real.png")
    assert [a.image for a in answers] == ["as it is", "with a lesion", "with a lesion"]
    assert (tmp_path / "real.png").stat().st_size > 50_000


@pytest.mark.slow
def test_the_bundled_weights_segment_the_bundled_examples(demo_engine: Path) -> None:
    """Weights that always or never predict an empty mask fail here; this says nothing about quality."""
    import json

    rows = json.loads((DATA / "examples/examples.json").read_text())
    with Segmenter(demo_engine) as segmenter:
        masks = [segmenter.predict(DATA / "examples" / row["image"], row["text"]).mask for row in rows]
    truths = [np.asarray(Image.open(DATA / "examples" / row["mask"])) > 127 for row in rows]
    positive = [dice(mask, truth) for mask, truth in zip(masks, truths, strict=True) if truth.any()]
    empty = [not mask.any() for mask, truth in zip(masks, truths, strict=True) if not truth.any()]
    assert len(positive) == 6
    assert sum(value > 0.7 for value in positive) >= 2
    assert sum(empty) >= 2


@pytest.mark.usefixtures("bundled_engine_opened_once")
def test_the_bundled_weights_follow_the_sentence(demo_engine: Path) -> None:
    """In a slice with a dark lesion in each lobe, the other lobe changes the mask, and a synonym does not.

    The negative sentences of all bundled examples get an empty mask.
    """
    image = DATA / "examples" / "phantom_1.dcm"
    texts = ("the {} lesion in the left lobe of the liver", "the {} lesion in the right lobe of the liver")
    with Segmenter(demo_engine) as segmenter:
        left, right = (segmenter.predict(image, text.format("low-density")).mask for text in texts)
        again = segmenter.predict(image, texts[0].format("hypodense")).mask
        examples = json.loads((DATA / "examples" / "examples.json").read_text())
        folder = DATA / "examples"
        negative = [row for row in examples if not np.asarray(Image.open(folder / row["mask"])).any()]
        answers = [segmenter.predict(folder / row["image"], row["text"]).mask for row in negative]
    assert left.any()
    assert right.any()
    assert dice(left, right) < 0.1
    assert dice(left, again) > 0.8
    assert len(negative) == 3
    assert not any(mask.any() for mask in answers)
