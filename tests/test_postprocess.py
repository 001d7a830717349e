"""Logits come back to the pixel they came from, in the input's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import EngineInvalidError, InputError
from lsms_rt.postprocess import area_mm2, bbox, probability_in_grid
from lsms_rt.preprocess import Placement, to_tensor
from lsms_rt.writing.overlay import draw_overlay


def centroid(a: Any) -> Any:
    return np.array([(grid * a).sum() / a.sum() for grid in np.indices(a.shape)])


@pytest.mark.parametrize("size", [128, 256, 512])
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((512, 512), None),
        ((512, 512), (0.7, 0.7)),
        ((300, 512), (0.8, 0.8)),
        ((512, 300), (0.9, 0.6)),
        ((128, 128), (1.5, 0.5)),
        ((301, 517), None),
    ],
)
@pytest.mark.parametrize(
    ("flips", "transposed"), [((False, False), False), ((True, False), True), ((True, True), False)]
)
def test_a_blob_comes_back_to_its_place(
    size: int, shape: Any, spacing: Any, flips: tuple[bool, bool], transposed: bool
) -> None:
    mask = np.zeros(shape, bool)
    top, left = int(0.2 * shape[0]), int(0.61 * shape[1])
    mask[top : top + shape[0] // 6, left : left + shape[1] // 5] = True
    hu = np.where(mask, 200.0, -1024.0).astype(np.float32)
    ct = CtSlice(CtSlice.to_model_frame(hu, flips, transposed), spacing, flips, transposed)
    tensor, place = to_tensor(ct, size, (-1024, 200))
    probability = probability_in_grid(tensor[0, 0] * 8, place, ct)
    assert probability.shape == shape and probability.dtype == np.float32
    assert probability.min() >= 0 and probability.max() <= 1
    found = probability > 0.5
    np.testing.assert_allclose(centroid(found), centroid(mask), atol=0.5)
    assert abs(found.sum() / mask.sum() - 1) < 0.1


def test_one_marked_pixel_at_equal_size() -> None:
    hu = np.zeros((64, 64), np.float32)
    ct = CtSlice(hu, None, (True, True), True)
    _, place = to_tensor(ct, 64, (-160, 240))
    logits = np.full((64, 64), -20, np.float32)
    logits[5, 9] = 20
    found = probability_in_grid(logits, place, ct) > 0.5
    # Flips undone: (58, 54), then transposed.
    assert np.argwhere(found).tolist() == [[54, 58]]


def test_extreme_logits_do_not_overflow() -> None:
    ct = CtSlice(np.zeros((16, 16), np.float32))
    place = Placement(image_size=16, top=0, left=0, rows=16, columns=16, box=(0, 0, 16, 16))
    logits = np.full((16, 16), 60000, np.float16)
    assert (probability_in_grid(logits, place, ct) == 1).all()
    assert (probability_in_grid(-logits, place, ct) == 0).all()


def test_bad_logits_are_the_engines_fault() -> None:
    ct = CtSlice(np.zeros((16, 16), np.float32))
    place = Placement(image_size=16, top=0, left=0, rows=16, columns=16, box=(0, 0, 16, 16))
    with pytest.raises(EngineInvalidError, match=r"1 of 256 logits"):
        probability_in_grid(np.where(np.arange(256).reshape(16, 16) == 3, np.nan, 0), place, ct)
    with pytest.raises(EngineInvalidError, match=r"\(8, 8\)"):
        probability_in_grid(np.zeros((8, 8)), place, ct)


def test_measures() -> None:
    mask = np.zeros((20, 30), bool)
    assert bbox(mask) is None and area_mm2(mask, (1, 1)) == 0
    mask[3:5, 7:11] = True
    assert bbox(mask) == (3, 7, 5, 11)
    assert area_mm2(mask, (0.5, 2.0)) == 8.0 and area_mm2(mask, None) is None


@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("shape", [(37, 101), (512, 512)])
def test_overlay(tmp_path: Path, shape: tuple[int, int]) -> None:
    hu, mask = np.full(shape, 50, np.float32), np.zeros(shape, bool)
    mask[10:20, 10:20] = True
    path = tmp_path / "o.png"
    draw_overlay(path, hu, mask, caption="a low-density lesion " * 20, footer="not for diagnosis")
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
    draw_overlay(path, hu, mask)
    with Image.open(path) as picture:
        a = np.asarray(picture).astype(int)
    height, width = round(shape[0] * 512 / max(shape)), 512
    assert a.shape == (height, 2 * width + 8, 3)
    # No R and L, since the side is not known.
    assert (a[:, :width] == 127).all()
    draw_overlay(path, hu, mask, side_known=True)
    with Image.open(path) as picture:
        lettered = np.asarray(picture).astype(int)
    for start in (0, width + 8):
        left, right = lettered[:, start : start + width // 2], lettered[:, start + width // 2 : start + width]
        assert all((half[..., 0] == 235).any() for half in (left, right))
    red = a[:, width + 8 :, 0] - a[:, width + 8 :, 1] > 20
    wanted = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(red, wanted)


@pytest.mark.parametrize(("shape", "spacing"), [((16, 4096), None), ((64, 64), (3.0, 1.0)), ((3000, 2000), (0.3, 0.3))])
def test_overlay_has_physical_proportions_and_a_bounded_size(tmp_path: Path, shape: Any, spacing: Any) -> None:
    draw_overlay(tmp_path / "o.png", np.zeros(shape, np.float32), np.zeros(shape, bool), spacing_mm=spacing)
    with Image.open(tmp_path / "o.png") as picture:
        width, height = (picture.width - 8) / 2, picture.height
    dy, dx = spacing or (1, 1)
    assert max(width, height) <= 1024
    assert height / width == pytest.approx(shape[0] * dy / (shape[1] * dx), rel=0.02)


def test_overlay_errors(tmp_path: Path) -> None:
    hu = np.zeros((20, 20), np.float32)
    with pytest.raises(InputError, match="differ"):
        draw_overlay(tmp_path / "o.png", hu, np.zeros((20, 21), bool))
    with pytest.raises(InputError, match="cannot be written"):
        draw_overlay(tmp_path / "absent" / "o.png", hu, np.zeros((20, 20), bool))
