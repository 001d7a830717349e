"""Measurements: that they measure, and state where they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsms_rt.bench import real_ct
from lsms_rt.bench.accuracy import evaluate, save_answers
from lsms_rt.data import DATA
from lsms_rt.datasets.refhl import read_annotations
from lsms_rt.errors import InputError
from lsms_rt.postprocess import dice
from lsms_rt.reading.load import load_slice
from lsms_rt.segmenter import Segmenter


class Oracle:
    """Stands in for a Segmenter: answers each sentence with a given mask."""

    def __init__(self, masks: dict[str, np.ndarray]) -> None:
        self.masks = masks

    def predict(self, _: object, text: str):
        return type("Answer", (), {"mask": self.masks[text]})()


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
    # One that always answers with the left lesion: deaf, but it looks well on the first sentence.
    deaf, answers = evaluate(Oracle(dict.fromkeys(truth, truth["first"])), rows)  # type: ignore[arg-type]
    assert deaf.dice == pytest.approx(2 / 3)
    assert (deaf.dice_other, deaf.silence, deaf.missed, deaf.paraphrase_dice) == (0, 0, 0, 1)
    assert deaf.dice_by_diameter_mm is None  # arrays have no spacing
    save_answers(tmp_path / "answers.csv", answers)
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 6


def test_a_mask_in_another_grid_is_refused(dataset: Path) -> None:
    Image.fromarray(np.zeros((1, 20), np.uint8)).save(dataset / "left.png")
    rows = read_annotations(dataset)
    with pytest.raises(InputError, match="one grid"):
        evaluate(Oracle({row.sentence: np.zeros((20, 20), bool) for row in rows}), rows)  # type: ignore[arg-type]


def test_the_real_slice_with_a_painted_lesion(demo_engine: Path, tmp_path: Path) -> None:
    """Runs end to end; the painted disc lies in the liver and comes back in the file's own grid."""
    from pydicom.data import get_testdata_file

    plain = load_slice(get_testdata_file(real_ct.NAME))
    image, disc = real_ct.painted(plain)
    assert 80 < np.median(plain.hu[disc]) < 160  # enhanced liver, before the brush
    assert -10 < np.median(image.hu[disc]) < 30
    changed = image.hu != plain.hu
    assert (changed & disc).sum() > 0.9 * disc.sum()
    assert (changed & ~disc).sum() < 0.15 * disc.sum()  # the soft edge
    answers = real_ct.answer(demo_engine, tmp_path / "real.png")
    assert [a.image for a in answers] == ["as it is", "painted", "painted"]
    assert (tmp_path / "real.png").stat().st_size > 50_000


def test_the_shipped_weights_answer_the_shipped_examples(demo_engine: Path) -> None:
    """Not a claim of quality, a guard: weights that are always silent, or that never are, fail here."""
    import json

    rows = json.loads((DATA / "examples/examples.json").read_text())
    with Segmenter(demo_engine) as segmenter:
        masks = [segmenter.predict(DATA / "examples" / row["image"], row["text"]).mask for row in rows]
    truths = [np.asarray(Image.open(DATA / "examples" / row["mask"])) > 127 for row in rows]
    true = [dice(mask, truth) for mask, truth in zip(masks, truths, strict=True) if truth.any()]
    silent = [not mask.any() for mask, truth in zip(masks, truths, strict=True) if not truth.any()]
    assert len(true) == 6
    assert sum(value > 0.7 for value in true) >= 2
    assert sum(silent) >= 2


def test_the_shipped_weights_listen(demo_engine: Path) -> None:
    """In a slice with a dark lesion in each lobe: the other lobe is another answer, other words are not."""
    image = DATA / "examples" / "phantom_1.dcm"
    texts = ("the {} lesion in the left lobe of the liver", "the {} lesion in the right lobe of the liver")
    with Segmenter(demo_engine) as segmenter:
        left, right = (segmenter.predict(image, text.format("low-density")).mask for text in texts)
        again = segmenter.predict(image, texts[0].format("hypodense")).mask
        bright = segmenter.predict(image, texts[0].format("hyperdense")).mask
    assert left.any()
    assert right.any()
    assert dice(left, right) < 0.1
    assert dice(left, again) > 0.8
    assert not bright.any()
