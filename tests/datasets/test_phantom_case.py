"""The phantom's images: repeatable, anatomically in order, and true to the attributes that they come with."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from lsms_rt.datasets.phantom.case import Case, Lesion, PhantomSlice, generate_case
from lsms_rt.datasets.phantom.lesion import enhancement_class
from lsms_rt.datasets.phantom.organs import Organ

SEEDS, SLICES, MATRIX = range(100, 112), 5, 128
LOBES = {"left": Organ.LIVER_LEFT, "right": Organ.LIVER_RIGHT}


@cache
def cases() -> tuple[Case, ...]:
    return tuple(generate_case(seed, SLICES, MATRIX) for seed in SEEDS)


def slices() -> list[tuple[Case, PhantomSlice]]:
    return [(case, item) for case in cases() for item in case.slices]


def lesions() -> list[tuple[Case, PhantomSlice, Lesion]]:
    return [(case, item, lesion) for case, item in slices() for lesion in item.lesions]


def same(a: Case, b: Case) -> bool:
    return a.phase == b.phase and all(
        np.array_equal(one.hu, two.hu)
        and np.array_equal(one.labels, two.labels)
        and len(one.lesions) == len(two.lesions)
        and all(
            np.array_equal(first.mask, second.mask) and (first.type, first.lobe) == (second.type, second.lobe)
            for first, second in zip(one.lesions, two.lesions, strict=True)
        )
        for one, two in zip(a.slices, b.slices, strict=True)
    )


def test_same_seed_same_case_and_another_seed_another() -> None:
    first, again, other = (generate_case(seed, 3, 96) for seed in (7, 7, 8))
    assert same(first, again)
    assert not np.array_equal(first.slices[1].hu, other.slices[1].hu)
    assert not np.array_equal(first.slices[1].labels, other.slices[1].labels)


@pytest.mark.parametrize("matrix", [64, 96, 160, 333])
def test_matrix_sizes(matrix: int) -> None:
    case = generate_case(5, 2, matrix)
    for item in case.slices:
        assert item.hu.shape == item.labels.shape == (matrix, matrix)
        assert all(lesion.mask.shape == (matrix, matrix) for lesion in item.lesions)
    assert 260 <= case.spacing_mm * matrix <= 500 + 1e-6


def test_one_slice_case() -> None:
    assert len(generate_case(9, 1, 64).slices) == 1


@pytest.mark.slow
def test_images_are_int16_in_the_range_of_ct() -> None:
    for _, item in slices():
        assert item.hu.dtype == np.int16 and item.labels.dtype == np.uint8
        assert -1024 <= item.hu.min() < -900 and 100 < item.hu.max() <= 3071
        assert item.labels.max() <= max(Organ)


def test_slices_run_from_head_to_feet() -> None:
    for case in cases():
        steps = np.diff([item.z_mm for item in case.slices])
        assert (steps > 0).all()
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_masks_lie_in_the_liver_and_apart() -> None:
    for _, item in slices():
        seen = np.zeros(item.labels.shape, bool)
        for lesion in item.lesions:
            assert lesion.mask.dtype == bool and lesion.mask.any()
            assert np.isin(item.labels[lesion.mask], list(LOBES.values())).all()
            assert not (seen & lesion.mask).any()
            seen |= lesion.mask
        assert len({lesion.id for lesion in item.lesions}) == len(item.lesions)


def widen(mask: np.ndarray) -> np.ndarray:
    wide = np.pad(mask, 1)
    near: np.ndarray = wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:] | mask
    return near


def test_lesions_never_touch_each_other() -> None:
    for _, item in slices():
        for one in item.lesions:
            for other in item.lesions:
                assert one is other or not (widen(one.mask) & other.mask).any()


def test_some_lesions_touch_the_surface_of_the_liver() -> None:
    liver = [*LOBES.values(), Organ.VESSEL, Organ.GALLBLADDER]
    at_surface = [bool((widen(lesion.mask) & ~np.isin(item.labels, liver)).any()) for _, item, lesion in lesions()]
    assert 0.1 < np.mean(at_surface) < 0.6


def test_lobe_diameter_and_centroid_agree_with_the_mask() -> None:
    for case, item, lesion in lesions():
        area = int(lesion.mask.sum())
        assert (item.labels[lesion.mask] == LOBES[lesion.lobe]).sum() >= 0.85 * area
        assert lesion.diameter_mm >= 3.0
        assert np.pi * (lesion.diameter_mm / 2) ** 2 == pytest.approx(area * case.spacing_mm**2, rel=1e-6)
    # Centroids are relative to a common point: their differences must agree.
    for case, item in slices():
        for a, b in zip(item.lesions, item.lesions[1:], strict=False):
            (row_a, col_a), (row_b, col_b) = (np.argwhere(lesion.mask).mean(0) for lesion in (a, b))
            shift = np.subtract(b.centroid_mm, a.centroid_mm)
            np.testing.assert_allclose(
                shift, [(col_b - col_a) * case.spacing_mm, (row_b - row_a) * case.spacing_mm], atol=1e-6
            )


def test_none_to_six_lesions() -> None:
    counts = [len(item.lesions) for _, item in slices()]
    assert min(counts) == 0 and 3 <= max(counts) <= 6
    assert sum(count > 1 for count in counts) > len(counts) / 4


def test_density_is_what_the_image_shows() -> None:
    """The mean over a lesion, against the liver about it: noise-free limits are +-12 HU."""
    judged = 0
    for case, item, lesion in lesions():
        rows, cols = np.nonzero(lesion.mask)
        # Too few pixels to average the noise out.
        if len(rows) < 40:
            continue
        reach = int(20 / case.spacing_mm)
        box = (
            slice(max(rows.min() - reach, 0), rows.max() + reach),
            slice(max(cols.min() - reach, 0), cols.max() + reach),
        )
        liver = np.isin(item.labels[box], list(LOBES.values()))
        for other in item.lesions:
            liver &= ~other.mask[box]
        difference = float(item.hu[lesion.mask].mean() - np.median(item.hu[box][liver]))
        assert lesion.hu_difference is not None and abs(difference - lesion.hu_difference) < 13, (
            case.seed,
            lesion.type,
        )
        # HU: noise, the liver's own texture, and the halo of an abscess, counted as liver.
        slack = 11.0
        if lesion.density == "low":
            assert difference < -12 + slack, (case.seed, lesion.type)
        elif lesion.density == "high":
            assert difference > 12 - slack, (case.seed, lesion.type)
        else:
            assert abs(difference) < 12 + slack, (case.seed, lesion.type)
        judged += 1
    assert judged > 20


def test_lesions_stand_out_from_the_liver() -> None:
    """Each differs from the liver about it, on average or at its rim, by more than noise does."""
    for case, item, lesion in lesions():
        if lesion.mask.sum() < 40:
            continue
        near = ndimage.binary_dilation(lesion.mask, iterations=max(int(15 / case.spacing_mm), 3))
        liver = near & np.isin(item.labels, list(LOBES.values())) & (item.decoys == 0)
        for other in item.lesions:
            liver &= ~other.mask
        rim = lesion.mask & ~ndimage.binary_erosion(lesion.mask, iterations=2)
        level = np.median(item.hu[liver])
        assert max(abs(item.hu[part].mean() - level) for part in (lesion.mask, rim)) > 9, (case.seed, lesion.type)


def test_every_attribute_has_a_known_value_and_occurs() -> None:
    found = [lesion for *_, lesion in lesions()]
    assert {lesion.type for lesion in found} == {
        "cyst", "hemangioma", "metastasis", "hcc", "abscess", "calcification",
    }  # fmt: skip
    assert {lesion.density for lesion in found} >= {"low", "high"}
    assert {lesion.density for lesion in found} <= {"low", "high", "iso"}
    assert {lesion.lobe for lesion in found} == {"left", "right"}
    assert {lesion.margin for lesion in found} == {"sharp", "ill-defined"}
    assert {enhancement_class(lesion) for lesion in found} <= {"none", "rim", "nodular", "diffuse"}
    assert len({case.phase for case in cases()}) >= 3
    for case, _, lesion in lesions():
        assert case.phase != "noncontrast" or lesion.enhancement == "none"
        assert lesion.type != "calcification" or lesion.density == "high"
        assert lesion.type != "cyst" or lesion.enhancement == "none"
    # Water is darker than any liver but a very fatty one.
    for _, item in slices():
        liver = np.median(item.hu[np.isin(item.labels, list(LOBES.values()))])
        assert liver < 30 or all(lesion.density == "low" for lesion in item.lesions if lesion.type == "cyst")


def test_every_organ_occurs() -> None:
    seen = {int(value) for _, item in slices() for value in np.unique(item.labels)}
    wanted = (
        "BODY MUSCLE BONE MARROW LIVER_LEFT LIVER_RIGHT VESSEL SPLEEN KIDNEY MEDULLA STOMACH CONTENT GAS AORTA IVC "
        "LUNG BOWEL GALLBLADDER SOFT CANAL"
    )
    assert seen >= {Organ[name] for name in wanted.split()}


def test_organs_have_their_hounsfield_units() -> None:
    for case, item in slices():

        def median(organ: Organ) -> float:
            here = item.labels == organ  # noqa: B023
            return float(np.median(item.hu[here])) if here.sum() > 30 else np.nan  # noqa: B023

        # In thin patients, and in thick slices, many pixels of fat and muscle are partly something else.
        assert not median(Organ.BODY) > -60 and not median(Organ.BONE) < 150
        assert not median(Organ.MUSCLE) < 10 and not median(Organ.MUSCLE) > 95
        if case.phase != "noncontrast":
            assert not median(Organ.AORTA) < median(Organ.MUSCLE)


def test_fat_and_muscle_are_what_they_are() -> None:
    for organ, low, high in ((Organ.BODY, -118, -80), (Organ.MUSCLE, 40, 80), (Organ.BONE, 200, 800)):
        medians = [
            np.median(item.hu[item.labels == organ]) for _, item in slices() if (item.labels == organ).sum() > 30
        ]
        assert low < np.median(medians) < high, organ.name


def test_the_left_of_the_patient_is_on_the_right_of_the_image() -> None:
    for case in cases():
        columns = {
            organ: np.concatenate([np.nonzero(item.labels == organ)[1] for item in case.slices])
            for organ in (Organ.LIVER_LEFT, Organ.LIVER_RIGHT, Organ.SPLEEN)
        }
        middle = MATRIX / 2
        assert columns[Organ.LIVER_LEFT].mean() > columns[Organ.LIVER_RIGHT].mean() + 5
        assert columns[Organ.LIVER_RIGHT].mean() < middle
        assert len(columns[Organ.SPLEEN]) == 0 or columns[Organ.SPLEEN].mean() > middle
    for _, item in slices():
        bone, aorta = (np.nonzero(item.labels == organ)[0] for organ in (Organ.CANAL, Organ.AORTA))
        # The spine is behind the aorta, so rows run to posterior.
        assert bone.mean() > aorta.mean() > 0
