"""Crops: what a batch shows, and where in the slice it lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_slices import two_squares

from lsms_rt.training.batches import FURTHER, Sampler, Shape, collate
from lsms_rt.training.sentences import Mix, Spoken
from lsms_rt.training.shrink import resized
from lsms_rt.training.slices import SliceRecord, Slices

WINDOW = (-160.0, 240.0)


def sampler(slices: Slices, *, crop_body: bool = False, augmented: bool = False, seed: int = 0) -> Sampler:
    return Sampler([slices], image_size=slices.size, window=WINDOW, seed=seed, crop_body=crop_body, augmented=augmented)


@pytest.mark.slow
def test_the_whole_slice_is_shown_when_asked(phantom_slices: Slices) -> None:
    shape = Shape(slices=1, size=96, whole=True)
    batch = collate(sampler(phantom_slices).examples((0, 1), (None,), shape))
    hu = torch.from_numpy(phantom_slices.hu[1].astype(np.float32))
    torch.testing.assert_close(batch.image[0, 0], ((hu + 160) / 400).clamp(0, 1) * 2 - 1)
    assert torch.equal(batch.index[0], torch.from_numpy(np.array(phantom_slices.index[1])).long())
    assert batch.origin.tolist() == [[0, 0]]


@pytest.mark.parametrize("crop_body", [False, True])
def test_a_crop_cuts_no_region_off(phantom_slices: Slices, crop_body: bool) -> None:
    draw = sampler(phantom_slices, crop_body=crop_body, augmented=True)
    for number, record in enumerate(phantom_slices.records):
        for _ in range(5):
            rows = draw.examples((0, number), (None,), Shape(slices=1, size=96, whole=False))
            assert set(np.unique(rows[0].index.numpy())) - {0} == set(range(1, record.regions + 1))


def test_the_target_is_what_the_sentences_mean() -> None:
    said = [Spoken(text="a", regions=(2,)), Spoken(text="b", regions=()), Spoken(text="c", regions=(1, 2))]
    shape = Shape(slices=1, size=96, whole=True)
    batch = collate(sampler(two_squares()).examples((0, 0), said, shape))
    assert batch.target.flatten(1).sum(1).tolist() == [36, 0, 136]
    assert torch.equal(batch.target[0, 0] > 0, batch.index[0] == 2)
    assert batch.organs is None
    assert batch.lesions is None


def test_a_lesion_between_the_pixels_keeps_one() -> None:
    """A sentence about it would teach silence."""
    labels = np.zeros((100, 100), np.uint8)
    labels[10:50, 10:50], labels[61, 71:74], labels[99, 0] = 1, 2, 255
    small = resized(labels, 20)
    assert set(np.unique(small)) == {0, 1, 2, 255}
    assert (small == 1).sum() == 64
    assert np.argwhere(small == 2).tolist() == [[12, 14]]
    assert np.argwhere(small == 255).tolist() == [[19, 0]]
    np.testing.assert_array_equal(resized(labels, 100), labels)
    np.testing.assert_array_equal(resized(labels, 200), labels.repeat(2, 0).repeat(2, 1))


def test_a_sentence_about_a_small_lesion_is_not_silenced_by_a_crop() -> None:
    slices = two_squares()
    index = np.zeros_like(slices.index)
    index[0, 30, 39] = 1
    shape = Shape(slices=1, size=32, whole=True)
    batch = collate(sampler(replace(slices, index=index)).examples((0, 0), [Spoken(text="a", regions=(1,))], shape))
    assert batch.target.sum() == 1


def test_a_batch_asks_two_sentences_per_slice_or_none(phantom_slices: Slices) -> None:
    shape = Shape(slices=2, size=64, whole=False)
    asked = sampler(phantom_slices, augmented=True).batch(shape, Mix())
    assert len(asked.image) == len(asked.sentences) == 4
    assert torch.equal(asked.image[0], asked.image[1])
    dense = sampler(phantom_slices).batch(shape, None)
    assert len(dense.image) == 4
    assert dense.sentences == []
    assert torch.equal(dense.target[:, 0] > 0, dense.index > 0)
    for batch in (asked, dense):
        assert batch.image.min() >= -1
        assert batch.image.max() <= 1


def test_a_crop_knows_its_place() -> None:
    """The origin times 32 is the pixel of the whole slice at which a crop begins, up to the crop's scale."""
    ramp = np.add.outer(np.arange(128) * 2, np.zeros(128)).astype(np.int16)
    index = np.zeros((128, 128), np.uint8)
    index[60:64, 20:24] = 1
    slices = Slices(ramp[None], index[None], None, (SliceRecord(case="a", name="a", regions=1),), complete=True)
    draw = Sampler([slices], image_size=128, window=(0.0, 256.0), seed=3, crop_body=False, augmented=False)
    for _ in range(10):
        example = draw.examples((0, 0), (None,), Shape(slices=1, size=64, whole=False))[0]
        hu = (example.image + 1) / 2 * 256
        # The middle row of the crop, in pixels of the slice: from its values, and from its origin.
        seen = float(hu[31:33].mean()) / 2 + 0.5
        assert example.origin[0] * 32 + 32 == pytest.approx(seen, abs=0.6)


def test_the_body_fills_a_whole_slice(phantom_slices: Slices) -> None:
    draw = sampler(phantom_slices, crop_body=True)
    for number in range(len(phantom_slices)):
        rows = draw.examples((0, number), (None,), Shape(slices=1, size=96, whole=True))
        body = rows[0].image > -1
        assert max(int(body.any(0).sum()), int(body.any(1).sum())) > 0.85 * 96


def test_one_seed_gives_one_sequence(phantom_slices: Slices) -> None:
    shape = Shape(slices=2, size=64, whole=False)
    first, second = (sampler(phantom_slices, augmented=True, seed=5).batch(shape, Mix()) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert first.sentences == second.sentences


def test_a_slice_with_many_regions_keeps_every_target() -> None:
    index = np.zeros((96, 96), np.uint8)
    for number in range(20):
        index[4 * number : 4 * number + 3, 40:44] = number + 1
    record = SliceRecord(case="a", name="a", regions=20)
    slices = Slices(np.zeros((1, 96, 96), np.int16), index[None], None, (record,), complete=False)
    said = [Spoken(text="a", regions=(15,)), Spoken(text="b", regions=(18,)), Spoken(text="c", regions=(2, 20))]
    batch = collate(sampler(slices).examples((0, 0), said, Shape(slices=1, size=96, whole=True)))
    assert batch.target.flatten(1).sum(1).tolist() == [12, 12, 24]
    assert batch.wanted.sum(1).tolist() == [1, 0, 1]
    assert int(batch.index.max()) == FURTHER
