"""Several sentences at once, and pixels whose size the caller states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_segmenter import LEFT, RIGHT, fake_segmenter, write_arrays

from lsms_rt import InputError, Segmenter, SentenceNotUnderstoodError
from lsms_rt.ct_slice import slice_from_array
from lsms_rt.data import DATA
from lsms_rt.pytorch import open_checkpoint

TEXTS = [
    "the low-density lesion in the right lobe of the liver",
    "the cyst in the left lobe of the liver",
    "the largest lesion",
]
# One thread or several, one image a call or several: sums in another order.
NEAR = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module", params=["onnxruntime", "pytorch"])
def segmenter(request: pytest.FixtureRequest) -> Any:
    from lsms_rt import demo_engine

    opened = Segmenter(demo_engine(), threads=2) if request.param == "onnxruntime" else open_checkpoint()
    with opened as segmenter:
        yield segmenter


def examples(count: int) -> list[Path]:
    return sorted((DATA / "examples").glob("phantom_*.dcm"))[:count]


def test_one_slice_answers_as_if_each_sentence_were_asked_alone(segmenter: Segmenter) -> None:
    image = examples(1)[0]
    results = segmenter.predict(image, TEXTS)
    assert [result.text for result in results] == TEXTS
    assert len({result.probability.tobytes() for result in results}) == 3
    for result, text in zip(results, TEXTS, strict=True):
        alone = segmenter.predict(image, text)
        np.testing.assert_allclose(result.probability, alone.probability, **NEAR)
        assert (result.read_as, result.index) == (alone.read_as, 0)
        assert set(result.timings) == set(alone.timings)


def test_a_list_of_one_sentence_is_a_list(segmenter: Segmenter) -> None:
    (result,) = segmenter.predict(examples(1)[0], TEXTS[:1])
    (of_slice,) = segmenter.predict_series(examples(1), tuple(TEXTS[:1]))
    assert result.text == of_slice[0].text == TEXTS[0]


@pytest.mark.parametrize("batch", [1, 2, 3, 7, None])
def test_a_series_yields_a_list_per_slice(batch: int | None) -> None:
    """Whatever the batch: smaller than the sentences, not a multiple of them, or larger."""
    rng = np.random.default_rng(1)
    images = [np.where(rng.random((64, 64)) < 0.3, 200, -1000) for _ in range(5)]
    with fake_segmenter(max_batch=8) as segmenter:
        texts = [LEFT, RIGHT, LEFT]
        found = list(segmenter.predict_series(images, texts, batch=batch))
        assert [[(r.text, r.index) for r in results] for results in found] == [
            [(text, n) for text in texts] for n in range(5)
        ]
        for text, column in zip(texts, zip(*found, strict=True), strict=True):
            for result, alone in zip(column, segmenter.predict_series(images, text), strict=True):
                assert result.found
                np.testing.assert_array_equal(result.mask, alone.mask)


def test_the_engine_never_gets_more_than_its_largest_batch(tmp_path: Path) -> None:
    with fake_segmenter(max_batch=2) as segmenter:
        results = list(segmenter.predict_series(write_arrays(tmp_path, 3), [LEFT, RIGHT] * 3))
        assert [len(of_slice) for of_slice in results] == [6, 6, 6]
        assert max(segmenter._backend.sizes) == 2


def test_a_slice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lsms_rt import answers
    from lsms_rt import segmenter as module

    calls: list[str] = []

    def count(where: Any, name: str) -> None:
        plain = getattr(where, name)
        monkeypatch.setattr(where, name, lambda *a, **k: calls.append(name) or plain(*a, **k))

    count(module, "load_slice")
    count(answers, "to_tensor")
    with fake_segmenter(max_batch=4) as segmenter:
        segmenter.predict(write_arrays(tmp_path, 1)[0], [LEFT, RIGHT, LEFT])
    assert calls == ["load_slice", "to_tensor"]


@pytest.mark.parametrize(
    ("texts", "kind", "words"),
    [
        ([], InputError, "text is an empty list"),
        ([LEFT, "  "], InputError, r"text\[1\]: the sentence is empty"),
        ([LEFT, None], InputError, r"text\[1\]: the sentence is a NoneType"),
        ([LEFT, RIGHT, "no lesion in the left lobe"], SentenceNotUnderstoodError, r"text\[2\]: "),
        ({LEFT, RIGHT}, InputError, "the sentence is a set"),
    ],
)
def test_a_wrong_list_is_refused_before_anything_is_read(texts: Any, kind: type[Exception], words: str) -> None:
    with fake_segmenter() as segmenter:
        for ask in (segmenter.predict, segmenter.predict_series):
            with pytest.raises(kind, match=words) as caught:
                ask("no-such-file.dcm", texts)
        if kind is SentenceNotUnderstoodError:
            assert caught.value.reading.understood == "no"


# ------------------------------------------------------------------------------------------- stated pixels


def tall() -> np.ndarray:
    """A square of 40 mm, in pixels of 0.5 mm (between rows) by 2 mm."""
    hu = np.full((128, 64), -1000.0)
    hu[20:100, 4:24] = 100
    return hu


def test_the_area_of_an_array_is_known_by_its_spacing() -> None:
    with fake_segmenter() as segmenter:
        result = segmenter.predict(tall(), LEFT, spacing=(0.5, 2.0))
        assert result.ct.spacing_mm == (0.5, 2.0)
        assert result.area_mm2 == pytest.approx(int(result.mask.sum()) * 1.0)
        assert segmenter.predict(tall(), LEFT).area_mm2 is None
        (of_series,) = segmenter.predict_series([tall()], LEFT, spacing=(0.5, 2.0))
        assert of_series.area_mm2 == result.area_mm2


def test_pixels_that_are_not_square_are_seen_as_such() -> None:
    """The field is 64 x 128 mm: the network sees it twice as wide as it is high."""
    seen = []
    with fake_segmenter() as segmenter:
        plain = segmenter._backend.segment
        segmenter._backend.segment = lambda images, text: seen.append(images) or plain(images, text)
        for spacing in ((0.5, 2.0), None):
            segmenter.predict(tall(), LEFT, spacing=spacing)
    heights = [int((image[0, 0] > -0.99).any(axis=1).sum()) for image in seen]
    widths = [int((image[0, 0] > -0.99).any(axis=0).sum()) for image in seen]
    assert heights[0] == pytest.approx(20, abs=2)
    assert widths[0] == pytest.approx(20, abs=2)
    assert heights[1] == pytest.approx(4 * widths[1], abs=3)


@pytest.mark.parametrize(
    "spacing",
    [
        (0, 1),
        (0.5,),
        0.5,
        "0.5 0.5",
        (float("nan"), 1),
        (30, 30),
        (0.1, 5),
        (-1, -1),
        (True, True),
        (1j, 1),
        (10**400, 1),
        np.array([1.0, np.inf]),
    ],
)
def test_an_impossible_spacing_is_refused(spacing: Any) -> None:
    with fake_segmenter() as segmenter, pytest.raises(InputError, match="spacing"):
        segmenter.predict(tall(), LEFT, spacing=spacing)


def test_a_file_that_states_its_spacing_keeps_it() -> None:
    with fake_segmenter() as segmenter:
        example = examples(1)[0]
        own = segmenter.predict(example, LEFT).ct.spacing_mm
        assert own is not None
        assert segmenter.predict(example, LEFT, spacing=(5.0, 5.0)).ct.spacing_mm == own


def test_a_dicom_file_without_spacing_takes_the_stated_one(tmp_path: Path) -> None:
    import pydicom

    ds = pydicom.dcmread(examples(1)[0])
    del ds.PixelSpacing
    with fake_segmenter() as segmenter:
        result = segmenter.predict(ds, LEFT, spacing=(0.5, 2.0))
        assert result.ct.spacing_mm == (0.5, 2.0)
        assert "PixelSpacing is missing: the stated spacing is used" in result.notes
        ds.PixelAspectRatio = [1, 4]
        assert segmenter.predict(ds, LEFT, spacing=(0.5, 2.0)).ct.spacing_mm == (0.5, 2.0)
        ds.PixelAspectRatio = [4, 1]
        with pytest.raises(InputError, match="contradicts the stated spacing"):
            segmenter.predict(ds, LEFT, spacing=(0.5, 2.0))


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.float16, np.float64, int])
def test_a_spacing_of_any_type_means_the_same(kind: Any) -> None:
    """Small integers would overflow in what is computed of them."""
    with fake_segmenter() as segmenter:
        for spacing in ((kind(16), kind(18)), np.array([16, 18], kind)):
            result = segmenter.predict(tall(), LEFT, spacing=spacing)
            assert result.ct.spacing_mm == (16.0, 18.0) and {type(v) for v in result.ct.spacing_mm} == {float}
            assert result.area_mm2 == pytest.approx(int(result.mask.sum()) * 288.0)


def test_the_spacing_of_a_header_can_be_stated() -> None:
    import pydicom

    ds = pydicom.dcmread(examples(1)[0])
    with fake_segmenter() as segmenter:
        result = segmenter.predict(tall(), LEFT, spacing=ds.PixelSpacing)
        assert result.ct.spacing_mm == tuple(map(float, ds.PixelSpacing))


def test_a_slice_without_spacing_takes_the_stated_one() -> None:
    with fake_segmenter() as segmenter:
        for transposed, wanted in ((False, (0.5, 2.0)), (True, (2.0, 0.5))):
            ct = replace(slice_from_array(tall()), transposed=transposed)
            assert segmenter.predict(ct, LEFT, spacing=(0.5, 2.0)).ct.spacing_mm == wanted
        own = replace(slice_from_array(tall()), spacing_mm=(1.0, 1.0))
        assert segmenter.predict(own, LEFT, spacing=(0.5, 2.0)).ct.spacing_mm == (1.0, 1.0)


def test_images_that_no_number_of_sentences_divides_are_refused(segmenter: Segmenter) -> None:
    features = [segmenter._sentences.get(text).features for text in TEXTS[:2]]
    two = type(features[0]).joined(features)
    assert len(two.repeated(4)) == 4 and two.repeated(2) is two
    with pytest.raises(ValueError, match="3 images for 2 sentences"):
        two.repeated(3)
