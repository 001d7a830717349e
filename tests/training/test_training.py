"""The training road on a corpus of two cases: it learns, stops, resumes, and says what it did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lsms_rt.datasets.phantom.anatomy import Organ
from lsms_rt.model import LSMS
from lsms_rt.tokenizer import Tokenizer
from lsms_rt.training.batches import ATTRIBUTES, ORGANS, Sampler
from lsms_rt.training.corpus import read_corpus, write_corpus
from lsms_rt.training.losses import dice_loss
from lsms_rt.training.release import best_weights, choose_thresholds, history
from lsms_rt.training.train import Phase, Recipe, train

RECIPE = Recipe(
    phases=(Phase(2, 64, 2, 0.5), Phase(1, 96, 2, 1.0)),
    image_size=96,
    cases=2,
    slices_per_case=3,
    validation_cases=1,
    text_updates=3,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(RECIPE, out, workers=1)
    return out


@pytest.mark.slow
def test_a_run_leaves_a_checkpoint_and_its_history(run: Path) -> None:
    model = LSMS.from_pretrained(run / "model")
    assert model.config.image_size == 96
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    assert state["done"] == 3
    record = history(run / "log.jsonl")
    assert [start["start"] for start in record["starts"]] == [0]
    assert record["recipe_of_last_start"]["cases"] == 2


@pytest.mark.slow
def test_a_longer_recipe_resumes_and_is_on_record(run: Path) -> None:
    before = torch.load(run / "checkpoint.pt", weights_only=True)["average"]
    train(replace(RECIPE, phases=(Phase(2, 64, 2, 0.5), Phase(3, 96, 2, 1.0))), run, workers=1)
    after = torch.load(run / "checkpoint.pt", weights_only=True)
    assert after["done"] == 5
    assert any(not torch.equal(a, b) for a, b in zip(before.values(), after["average"].values(), strict=True))
    assert [start["start"] for start in history(run / "log.jsonl")["starts"]] == [0, 3]
    with pytest.raises(ValueError, match="remove it"):
        train(replace(RECIPE, cases=3), run, workers=1)


@pytest.mark.slow
def test_a_run_can_begin_with_given_weights(run: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, phases=(Phase(1, 64, 2, 0.5),), learning_rate=0.0, weight_decay=0.0)
    for name in ("train", "validation"):
        (tmp_path / name).symlink_to(run / name)
    train(recipe, tmp_path, workers=1, init=run / "model")
    before, after = (LSMS.from_pretrained(place / "model").state_dict() for place in (run, tmp_path))
    for name, value in before.items():
        if "running" not in name and "num_batches" not in name:  # a batch moves these even at rate zero
            torch.testing.assert_close(after[name], value, rtol=0, atol=0)


@pytest.mark.slow
def test_thresholds_are_chosen_from_the_table(run: Path) -> None:
    model = LSMS.from_pretrained(run / "model")
    tokenizer = Tokenizer((run / "tokenizer.json").read_bytes(), 32)
    choice = choose_thresholds(model, read_corpus(run / "train"), tokenizer, 6)
    assert choice["confidence"] in [row["confidence"] for row in choice["table"]]
    silence = [row["silence"] for row in choice["table"]]
    assert silence == sorted(silence)  # more confidence, more silence


@pytest.mark.slow
def test_the_better_of_two_weights_is_chosen(run: Path) -> None:
    tokenizer = Tokenizer((run / "tokenizer.json").read_bytes(), 32)
    model, figures = best_weights(run, read_corpus(run / "train"), tokenizer, 10)
    assert figures["chosen"] in ("average", "last")
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    wanted = state["average"] if figures["chosen"] == "average" else None
    found = model.state_dict()["decoder.predict.weight"]
    source = state["model"]["model.decoder.predict.weight"] if wanted is None else wanted["decoder.predict.weight"]
    torch.testing.assert_close(found, source, rtol=1e-3, atol=1e-4)  # the average is stored in fp16


@pytest.mark.slow
def test_batches_are_what_their_sentences_say(run: Path) -> None:
    corpus = read_corpus(run / "train")
    sampler = Sampler(corpus, Tokenizer((run / "tokenizer.json").read_bytes(), 32), (-160, 240), seed=1)
    for size, full in ((64, 0.0), (96, 1.0)):
        batch = sampler.batch(3, size, full)
        assert batch.image.shape == batch.target.shape == (6, 1, size, size)
        assert batch.image.min() >= -1
        assert batch.image.max() <= 1
        lesion = batch.classes >= ORGANS
        assert not (batch.target[:, 0] > 0)[~lesion].any()  # only lesions are ever meant
        assert batch.attributes.shape == (6, len(ATTRIBUTES))
        assert torch.equal(batch.image[0], batch.image[1])  # two sentences a slice
    assert max(Organ) < ORGANS


@pytest.mark.slow
def test_the_whole_slice_is_shown_when_asked(tmp_path: Path) -> None:
    write_corpus(tmp_path, [77], 4, 96, 1)
    corpus = read_corpus(tmp_path)
    sampler = Sampler(corpus, None, (-160.0, 240.0), seed=0, augment=False)  # type: ignore[arg-type]
    hu, labels, places = sampler._crop(1, 96, full=True)
    np.testing.assert_array_equal(hu.numpy(), corpus.hu[1])
    np.testing.assert_array_equal(labels.numpy(), corpus.labels[1])
    for _ in range(20):  # a crop never cuts a lesion off
        _, _, places = sampler._crop(1, 96, full=False)
        assert set(np.unique(places.numpy())) >= set(range(1, 1 + len(corpus.lesions[1])))


def test_dice_loss_by_hand() -> None:
    target = torch.zeros(3, 1, 8, 8)
    target[:2, :, :4] = 1
    logits = torch.where(target > 0, 20.0, -20.0)
    logits[1] = -logits[1]
    right, wrong, silent = dice_loss(logits, target)
    assert right < 1e-5
    assert wrong > 0.98
    assert silent < 1e-5
    assert dice_loss(torch.full((1, 1, 8, 8), 20.0), target[2:]).item() > 0.9  # paints where nothing is meant


def test_history_is_read_from_the_log(tmp_path: Path) -> None:
    rows = [
        {"start": 0, "commit": "a", "date": "d", "versions": {}, "device": {}, "recipe": {"x": 1}},
        {"update": 20, "size": 128, "seconds": 10},
        {"update": 40, "size": 128, "seconds": 20},
        {"update": 60, "size": 256, "seconds": 3600},
    ]
    (tmp_path / "log").write_text("\n".join(map(json.dumps, rows)))
    record = history(tmp_path / "log")
    assert record["updates"] == {"128x128": 40, "256x256": 20}
    assert record["hours"] == 1.0
