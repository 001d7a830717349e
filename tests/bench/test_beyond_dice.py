"""Figures beyond Dice: lesions that match, and outlines, beside values by hand and a plain implementation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lsms_rt.bench.accuracy import measured
from lsms_rt.bench.accuracy.evaluate import evaluate
from lsms_rt.bench.accuracy.surface import surface_of
from lsms_rt.ct_slice import CtSlice
from lsms_rt.datasets.matching import Matched, match_lesions, total
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.errors import InputError, MissingDependencyError

SIDE = 64


def boxes(*places: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of boxes: (top, left, height, width)."""
    mask = np.zeros((SIDE, SIDE), bool)
    for top, left, height, width in places:
        mask[top : top + height, left : left + width] = True
    return mask


def slice_of(spacing: tuple[float, float] | None, transposed: bool = False) -> CtSlice:
    return CtSlice(np.zeros((SIDE, SIDE), np.float32), spacing, transposed=transposed)


A, B = (5, 5, 10, 10), (40, 40, 10, 10)


@pytest.mark.parametrize(
    ("mask", "truth", "found", "missed", "false"),
    [
        (boxes(A, B), boxes(A, B), 2, 0, 0),
        (boxes(A), boxes(A, B), 1, 1, 0),
        (boxes(A, B), boxes(A), 1, 0, 1),
        (boxes(B), boxes(A), 0, 1, 1),
        (boxes(), boxes(A), 0, 1, 0),
        (boxes(A), boxes(), 0, 0, 1),
        (boxes(), boxes(), 0, 0, 0),
        # Dice 0.2 is enough, 0.1 is not.
        (boxes((5, 13, 10, 10)), boxes(A), 1, 0, 0),
        (boxes((5, 14, 10, 10)), boxes(A), 0, 1, 1),
        # One lesion over two, and two over one: one pair each, the one with the higher Dice.
        (boxes((5, 5, 10, 25)), boxes(A, (5, 18, 10, 12)), 1, 1, 0),
        (boxes(A, (5, 18, 10, 12)), boxes((5, 5, 10, 25)), 1, 0, 1),
        # Pieces that touch at a corner are one lesion.
        (boxes(A, (15, 15, 10, 10)), boxes(A, (15, 15, 10, 10)), 1, 0, 0),
    ],
)
def test_lesions_match_one_to_one(mask: np.ndarray, truth: np.ndarray, found: int, missed: int, false: int) -> None:
    assert match_lesions(mask, truth) == Matched(found=found, missed=missed, false=false)


def test_shares_of_lesions() -> None:
    match = total([Matched(found=3, missed=1), Matched(missed=2, false=1)])
    assert (match.precision, match.recall, match.f1) == (3 / 4, 3 / 6, 6 / 10)
    assert (Matched().precision, Matched().recall, Matched().f1) == (None, None, None)
    assert (Matched(false=1).precision, Matched(false=1).recall) == (0, None)


def test_a_square_that_is_shifted_by_known_millimeters() -> None:
    """3 pixels of 1 mm down: the sides of a square overlap, its top and bottom are 3 mm off."""
    mask, truth, ct = boxes((23, 20, 20, 20)), boxes((20, 20, 20, 20)), slice_of((1.0, 1.0))
    near, far = surface_of(mask, truth, ct, 2.9), surface_of(mask, truth, ct, 3.0)
    assert near is not None and far is not None
    assert (near.hd95_mm, far.nsd) == (3, 1)
    # Of 80 mm of outline, those of one side that the other square's sides do not come near to, and nearly all of the
    # other one, whose ends are 2.9 mm from them.
    assert near.nsd == pytest.approx(1 - (20 + 20 - 2 * 2.9) / 80, abs=0.03)


@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("transposed", [False, True])
def test_pixels_that_are_not_square(down: bool, transposed: bool) -> None:
    """Rows are 2 mm apart, columns 0.5; the file's array has them the other way round if it was transposed."""
    truth = boxes((20, 20, 20, 20))
    mask = boxes((24, 20, 20, 20)) if down else boxes((20, 24, 20, 20))
    expected = 8.0 if down else 2.0
    if transposed:
        mask, truth = mask.T.copy(), truth.T.copy()
    found = surface_of(mask, truth, slice_of((2.0, 0.5), transposed), 1.0)
    assert found is not None and found.hd95_mm == expected


def test_an_empty_mask_has_no_outline() -> None:
    ct = slice_of((1.0, 1.0))
    for mask, truth in ((boxes(), boxes(A)), (boxes(A), boxes()), (boxes(), boxes())):
        assert surface_of(mask, truth, ct, 2.0) is None
    assert surface_of(boxes(A), boxes(A), slice_of(None), 2.0) is None
    # A single pixel, in a corner of the slice, has one.
    corner = boxes((0, 0, 1, 1))
    found = surface_of(corner, corner, ct, 0.0)
    assert found is not None and (found.nsd, found.hd95_mm) == (1, 0)


def outline(mask: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Points every twentieth of a pixel along the edges between pixels of a mask and others, in mm."""
    padded = np.pad(mask, 1)
    steps = (np.arange(20) + 0.5) / 20 - 0.5
    points = []
    for axis in (0, 1):
        for row, column in zip(*np.nonzero(np.diff(padded.astype(int), axis=axis)), strict=True):
            along = [(row + 0.5, column + step) if axis == 0 else (row + step, column + 0.5) for step in steps]
            points += along
    return np.array(points) * spacing


def plain(mask: np.ndarray, truth: np.ndarray, spacing: tuple[float, float], tolerance: float) -> tuple[float, float]:
    """NSD and HD95 from points along both outlines, each of the same weight where pixels are square."""
    a, b = outline(mask, spacing), outline(truth, spacing)
    distances = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
    forth, back = distances.min(1), distances.min(0)
    return (
        float(np.mean(np.concatenate([forth, back]) <= tolerance)),
        float(max(np.percentile(forth, 95), np.percentile(back, 95))),
    )


@pytest.mark.parametrize("seed", range(4))
def test_outlines_agree_with_a_plain_implementation(seed: int) -> None:
    """Within half a pixel: the package looks from the corners of pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    discs = [
        ((y - 32 - rng.uniform(-5, 5)) / rng.uniform(6, 12)) ** 2 + ((x - 32 - rng.uniform(-5, 5)) / 9) ** 2 < 1
        for _ in range(2)
    ]
    spacing = (0.8, 0.8)
    found = surface_of(discs[0], discs[1], slice_of(spacing), 2.0)
    nsd, hd95 = plain(discs[0], discs[1], spacing, 2.0)
    assert found is not None
    assert found.hd95_mm == pytest.approx(hd95, abs=0.6)
    assert found.nsd == pytest.approx(nsd, abs=0.12)


@pytest.fixture
def rows(tmp_path: Path) -> list[Annotation]:
    """Three cases of one slice; a true sentence about A, one about A and B, and a false one each."""
    found = []
    for case in range(3):
        image = tmp_path / f"{case}.npy"
        np.save(image, np.full((SIDE, SIDE), -50, np.int16))
        for name, mask in (("A", boxes(A)), ("AB", boxes(A, B)), ("none", boxes())):
            path = tmp_path / f"{case}_{name}.png"
            Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(path)
            found.append(Annotation(f"case {case}", "0", image, path, name, "", "test"))
    return found


class Says:
    """Answers every sentence with a mask."""

    def __init__(self, mask: Callable[[str], np.ndarray]) -> None:
        self.mask = mask

    def predict(self, img: object, text: str) -> SimpleNamespace:
        return SimpleNamespace(mask=self.mask(text))


def test_figures_per_lesion_of_a_data_set(rows: list[Annotation]) -> None:
    """A is predicted for every sentence: two of three lesions are found, and one of three is false."""
    found, _ = evaluate(Says(lambda text: boxes(A)), rows)
    lesions = found.lesions
    assert lesions is not None
    assert (lesions.meant, lesions.predicted, lesions.found) == (9, 9, 6)
    assert (lesions.precision, lesions.recall, lesions.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert lesions.false_positives_per_slice == pytest.approx(1 / 3)
    # All cases are alike.
    assert lesions.intervals["f1"] == pytest.approx((2 / 3, 2 / 3))
    assert (found.hit_rate, found.intervals["hit_rate"]) == (1, (1, 1))
    silent, _ = evaluate(Says(lambda text: boxes()), rows)
    assert silent.lesions is not None and silent.surface is not None
    assert (silent.lesions.precision, silent.lesions.recall, silent.lesions.f1) == (None, 0, 0)
    assert (silent.hit_rate, silent.surface.empty, silent.surface.nsd, silent.surface.hd95_mm) == (0, 6, None, None)


def test_outlines_of_a_data_set(rows: list[Annotation], monkeypatch: pytest.MonkeyPatch) -> None:
    spaced = slice_of((1.0, 1.0))
    monkeypatch.setattr("lsms_rt.datasets.questions.load_slice", lambda path: spaced)
    found, answers = evaluate(Says(lambda text: boxes((8, 5, 10, 10)) if text == "A" else boxes()), rows, 2.0)
    surface = found.surface
    assert surface is not None
    assert (surface.measured, surface.empty, surface.without_spacing, surface.tolerance_mm) == (3, 3, 0, 2)
    assert (surface.hd95_mm, surface.hd95_median_mm) == (3, 3)
    assert surface.nsd is not None and 0 < surface.nsd < 1
    assert sum(one.surface is not None for one in answers) == 3
    wide, _ = evaluate(Says(lambda text: boxes((8, 5, 10, 10)) if text == "A" else boxes()), rows, 3.0)
    assert wide.surface is not None and wide.surface.nsd == 1


def test_what_is_not_installed_is_said(rows: list[Annotation], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "find_spec", lambda name: None if name == "surface_distance" else object())
    found, _ = evaluate(Says(lambda text: boxes(A)), rows)
    assert found.surface is None and found.lesions is not None
    assert "surface_distance; pip install 'lsms-rt[metrics]'" in found.left_out
    with pytest.raises(MissingDependencyError, match=r"lsms-rt\[metrics\]"):
        evaluate(Says(lambda text: boxes(A)), rows, 2.0)
    monkeypatch.setattr(measured, "find_spec", lambda name: None)
    found, _ = evaluate(Says(lambda text: boxes(A)), rows)
    assert found.surface is None and found.lesions is None
    assert found.left_out.startswith("figures per lesion and distances of outlines need scipy")
    with pytest.raises(InputError, match="a tolerance of -1 mm; give 0 to 100 mm"):
        evaluate(Says(lambda text: boxes(A)), rows, -1.0)
