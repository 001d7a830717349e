"""A run from start to checkpoint on six slices: it stops, resumes, and records what it did."""

from __future__ import annotations

import copy
import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch

from lsms_rt.data import demo_checkpoint
from lsms_rt.errors import InputError, LsmsError, MachineError
from lsms_rt.model import LSMS, LsmsConfig, TextConfig, preset
from lsms_rt.tokenizer import Tokenizer
from lsms_rt.training.batches import Sampler, Shape
from lsms_rt.training.figures import draw_curves
from lsms_rt.training.fit import fit
from lsms_rt.training.heads import TrainingHeads
from lsms_rt.training.recipe import Recipe, Stage, default_recipe
from lsms_rt.training.release import history
from lsms_rt.training.run import LOG, STATE, Length, Run
from lsms_rt.training.slices import Slices
from lsms_rt.training.start import from_checkpoint, new_model
from lsms_rt.training.validation import Scores, Validation, choose_operating_point, figures

CROPS, WHOLE = Shape(slices=2, size=64, whole=False), Shape(slices=1, size=96, whole=True)
RECIPE = Recipe(
    stages=(
        Stage(name="words", until=0.7, shape=CROPS, dense=0.5, rate=(1.0, 1.0), average=0.9),
        Stage(name="whole", until=1.0, shape=WHOLE, dense=0.0, rate=(0.4, 0.0), average=0.9),
    )
)


def config(words: int) -> LsmsConfig:
    text = TextConfig(vocab_size=words, hidden_size=32, layers=1, heads=2, intermediate_size=64)
    return preset("tiny", image_size=96, text=text, presence=True, subpixel=2, crop="body")


def new_run(folder: Path, slices: Slices) -> Run:
    if not (folder / "tokenizer.json").exists():
        # The one of the phantom's grammar, which takes a second to write.
        shutil.copy(demo_checkpoint() / "tokenizer.json", folder)
    tokenizer = Tokenizer((folder / "tokenizer.json").read_bytes(), 32)
    torch.manual_seed(0)
    settings = config(tokenizer.vocab_size)
    return Run(
        model=new_model(settings, 0.3),
        heads=TrainingHeads(settings),
        recipe=RECIPE,
        tokenizer=tokenizer,
        sampler=Sampler([slices], image_size=96, window=settings.hu_window, seed=0, crop_body=True),
        folder=folder,
        device=torch.device("cpu"),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, phantom_slices: Slices) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    run = new_run(folder, phantom_slices)
    run.log({"data": {"phantom_version": 2, "cases": 2}, "init": "", "commit": "c", "date": "d", "device": {}})
    still = Sampler([phantom_slices], image_size=96, window=(-160.0, 240.0), seed=0, crop_body=True, augmented=False)
    held_out = Validation([phantom_slices], run.tokenizer, still, slices=4)
    fitted = fit(run, held_out, Length(updates=4), folder / "tokenizer.json")
    run.log({"operating point": fitted.operating_point})
    fitted.model.save_pretrained(folder / "model", tokenizer=folder / "tokenizer.json")
    return folder


@pytest.mark.slow
def test_a_run_leaves_a_checkpoint_and_its_history(finished: Path, tmp_path: Path) -> None:
    model = LSMS.from_pretrained(finished / "model")
    assert (model.config.crop, model.config.presence, model.config.subpixel) == ("body", True, 2)
    assert 0 < model.config.confidence < 1
    record = history(finished / LOG)
    assert record["updates"] == 4
    assert record["examples"] > 0
    assert [start["commit"] for start in record["starts"]] == ["c"]
    assert record["curve"][0]["stage"] == "start"
    assert record["operating_point"]["threshold"] in (0.3, 0.4, 0.5, 0.6)
    best = json.loads((finished / "best" / "validation.json").read_text())
    assert best["updates"] <= 4
    draw_curves(finished / LOG, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


@pytest.mark.slow
def test_a_longer_run_continues_from_its_state(finished: Path, phantom_slices: Slices, tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes((finished / STATE).read_bytes())
    run = new_run(tmp_path, phantom_slices)
    run.resume()
    assert run.done.updates == 4
    saved = torch.load(finished / STATE, weights_only=True)
    # Optimizer and auxiliary heads come back too: without them a resumed run loses its first quarter of an hour.
    assert len(run.optimizer.state_dict()["state"]) == len(saved["optimizer"]["state"]) > 0
    for name, value in run.heads.state_dict().items():
        assert torch.equal(value, saved["everything"][f"heads.{name}"])
    run.train(Length(updates=6))
    assert torch.load(tmp_path / STATE, weights_only=True)["done"]["updates"] == 6


@pytest.mark.slow
def test_an_interrupted_run_saves_its_state(phantom_slices: Slices, tmp_path: Path) -> None:
    run = new_run(tmp_path, phantom_slices)

    def stop(_: Stage) -> None:
        if run.done.updates == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.train(Length(updates=50), after=stop)
    again = new_run(tmp_path, phantom_slices)
    again.resume()
    assert again.done.updates == 2
    for a, b in zip(run.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_gradient_that_is_not_finite_changes_no_weights(
    phantom_slices: Slices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the network nor the average; many in a row end the run, which can be resumed."""
    run = new_run(tmp_path, phantom_slices)
    run.update(0.0)
    before = copy.deepcopy([*run.model.parameters(), *run.average.parameters()])
    loss = Run._loss

    def broken(self: Run, *arguments: Any) -> tuple[torch.Tensor, dict[str, float]]:
        value, parts = loss(self, *arguments)
        return value * float("nan"), parts

    monkeypatch.setattr(Run, "_loss", broken)
    monkeypatch.setattr("lsms_rt.training.run.MOST_SKIPPED", 3)
    with pytest.raises(LsmsError, match=r"gradients of 3 updates in a row, up to update 4, are not finite; .*cpu"):
        run.train(Length(updates=9))
    after = [*run.model.parameters(), *run.average.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    monkeypatch.setattr(Run, "_loss", loss)
    again = new_run(tmp_path, phantom_slices)
    again.resume()
    again.train(Length(updates=5))
    assert again.done.updates == 5
    assert np.isfinite(again.smooth["loss"])


def test_a_state_that_cannot_be_read_is_refused(phantom_slices: Slices, tmp_path: Path) -> None:
    run = new_run(tmp_path, phantom_slices)
    (tmp_path / STATE).write_bytes(b"not a state")
    with pytest.raises(InputError, match="cannot be resumed"):
        run.resume()


@pytest.mark.slow
def test_a_full_disk_leaves_the_state_before(
    phantom_slices: Slices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(tmp_path, phantom_slices)
    (tmp_path / STATE).write_bytes(b"the state before")

    def full(_: object, file: BinaryIO) -> None:
        file.write(b"half of a state")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MachineError, match="free some disk space"):
        run.save()
    assert (tmp_path / STATE).read_bytes() == b"the state before"
    assert not list(tmp_path.glob("*.part*"))


def test_stages_follow_the_share_of_the_run() -> None:
    names = [RECIPE.stage(progress)[0].name for progress in (0.0, 0.69, 0.7, 1.0)]
    assert names == ["words", "words", "whole", "whole"]
    assert RECIPE.stage(0.3)[1] == pytest.approx(RECIPE.learning_rate)
    assert RECIPE.stage(0.7)[1] == pytest.approx(0.4 * RECIPE.learning_rate)
    assert RECIPE.stage(1.0)[1] == pytest.approx(0.0)


def test_no_dense_batches_where_lesions_may_be_missing() -> None:
    settings = config(50)
    assert all(stage.dense == 0 for stage in default_recipe(settings, complete=False).stages)
    assert default_recipe(settings, complete=True).stages[0].dense > 0.5


def test_length_in_hours_and_updates() -> None:
    assert Length(hours=2).progress(updates=999, seconds=3600) == 0.5
    assert Length(updates=10).progress(updates=5, seconds=1e9) == 0.5
    assert Length(updates=10).progress(updates=50, seconds=0) == 1.0


def scores(pixel: list[float], presence: list[float], dice: list[float], meant: list[bool]) -> Scores:
    return Scores(
        dice=np.array([[value, value / 2, 0, 0] for value in dice]),
        pixel=np.array(pixel),
        presence=np.array(presence),
        meant=np.array(meant),
    )


def test_specificity_comes_first_then_dice() -> None:
    """Twenty false sentences with scores 1 to 20: a specificity of 0.95 leaves one of them."""
    false = [float(score) for score in range(1, 21)]
    found = scores(
        pixel=[99.0] * 24,
        presence=[25.0, 19.5, 18.0, 0.5, *false],
        dice=[0.8, 0.6, 0.4, 0.2] + [0.0] * 20,
        meant=[True] * 4 + [False] * 20,
    )
    point = choose_operating_point(found, 0.95)
    assert point["threshold"] == 0.3
    assert point["specificity"] >= 0.95
    assert (point["missed"], point["hit_rate"]) == (0.5, 0.5)
    assert point["dice"] == pytest.approx((0.8 + 0.6) / 4)


def test_either_logit_limits_the_score() -> None:
    found = scores([5.0, -4.0], [-1.0, 3.0], [1.0, 0.0], [True, False])
    assert found.score.tolist() == [-1.0, -4.0]
    assert figures(found)["presence_auc"] == 1.0


def test_presence_and_subpixels_are_added_to_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old = LSMS(replace(config(50), presence=False, subpixel=1)).eval()
    old.save_pretrained(tmp_path)
    new = from_checkpoint(tmp_path, presence=True, subpixel=2).eval()
    image, tokens, mask = torch.rand(1, 1, 96, 96), torch.randint(0, 50, (1, 5)), torch.ones(1, 5)
    with torch.no_grad():
        a, b = old(image, tokens, mask), new(image, tokens, mask)
    # Sub-pixels begin as their cell, so only the interpolation between cells differs; the new head caps at 3.
    assert torch.allclose(a.mean(), b.mean(), atol=1e-2)
    with pytest.raises(InputError, match="cannot be trained further"):
        from_checkpoint(tmp_path / "nothing")
