"""Segmenter: the result in the input's own grid, cached sentences, series, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_segmenter import fake_segmenter
from PIL import Image

from lsms_rt import InputError, Segmenter
from lsms_rt.data import DATA
from lsms_rt.datasets.phantom.dicom import write_slice

TEXT = "the low-density lesion in the right lobe of the liver"


@pytest.fixture(scope="module")
def segmenter():
    from lsms_rt import demo_engine

    with Segmenter(demo_engine(), threads=1) as segmenter:
        yield segmenter


@pytest.fixture(scope="module")
def example() -> Path:
    return DATA / "examples" / "phantom_1.dcm"


def test_a_result_states_everything(segmenter: Segmenter, abdomen: np.ndarray) -> None:
    result = segmenter.predict(abdomen, TEXT)
    assert result.mask.shape == result.probability.shape == abdomen.shape
    assert result.mask.dtype == bool
    assert result.probability.dtype == np.float32
    assert 0 <= result.probability.min() <= result.probability.max() <= 1
    # The score is taken on the network's own grid; a coarser one averages it away a little.
    assert result.probability.max() - 1e-6 <= result.score <= 1
    # An array has no spacing.
    assert result.area_mm2 is None
    assert set(result.timings) == {"read", "text", "prepare", "image", "mask", "total"}
    assert all(value >= 0 for value in result.timings.values())
    np.testing.assert_array_equal(result.hu, abdomen)


def test_found_and_not_found_agree_with_the_mask(segmenter: Segmenter, example: Path) -> None:
    import json

    for row in json.loads((DATA / "examples/examples.json").read_text()):
        result = segmenter.predict(DATA / "examples" / row["image"], row["text"])
        assert result.found == bool(result.mask.any())
        values = result.to_dict()
        json.dumps(values)
        if result.found:
            top, left, bottom, right = result.bbox
            assert result.mask[top:bottom, left:right].sum() == result.mask.sum() == values["pixels"]
            assert result.area_mm2 == pytest.approx(result.mask.sum() * np.prod(result.ct.spacing_mm))
            assert result.mean_hu == pytest.approx(result.hu[result.mask].mean())
        else:
            assert (result.bbox, result.mean_hu, result.area_mm2) == (None, None, 0.0)


def test_flipped_files_give_the_same_lesion_in_their_own_grid(
    segmenter: Segmenter, example: Path, tmp_path: Path
) -> None:
    """The same anatomy stored bottom-up, right-to-left, and both: "right lobe" stays the patient's right."""
    import pydicom

    straight = segmenter.predict(example, TEXT).probability
    source = pydicom.dcmread(example)
    pixels, (row_mm, column_mm) = source.pixel_array, source.PixelSpacing
    for rows, columns in ((True, False), (False, True), (True, True)):
        ds = pydicom.dcmread(example)
        sy, sx = (-1 if rows else 1), (-1 if columns else 1)
        ds.PixelData = np.ascontiguousarray(pixels[::sy, ::sx]).tobytes()
        ds.ImageOrientationPatient = [sx, 0, 0, 0, sy, 0]
        x, y, z = (float(v) for v in source.ImagePositionPatient)
        x += (pixels.shape[1] - 1) * column_mm if columns else 0
        y += (pixels.shape[0] - 1) * row_mm if rows else 0
        ds.ImagePositionPatient = [x, y, z]
        ds.save_as(tmp_path / "flipped.dcm")
        turned = segmenter.predict(tmp_path / "flipped.dcm", TEXT).probability
        np.testing.assert_allclose(turned[::sy, ::sx], straight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(33, 47), (300, 512), (512, 511), (16, 700)])
def test_any_size(segmenter: Segmenter, shape: tuple[int, int]) -> None:
    assert segmenter.predict(np.full(shape, -50.0), TEXT).mask.shape == shape


def test_a_finer_grid_gives_the_same_answer(segmenter: Segmenter, example: Path) -> None:
    """Twice the rows and columns at half the spacing is the same picture."""
    from lsms_rt.ct_slice import CtSlice
    from lsms_rt.reading.load import load_slice

    ct = load_slice(example)
    fine = CtSlice(np.kron(ct.hu, np.ones((2, 3), np.float32)), (ct.spacing_mm[0] / 2, ct.spacing_mm[1] / 3))
    coarse, finer = (segmenter.predict(slice_, TEXT).probability for slice_ in (ct, fine))
    # The same tensor reaches the network up to resampling: only a few pixels on an edge may differ visibly.
    difference = np.abs(finer.reshape(256, 2, 256, 3).mean((1, 3)) - coarse)
    assert (difference > 0.1).mean() < 2e-3
    assert difference.mean() < 1e-3


def test_sentences_are_cached(segmenter: Segmenter, abdomen: np.ndarray) -> None:
    calls = []
    encode = segmenter._backend.encode_text
    segmenter._backend.encode_text = lambda *a: calls.append(1) or encode(*a)
    try:
        for text in ("the cyst", "the cyst", " the  cyst ", "The hemangioma", "the cyst"):
            segmenter.predict(abdomen, text)
    finally:
        segmenter._backend.encode_text = encode
    assert len(calls) == 2


def test_case_punctuation_and_unicode_forms_mean_the_same(segmenter: Segmenter, example: Path) -> None:
    plain = segmenter.predict(example, "the low-density lesion").probability
    for same in (
        "THE LOW-DENSITY LESION",
        "the low-density\tlesion\n",
        "\uff54he low-density lesion",
        "thé low-density lesion",
    ):
        np.testing.assert_array_equal(segmenter.predict(example, same).probability, plain)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("  \n ", "empty"),
        ("?!...", "empty"),
        ("lesion " * 200, "characters"),
        ("the lesion " * 20, "42 tokens and this engine reads at most 32"),
        ("病变 肝", "no word"),
        ("asdf qwer zxcv", "no word"),
        ("show the in the", "no word"),
        (None, "NoneType"),
        (b"the cyst", "bytes"),
        ("\x00\x01", "empty"),
    ],
)
def test_wrong_sentences_are_refused(segmenter: Segmenter, abdomen: np.ndarray, text: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        segmenter.predict(abdomen, text)
    with pytest.raises(InputError, match=words):
        segmenter.predict_series([abdomen], text)


def test_words_that_the_engine_does_not_know_are_named(segmenter: Segmenter, abdomen: np.ndarray) -> None:
    assert segmenter.predict(abdomen, "the low-density lesion, in the right lobe.").unknown_words == ()
    result = segmenter.predict(abdomen, "the spiculated lesion")
    assert result.unknown_words == ("spiculated",)
    assert "spiculated" in result.to_dict(include_text=True)["notes"][-1]
    assert "spiculated" not in str(result.to_dict())
    assert repr(result).startswith("<Segmentation ")


def test_a_series_comes_in_anatomical_order(segmenter: Segmenter, phantom_case, tmp_path: Path) -> None:
    names = ["d", "a", "c", "f", "b", "e"]
    for index, name in enumerate(names):
        write_slice(tmp_path / f"{name}.dcm", phantom_case, index, "case")
    results = list(segmenter.predict_series(tmp_path, TEXT, batch=4))
    positions = [r.ct.position_mm for r in results]
    assert len(results) == 6
    assert positions == sorted(positions)
    order = sorted(names)
    assert [r.ct.source for r in results] == [f"file {order.index(n) + 1} of 6" for n in reversed(names)]
    single = [segmenter.predict(tmp_path / f"{name}.dcm", TEXT) for name in reversed(names)]
    for one, many in zip(single, results, strict=True):
        # A batch sums in another order.
        np.testing.assert_allclose(many.probability, one.probability, rtol=0, atol=1e-4)
    assert [r.index for r in results] == [r.to_dict()["index"] for r in results] == list(range(6))


def test_a_list_of_files_keeps_its_order(phantom_case, tmp_path: Path) -> None:
    segmenter = fake_segmenter(max_batch=3)
    for index in range(3):
        write_slice(tmp_path / f"{index}.dcm", phantom_case, index, "case")
    paths = [tmp_path / f"{index}.dcm" for index in (1, 2, 0, 1)]
    expected = [segmenter.predict(path, TEXT).ct.sop_instance_uid for path in paths]
    for images in (paths, tuple(paths), iter(paths), dict.fromkeys(paths).keys(), (str(path) for path in paths)):
        results = list(segmenter.predict_series(images, TEXT, batch=3))
        assert [r.ct.sop_instance_uid for r in results] == expected[: len(results)]
        assert [r.index for r in results] == list(range(len(results)))
    (tmp_path / "bad.dcm").write_bytes(b"bad")
    with pytest.raises(InputError, match=r"^images\[1\]: the file: not DICOM"):
        segmenter.predict_series([paths[0], tmp_path / "bad.dcm"], TEXT)


def test_an_abandoned_series_closes_the_backends_generator(segmenter: Segmenter) -> None:
    """At once, also where the generator itself is still referred to, as on interpreters without counted references."""
    kept, open_batches = [], segmenter._backend.segment_many
    segmenter._backend.segment_many = lambda *a: kept.append(open_batches(*a)) or kept[0]
    try:
        results = segmenter.predict_series([np.zeros((20, 20)) - 9] * 9, TEXT, batch=1)
        next(results)
        results.close()
        with pytest.raises(StopIteration):
            next(kept[0])
        # An iterator that cannot be closed.
        segmenter._backend.segment_many = lambda *a: map(np.asarray, open_batches(*a))
        assert len(list(segmenter.predict_series([np.zeros((20, 20)) - 9] * 2, TEXT, batch=1))) == 2
    finally:
        segmenter._backend.segment_many = open_batches


def test_a_list_of_arrays_keeps_its_order(segmenter: Segmenter) -> None:
    shapes = [(20, 30), (40, 50), (60, 30)]
    results = list(segmenter.predict_series([np.zeros(s) - 9 for s in shapes], TEXT, batch=2))
    assert [r.mask.shape for r in results] == shapes
    with pytest.raises(InputError, match="batch is 9"):
        segmenter.predict_series([np.zeros((20, 20))], TEXT, batch=9)


def test_threads_give_the_same_answers(segmenter: Segmenter, phantom_case) -> None:
    images = [item.hu for item in phantom_case.slices]
    texts = [f"the {kind} in the {lobe} lobe" for kind in ("cyst", "abscess", "lesion") for lobe in ("left", "right")]
    jobs = list(zip(images, texts, strict=True))
    alone = [segmenter.predict(*job).probability for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: segmenter.predict(*job).probability, jobs * 3))
    for a, b in zip(alone * 3, together, strict=True):
        np.testing.assert_array_equal(a, b)


def test_pictures(segmenter: Segmenter, example: Path, tmp_path: Path) -> None:
    result = segmenter.predict(example, TEXT)
    result.save_overlay(tmp_path / "o.png")
    result.save_mask(tmp_path / "m.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "m.png")) > 127, result.mask)
    with Image.open(tmp_path / "o.png") as picture:
        assert picture.width > 2 * result.mask.shape[1]
    with pytest.raises(InputError, match="cannot be written"):
        result.save_mask(tmp_path / "no" / "m.png")


@pytest.mark.usefixtures("bundled_engine_opened_once")
def test_names_of_version_0_1(demo_engine: Path, abdomen: np.ndarray) -> None:
    from lsms_rt.engine.tensorrt import variant
    from lsms_rt.machine import gpu
    from lsms_rt.segmentation import Segmentation
    from lsms_rt.segmenter import Segmentation as SegmentationOfOldModule

    assert SegmentationOfOldModule is Segmentation
    assert variant.VARIANTS is variant.VARIANTS
    assert variant.TensorRtVariant is variant.TensorRtVariant
    assert gpu.look is gpu.query_driver
    with Segmenter(demo_engine) as opened:
        with pytest.warns(DeprecationWarning, match="Segmenter.over is now Segmenter.from_backend"):
            again = Segmenter.over(opened._backend, opened.manifest, opened._reader.tokenizer)
        assert again.digest == ""
        with pytest.warns(DeprecationWarning, match="check_sentence is now Segmenter.prepare_sentence"):
            again.check_sentence(TEXT)
        result = again.predict(abdomen, TEXT)
        with pytest.warns(DeprecationWarning, match="Segmentation.slice is now Segmentation.ct"):
            assert result.slice is result.ct


@pytest.mark.usefixtures("bundled_engine_opened_once")
def test_a_prepared_sentence_is_encoded_once(demo_engine: Path) -> None:
    with Segmenter(demo_engine) as segmenter:
        assert segmenter.prepare_sentence("the cyst of xqzv") == ("xqzv",)
        assert list(segmenter._sentences._kept) == ["the cyst of xqzv"]
        with pytest.raises(InputError, match="the sentence is empty"):
            segmenter.prepare_sentence(" ")


def test_a_closed_segmenter_says_so(demo_engine: Path, abdomen: np.ndarray) -> None:
    from lsms_rt.errors import EngineError

    with Segmenter(demo_engine) as segmenter:
        pass
    with pytest.raises(EngineError, match="closed"):
        segmenter.predict(abdomen, TEXT)


def test_real_ct_runs(segmenter: Segmenter) -> None:
    """No claim on quality: pydicom's 128x128 CT and pydicom-data's abdomen, whose rows run from back to front."""
    from pydicom.data import get_testdata_file

    small = segmenter.predict(get_testdata_file("CT_small.dcm"), TEXT)
    assert small.mask.shape == (128, 128)
    abdomen = segmenter.predict(get_testdata_file("explicit_VR-UN.dcm"), TEXT)
    assert abdomen.mask.shape == (512, 512)
    assert abdomen.ct.flips[0]
    assert abdomen.area_mm2 is not None


def test_an_eight_bit_picture_needs_a_window(segmenter: Segmenter, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((40, 50), 128, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="window"):
        segmenter.predict(tmp_path / "a.png", TEXT)
    result = segmenter.predict(tmp_path / "a.png", TEXT, window=(40, 400))
    (other,) = segmenter.predict_series([tmp_path / "a.png"], TEXT, window=(40, 400))
    assert result.hu.mean() == other.hu.mean() == pytest.approx(40, abs=2)


@pytest.mark.parametrize(
    "options", [{"digest": 123}, {"threads": 0}, {"threads": -1}, {"threads": "x"}, {"device": 3}, {"digest": b"x"}]
)
def test_wrong_options_are_errors_of_the_input(demo_engine: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Segmenter(demo_engine, **options)


@pytest.mark.parametrize(
    "options",
    [{"batch": "x"}, {"batch": 1.5}, {"batch": 0}, {"window": "ab"}, {"window": "50"}, {"window": 50},
     {"window": (1, 2, 3)}, {"window": (None, 2)}, {"rescale": "12"}],
)  # fmt: skip
def test_wrong_arguments_are_errors_of_the_input(
    segmenter: Segmenter, abdomen: np.ndarray, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        segmenter.predict_series([abdomen], "the cyst", **options)
    assert len(list(segmenter.predict_series([abdomen], "the cyst", batch=np.int64(1), window=[50, 350]))) == 1  # type: ignore[arg-type]
