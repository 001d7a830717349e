"""The losses, by hand."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from training_slices import two_squares

from lsms_rt.datasets.phantom.queries import Query
from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.training.batches import FURTHER, Batch, Sampler, Shape
from lsms_rt.training.heads import SAID, TrainingHeads
from lsms_rt.training.losses import Weights, dice_loss, hard_background, null_sentence, selection_loss, step_loss
from lsms_rt.training.sentences import Mix
from lsms_rt.training.slices import Slices

TEXT = TextConfig(vocab_size=50, hidden_size=32, layers=1, heads=2, intermediate_size=64)


def network() -> LSMS:
    torch.manual_seed(0)
    return LSMS(preset("tiny", image_size=64, text=TEXT, presence=True, subpixel=2))


def batch_of(index: torch.Tensor, wanted: list[list[int]]) -> Batch:
    chosen = torch.zeros(len(index), FURTHER + 1)
    for row, numbers in enumerate(wanted):
        chosen[row, numbers] = 1
    return Batch(
        image=torch.zeros(len(index), 1, *index.shape[1:]),
        index=index,
        wanted=chosen,
        target=chosen.gather(1, index.flatten(1)).view(index.shape)[:, None],
        origin=torch.zeros(len(index), 2),
        organs=None,
        lesions=None,
        sentences=[],
    )


def test_dice_loss() -> None:
    target = torch.zeros(3, 1, 8, 8)
    target[:2, :, :4] = 1
    logits = torch.where(target > 0, 20.0, -20.0)
    logits[1] = -logits[1]
    right, wrong, empty = dice_loss(logits, target)
    assert right < 1e-5
    assert wrong > 0.98
    assert empty < 1e-5
    assert dice_loss(torch.full((1, 1, 8, 8), 20.0), target[2:]).item() > 0.9


def test_every_region_has_one_vote() -> None:
    index = torch.zeros(1, 16, 16, dtype=torch.long)
    index[0, :8, :8], index[0, 12, 12] = 1, 2
    batch = batch_of(index, [[2]])
    logits = torch.where(index == 1, -3.0, 3.0)[:, None]
    loss, right = selection_loss(logits, batch)
    assert right == 1.0
    assert loss.item() == pytest.approx(torch.nn.functional.softplus(torch.tensor(-3.0)).item())
    # The small region alone is on the wrong side: half of the votes.
    loss, right = selection_loss(torch.full((1, 1, 16, 16), -3.0), batch)
    assert right == 0.5


def test_regions_that_are_not_shown_do_not_vote() -> None:
    batch = batch_of(torch.zeros(1, 16, 16, dtype=torch.long), [[1]])
    loss, right = selection_loss(torch.randn(1, 1, 16, 16), batch)
    assert loss.item() == 0
    assert right == 0


def test_hard_background_sees_false_positives_only() -> None:
    index = torch.zeros(1, 16, 16, dtype=torch.long)
    index[0, :4] = 1
    logits = torch.full((1, 1, 16, 16), -20.0)
    logits[0, 0, :4] = 9.0
    assert hard_background(logits, index).item() < 1e-6
    logits[0, 0, 8:12] = 9.0
    assert hard_background(logits, index).item() == pytest.approx(9.0, abs=1e-3)


@torch.no_grad()
def test_the_null_sentence_adds_nothing() -> None:
    """With the null sentence the language branches add exactly zero, whatever their weights."""
    model = network().eval()
    image = torch.rand(2, 1, 64, 64) * 2 - 1
    before = model.encoder(image, null_sentence(model, 2))
    for name, parameter in model.named_parameters():
        if ".language." in name:
            parameter.copy_(torch.randn_like(parameter))
    for a, b in zip(before, model.encoder(image, null_sentence(model, 2)), strict=True):
        assert torch.equal(a, b)


def test_a_step_reaches_every_parameter(phantom_slices: Slices) -> None:
    model = network()
    heads = TrainingHeads(model.config)
    sampler = Sampler([phantom_slices], image_size=96, window=(-160.0, 240.0), seed=0, crop_body=True)
    shape = Shape(slices=2, size=64, whole=False)
    tokens = (torch.randint(0, 50, (4, 9)), torch.ones(4, 9))
    loss, parts = step_loss(model, heads, sampler.batch(shape, Mix()), tokens, Weights())
    assert {"bce", "dice", "select", "hard", "presence", "contrast", "pixels", "looks", "sentence"} <= set(parts)
    loss.backward()
    parameters = [*model.named_parameters(), *heads.named_parameters()]
    # These two cancel in the InstanceNorms, so the folded form leaves them out.
    canceled = ("language.query.bias", "language.output.bias")
    unreached = [name for name, parameter in parameters if parameter.grad is None and not name.endswith(canceled)]
    assert unreached == []
    loss, parts = step_loss(model, heads, sampler.batch(shape, None), None, Weights())
    assert "presence" not in parts
    loss.backward()


def test_what_a_data_set_does_not_know_is_left_out() -> None:
    model = network()
    sampler = Sampler([two_squares()], image_size=96, window=(-160.0, 240.0), seed=0, crop_body=False)
    batch = sampler.batch(Shape(slices=1, size=64, whole=False), Mix())
    tokens = (torch.randint(0, 50, (2, 5)), torch.ones(2, 5))
    _, parts = step_loss(model, TrainingHeads(model.config), batch, tokens, Weights())
    assert not {"pixels", "looks", "sentence"} & set(parts)
    assert {"bce", "dice", "select", "presence"} <= set(parts)


def test_organs_are_learned_without_the_lesions_types(phantom_slices: Slices) -> None:
    """Nothing is asked of a lesion then: not even that it is liver."""
    records = tuple(replace(record, lesions=None) for record in phantom_slices.records)
    sampler = Sampler(
        [replace(phantom_slices, records=records)], image_size=96, window=(-160.0, 240.0), seed=0, crop_body=True
    )
    batch = sampler.batch(Shape(slices=2, size=64, whole=False), None)
    assert batch.lesions is None
    heads = TrainingHeads(network().config)
    features = torch.randn(4, heads.pixels.in_channels, 16, 16, requires_grad=True)
    loss = heads.pixel_loss(features, batch)
    assert loss is not None
    loss.backward()
    assert features.grad is not None
    asked = features.grad.abs().sum(1) > 0
    lesions = F.max_pool2d(batch.index[:, None].float(), 4)[:, 0] > 0
    assert lesions.any()
    assert torch.equal(asked, ~lesions)


def test_every_field_of_a_query_has_a_head() -> None:
    assert {field.name for field in fields(Query)} - {"anchor"} <= set(SAID)
