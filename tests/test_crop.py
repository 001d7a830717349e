"""Crop to the body: masks come back to where they belong, at any position, size, shape and spacing."""

from __future__ import annotations

import numpy as np
import pytest

from lsms_rt.ct_slice import CtSlice
from lsms_rt.postprocess import probability_in_grid
from lsms_rt.preprocess import to_tensor
from lsms_rt.reading.load import slice_from_array

WINDOW = (-160.0, 240.0)


def body_at(
    shape: tuple[int, int], center: tuple[int, int], radii: tuple[int, int], spacing: tuple[float, float] | None = None
) -> tuple[CtSlice, np.ndarray]:
    """A slice with an elliptic body, and in it a bright disc of 8 pixels in diameter, with its mask."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    body = ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2 < 1
    lesion = (y - center[0] - radii[0] // 3) ** 2 + (x - center[1] + radii[1] // 3) ** 2 <= 16
    hu = np.where(lesion, 200.0, np.where(body, 0.0, -1000.0)).astype(np.float32)
    return slice_from_array(hu, spacing_mm=spacing), lesion


def perfect_mask(ct: CtSlice) -> np.ndarray:
    """The mask of a perfect network, to which the bright is the lesion, in the slice's grid."""
    tensor, placement = to_tensor(ct, 256, WINDOW, "body")
    logits = (tensor[0, 0] - 0.5) * 40
    return probability_in_grid(logits, placement, ct) > 0.5


@pytest.mark.parametrize(
    ("shape", "center", "radii", "spacing"),
    [
        ((256, 256), (128, 128), (60, 80), None),
        ((512, 512), (200, 300), (110, 150), (0.7, 0.7)),
        ((256, 256), (40, 200), (60, 80), None),
        ((97, 301), (50, 60), (30, 40), None),
        ((301, 97), (250, 50), (40, 30), None),
        ((256, 256), (128, 128), (40, 90), (1.4, 0.7)),
    ],
)
def test_a_mask_comes_back_to_its_place(
    shape: tuple[int, int], center: tuple[int, int], radii: tuple[int, int], spacing: tuple[float, float] | None
) -> None:
    ct, lesion = body_at(shape, center, radii, spacing)
    assert lesion.any()
    mask = perfect_mask(ct)
    found, true = np.argwhere(mask).mean(0), np.argwhere(lesion).mean(0)
    assert np.abs(found - true).max() < 0.75
    assert 2 * (mask & lesion).sum() / (mask.sum() + lesion.sum()) > 0.85


def test_a_body_at_the_corner_without_a_lesion_gets_an_empty_mask() -> None:
    """The lesion would lie outside of the slice; the body touches two of its edges."""
    ct, lesion = body_at((256, 256), (250, 20), (60, 80))
    assert (ct.hu == 0).any() and not lesion.any()
    tensor, placement = to_tensor(ct, 256, WINDOW, "body")
    top, left, bottom, right = placement.box
    assert top > 0 and left == 0 and bottom == 256 and right < 256
    assert not perfect_mask(ct).any()
    # A network that calls all of the tensor a lesion, padding included, fills the box and nothing else.
    mask = probability_in_grid(np.full(tensor.shape[2:], 20.0), placement, ct) > 0.5
    assert mask[top:bottom, left:right].all() and mask.sum() == (bottom - top) * (right - left)


def test_the_body_is_shown_larger() -> None:
    ct, _ = body_at((256, 256), (128, 128), (60, 80))
    whole, cropped = (to_tensor(ct, 256, WINDOW, crop)[0][0, 0] > -1 for crop in ("none", "body"))
    assert whole.any(0).sum() == pytest.approx(159, abs=2)
    assert cropped.any(0).sum() > 230


def test_nothing_is_predicted_outside_the_crop() -> None:
    ct, _ = body_at((256, 256), (128, 128), (60, 80))
    _, placement = to_tensor(ct, 256, WINDOW, "body")
    probability = probability_in_grid(np.full((256, 256), 20.0), placement, ct)
    top, left, bottom, right = placement.box
    assert (probability[top:bottom, left:right] > 0.99).all()
    outside = np.ones(probability.shape, bool)
    outside[top:bottom, left:right] = False
    assert outside.any()
    assert probability[outside].max() < 1e-6


def test_training_and_runtime_see_the_same() -> None:
    """The sampler's whole slice is the runtime's tensor, up to the two libraries' resampling."""
    import torch

    from lsms_rt.training.batches import Sampler, Shape
    from lsms_rt.training.slices import SliceRecord, Slices

    for center in ((128, 128), (70, 190), (215, 128)):
        ct, _ = body_at((256, 256), center, (60, 80))
        hu = ct.hu.astype(np.int16)
        slices = Slices(hu[None], np.zeros((1, 256, 256), np.uint8), None, (SliceRecord(case="a", name="a"),), True)
        sampler = Sampler([slices], image_size=256, window=WINDOW, seed=0, crop_body=True, augmented=False)
        seen = sampler.examples((0, 0), (None,), Shape(slices=1, size=256, whole=True))[0].image
        tensor = torch.from_numpy(to_tensor(ct, 256, WINDOW, "body")[0][0, 0])
        # Edges may differ by a fraction of a pixel.
        assert float((seen - tensor).abs().mean()) < 0.01


def test_without_a_crop_nothing_changes() -> None:
    ct, _ = body_at((200, 256), (100, 128), (60, 80))
    tensor, placement = to_tensor(ct, 128, WINDOW)
    assert placement.box == (0, 0, 200, 256)
    assert (placement.rows, placement.columns, placement.top, placement.left) == (100, 128, 14, 0)
    assert tensor.shape == (1, 1, 128, 128)
