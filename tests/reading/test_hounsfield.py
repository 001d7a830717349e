"""Stored values become the HU that a table computes by hand, or are rejected; nothing in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_dicom import dataset, enhanced

from lsms_rt.ct_slice import log_notes
from lsms_rt.errors import InputError
from lsms_rt.reading.dicom.read import slices_from_dataset
from lsms_rt.reading.load import load_slice
from lsms_rt.reading.stated import Stated

NO_RESCALE = {"RescaleSlope": None, "RescaleIntercept": None}


def body(outside: int, tissue: int, dtype: Any = np.int16) -> np.ndarray:
    """(64, 64): a square of tissue with some noise in it."""
    raw = np.full((64, 64), outside, dtype)
    raw[16:48, 16:48] = tissue
    raw[20:28, 20:28] = tissue + 30
    return raw


def circle(diameter: int = 64) -> np.ndarray:
    y, x = np.mgrid[:64, :64] - 31.5
    return x**2 + y**2 < (diameter / 2) ** 2


def ct_of(raw: np.ndarray, stated: Stated | None = None, **tags: Any) -> Any:
    return load_slice(dataset(raw, **tags), stated=stated or Stated())


@pytest.mark.parametrize(
    ("dtype", "stored", "bits", "slope", "intercept", "expected"),
    [
        (np.uint16, [0, 1000, 1124, 4095], 12, 1, -1024, [-1024, -24, 100, 3071]),
        (np.uint16, [24, 1000, 1124, 4095], 12, 1, 0, [24, 1000, 1124, 3071]),
        # bits above BitsStored are not pixels
        (np.uint16, [0, 1000, 0xF464, 0x1FFF], 12, 1, -1024, [-1024, -24, 100, 3071]),
        (np.int16, [-1024, -24, 100, 3071], 16, 1, 0, [-1024, -24, 100, 3071]),
        (np.int16, [-32768, -1, 0, 32767], 16, 1, 0, [-1024, -1, 0, 3071]),
        # a sign in bit 11
        (np.uint16, [0x0C18, 0x0FFF, 0, 0x07FF], (12, 1), 1, 0, [-1000, -1, 0, 2047]),
        (np.uint16, [0, 10240, 11264, 40960], 16, 0.1, -1024, [-1024, 0, 102.4, 3071]),
        (np.uint16, [0, 1000, 1124, 4095], 12, 0.1, -100, [-100, 0, 12.4, 309.5]),
        (np.uint16, [0, 1, 2, 65535], 16, 1e4, -1024, [-1024, 3071, 3071, 3071]),
        (np.uint16, [0, 1, 2, 65535], 16, 1, -1e5, [-1024, -1024, -1024, -1024]),
        (np.uint16, [0, 1, 2, 2000], 16, -1, 1000, [1000, 999, 998, -1000]),
        (np.uint32, [0, 1_000_000, 1_124_000, 2**32 - 1], 32, 0.001, -1024, [-1024, -24, 100, 3071]),
        (np.int32, [-1_024_000, 0, 100_000, 2**31 - 1], 32, 0.001, 0, [-1024, 0, 100, 3071]),
        (np.uint8, [0, 64, 128, 255], 8, 16, -1024, [-1024, 0, 1024, 3056]),
    ],
)
def test_hu_by_hand(dtype: Any, stored: list[int], bits: Any, slope: float, intercept: float, expected: list) -> None:
    bits, signed = bits if isinstance(bits, tuple) else (bits, int(np.dtype(dtype).kind == "i"))
    raw = np.array([stored * 8] * 32, dtype)
    tags = {"BitsAllocated": 8 * raw.itemsize, "BitsStored": bits, "HighBit": bits - 1, "PixelRepresentation": signed}
    ct = ct_of(raw, **tags, RescaleSlope=slope, RescaleIntercept=intercept)
    assert ct.hu.dtype == np.float32
    np.testing.assert_allclose(ct.hu[0, :4], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"BitsStored": 12, "HighBit": 15}, "HighBit is 15 with BitsStored 12, 11 is needed"),
        ({"BitsStored": 16, "HighBit": 11}, "HighBit is 11 with BitsStored 16, 15 is needed"),
        ({"BitsStored": 12, "HighBit": 12}, "HighBit is 12"),
        ({"BitsStored": 20, "HighBit": 19}, "damaged"),
        ({"RescaleSlope": "1e39"}, "RescaleSlope is 1e\\+39"),
        ({"RescaleSlope": 10001}, "RescaleSlope is 10001 and RescaleIntercept -1024; a slope of"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0 "),
        ({"RescaleSlope": "1e-7"}, "RescaleSlope is 1e-07"),
        ({"RescaleIntercept": "-1e6"}, "RescaleIntercept -1e\\+06"),
        ({"RescaleIntercept": "1e200"}, "RescaleIntercept 1e\\+200"),
        (NO_RESCALE, "HU are unknown; export it again .* --rescale SLOPE INTERCEPT"),
        ({"RescaleSlope": None}, "HU are unknown"),
        ({"RescaleIntercept": None}, "HU are unknown"),
        ({"RescaleSlope": "", "RescaleIntercept": ""}, "HU are unknown"),
    ],
)
def test_refusals(tags: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        slices_from_dataset(dataset(**tags), "file.dcm")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("file.dcm: ")


@pytest.mark.parametrize("unit", ["HU", "hu", " Hu "])
def test_the_unit_may_be_written_in_any_case(unit: str) -> None:
    assert ct_of(np.full((16, 16), 1064, np.uint16), RescaleType=unit).hu[0, 0] == 40


@pytest.mark.parametrize("numbers", [(1,), (1, 2, 3), ("1", "-1024"), "12", 5, (None, 1)])
def test_what_is_stated_is_two_numbers(numbers: Any) -> None:
    for name in ("rescale", "window"):
        with pytest.raises(InputError, match=f"^{name} is not two numbers; give "):
            Stated(**{name: numbers})
    assert Stated(window=np.array([50, 350]), rescale=[1, -1024]).rescale == (1.0, -1024.0)  # type: ignore[arg-type]


def test_without_high_bit_the_values_are_in_the_lower_bits() -> None:
    assert ct_of(np.full((16, 16), 1000, np.uint16), BitsStored=12, HighBit=None).hu[0, 0] == -24


def test_signed_air_shows_that_stored_values_are_hu() -> None:
    for missing in (NO_RESCALE, {"RescaleSlope": None, "RescaleIntercept": 0}, {"RescaleIntercept": None}):
        ct = ct_of(body(-1000, 40), **missing)
        assert (ct.hu[0, 0], ct.hu[40, 40]) == (-1000, 40)
        assert ct.notes == (
            "RescaleSlope or RescaleIntercept is missing: the stored values are taken as HU, since they are signed and "
            "contain air",
        )


@pytest.mark.parametrize(
    ("raw", "tags"),
    [
        # -2000 outside of the field of view and the rest too high by 1024, as GE stores it
        (body(-2000, 1064), {}),
        (body(-1000, 1064), {"PixelPaddingValue": -1000}),
        # the same with other padding, and tissue outnumbers it
        (np.where(np.arange(64) < 8, -1024, 1064).astype(np.int16).repeat(64).reshape(64, 64), {}),
        # more filling outside of a round field of view than tissue in it
        (np.where(circle(), np.where(circle(24), 1064, 24), -1024).astype(np.int16), {}),
        (body(24, 1064), {}),
        (body(0, 40), {}),
        (body(24, 1064, np.uint16), {}),
        # one bad pixel is no air
        (np.pad(np.full((1, 1), -1000, np.int16), 31, constant_values=40), {}),
        # one of both contradicts it
        (body(-1000, 40), {"RescaleIntercept": -1024}),
        (body(-1000, 40), {"RescaleSlope": 2}),
    ],
)
def test_other_stored_values_are_not_taken_as_hu(raw: np.ndarray, tags: dict[str, Any]) -> None:
    ds = dataset(raw, **NO_RESCALE)
    for name, value in tags.items():
        setattr(ds, name, value)
    with pytest.raises(InputError, match="HU are unknown"):
        load_slice(ds)


def test_rescale_may_be_stated_and_the_file_has_precedence() -> None:
    raw = body(24, 1064, np.uint16)
    stated = Stated(rescale=(1, -1024))
    ct = ct_of(raw, stated, **NO_RESCALE)
    assert (ct.hu[0, 0], ct.hu[40, 40]) == (-1000, 40)
    assert ct.notes[0].endswith("slope 1 and intercept -1024 are used, as stated")
    assert ct_of(raw, Stated(rescale=(2, 0)), RescaleIntercept=-1000).notes == ()
    assert ct_of(raw, Stated(rescale=(2, -1024)), RescaleSlope=None, RescaleIntercept=-1064).hu[40, 40] == 1064
    with pytest.raises(InputError, match="RescaleSlope is 20000"):
        ct_of(raw, Stated(rescale=(20000, 0)), **NO_RESCALE)


def test_padding_that_is_air_or_less_is_air_everywhere() -> None:
    raw = np.where(circle(), 1064, -2000).astype(np.int16)
    raw[30, 30] = -2000
    ct = ct_of(raw, PixelPaddingValue=-2000)
    assert (ct.hu == np.where(raw == -2000, -1024, 40)).all() and ct.notes == (
        "hardly any value is below -50 HU, as fat and air are: values are taken as Hounsfield units, check that they "
        "are",
    )


@pytest.mark.parametrize(("padding", "intercept"), [(0, 0), (1024, -1024), (1024, -900), (4095, -1024)])
def test_padding_that_may_be_tissue_is_air_only_up_to_the_border(padding: int, intercept: int) -> None:
    """Outside of the round field of view it is padding; in the liver the same value is a cyst."""
    inside = circle()
    raw = np.where(inside, 1064 + padding, padding).astype(np.int16)
    raw[5:20, 30:34] = padding - 200
    raw[30:32, 30:33] = padding
    ct = ct_of(raw, PixelPaddingValue=padding, RescaleIntercept=intercept)
    assert (ct.hu[~inside] == -1024).all()
    np.testing.assert_array_equal(ct.hu[inside], np.minimum(raw[inside] + intercept, 3071))
    assert "PixelPaddingValue is a value of tissue: 6 such pixels inside the image are kept" in ct.notes


def test_a_range_of_padding_is_judged_by_its_upper_end() -> None:
    raw = np.full((16, 32), 1064, np.int16)
    raw[:, :3], raw[8, 20] = -1000, 1000
    ds = dataset(raw, PixelPaddingValue=-2000, PixelPaddingRangeLimit=1000)
    ct = load_slice(ds)
    assert (ct.hu[:, :3] == -1024).all() and ct.hu[8, 20] == -24
    assert any("1 such pixels" in note for note in ct.notes)


def test_each_frame_of_a_file_has_its_own_values() -> None:
    ds = enhanced()
    del ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    with pytest.raises(InputError, match="HU are unknown"):
        slices_from_dataset(ds)


def test_unusual_values_are_remarked_on(caplog: pytest.LogCaptureFixture) -> None:
    below, above = "hardly any value is below -50 HU", "over a tenth of the values is above 3071 HU"
    assert below in ct_of(np.full((16, 16), 1100, np.uint16)).notes[0]
    # left-justified without a HighBit that says so
    assert above in ct_of(body(24, 1064, np.uint16) << 4, HighBit=None).notes[0]
    assert above in load_slice(np.where(circle(), 40000, -1000)).notes[0]
    noise, tissue = np.random.default_rng(0).normal(0, 1, (64, 64)), np.where(body(-1000, 40) > 0, 40, -1000)
    for wrong in (tissue / 2000 + 0.5 + 0.01 * noise, noise, tissue + 1024 + 15 * noise,
                  np.where(circle(), tissue + 1024, -2000)):  # fmt: skip
        assert below in load_slice(wrong.astype(np.float32)).notes[0]
    assert load_slice((tissue + 15 * noise).astype(np.float32)).notes == ()
    metal = body(-1000, 40)
    metal[20:24, 20:24] = 9000
    assert load_slice(metal).notes == ()
    caplog.clear()
    notes = [ct_of(np.full((16, 16), 1100 + n, np.uint16)) for n in range(3)]
    caplog.clear()
    log_notes(notes)
    assert len(caplog.records) == 1 and "(3 of 3 slices)" in caplog.text


def test_notes_that_differ_in_their_numbers_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    slices = []
    for n in range(1, 4):
        raw = body(-1000, 40)
        raw[30, 30 : 30 + n] = 7
        slices.append(ct_of(raw, RescaleIntercept=0, PixelPaddingValue=7))
    caplog.clear()
    log_notes(slices)
    assert caplog.text.count("\n") == 1 and ": 1 such pixels" in caplog.text and "(3 of 3 slices)" in caplog.text
