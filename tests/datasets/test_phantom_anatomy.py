"""What lies about the lesions: decoys, vessels outside the liver, the chest wall, fields of view and thick slices."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from lsms_rt.datasets.phantom import case as case_module
from lsms_rt.datasets.phantom.anatomy import Anatomy, AnatomySlice
from lsms_rt.datasets.phantom.case import Case, PhantomSlice, _draw_offsets, generate_case
from lsms_rt.datasets.phantom.decoys import _KINDS, draw_decoys
from lsms_rt.datasets.phantom.organs import Organ, Value
from lsms_rt.datasets.phantom.patient import Patient
from lsms_rt.datasets.phantom.render import draw_scanner, draw_tissue
from lsms_rt.datasets.phantom.spots import INSIDE, OUTSIDE, allowed, coverage

LIVER = (Organ.LIVER_LEFT, Organ.LIVER_RIGHT)


@cache
def cases() -> tuple[Case, ...]:
    return tuple(generate_case(seed, 4, 128) for seed in range(300, 316))


def slices() -> list[PhantomSlice]:
    return [item for case in cases() for item in case.slices]


@cache
def sections() -> tuple[AnatomySlice, ...]:
    anatomies = [Anatomy(np.random.default_rng(seed)) for seed in range(30)]
    return tuple(anatomy.at(s, 96) for anatomy in anatomies for s in (0.3, 0.5, 0.7))


@pytest.mark.slow
def test_decoys_lie_outside_of_the_liver_and_never_in_a_mask() -> None:
    with_decoys = 0
    for item in slices():
        outside = item.decoys == OUTSIDE
        with_decoys += outside.any()
        assert set(np.unique(item.decoys)) <= {0, OUTSIDE, INSIDE}
        assert not np.isin(item.labels[outside], [*LIVER, Organ.VESSEL]).any()
        assert not any((lesion.mask & (item.decoys > 0)).any() for lesion in item.lesions)
    assert with_decoys > 0.7 * len(slices())


def test_the_liver_holds_more_than_lesions() -> None:
    """Fat, perfusion differences and wide ducts; they lie in the liver, and no lesion lies there."""
    inside = [item.decoys == INSIDE for item in slices()]
    assert 0.1 < np.mean([mask.any() for mask in inside]) < 0.7
    for item, mask in zip(slices(), inside, strict=True):
        assert np.isin(item.labels[mask], [*LIVER, Organ.VESSEL, Organ.GALLBLADDER]).all()


def test_every_kind_of_decoy_occurs_and_keeps_off_the_liver() -> None:
    seen: dict[str, int] = {}
    for seed in range(25):
        rng = np.random.default_rng(seed)
        patient = Patient(rng)
        for _, _, draw in _KINDS:
            blob = draw(patient, rng)
            assert not blob.on & {*LIVER, Organ.VESSEL} and blob.label not in LIVER
            seen[draw.__name__] = seen.get(draw.__name__, 0) + 1
            assert min(blob.radii) > 0.3 and -1000 < blob.value.offset < 3100
    assert len(seen) == len(_KINDS) >= 17
    counts = [len(draw_decoys(Patient(np.random.default_rng(seed)), np.random.default_rng(seed))) for seed in range(30)]
    assert min(counts) < 40 < max(counts)


def test_the_decoys_are_painted_as_they_say() -> None:
    """The noise-free density of a pixel that a decoy covers wholly is the decoy's own."""
    mean = np.arange(32, dtype=np.float32)
    assert Value(5.0).hu(mean) == 5 and Value(5.0, ((Organ.BONE, 2.0), (Organ.MUSCLE, 1.0))).hu(mean) == 5 + 6 + 2
    d = np.array([0.0, 0.9, 1.0, 1.1, 2.0], np.float32)
    np.testing.assert_allclose(coverage(d, 10.0, 2.0), [1, 1, 0.5, 0, 0], atol=1e-6)
    np.testing.assert_allclose(coverage(d, 10.0, 2.0, 1.0), [1, 0.5, 0, 0, 0], atol=1e-6)
    table = allowed(frozenset((Organ.BODY, Organ.SOFT)))
    assert table.sum() == 2 and table[Organ.BODY] and table[Organ.SOFT]


def test_vessels_and_ducts_run_outside_of_the_liver() -> None:
    portal = [(part.portal & (part.lobes == 0)).sum() for part in sections()]
    assert np.mean(np.array(portal) > 0) > 0.4
    for part in sections():
        assert (part.labels[part.portal] == Organ.VESSEL).all()
        assert np.isin(part.labels[part.lobes > 0], [*LIVER, Organ.VESSEL, Organ.GALLBLADDER]).all()


def test_fissures_hold_fat() -> None:
    """Somewhere in the liver's hull there is fat with liver on both sides of it."""
    found = 0
    for part in sections():
        liver = part.lobes > 0
        between = np.maximum.accumulate(liver, 1) & np.maximum.accumulate(liver[:, ::-1], 1)[:, ::-1] & ~liver
        found += int((between & (part.labels == Organ.BODY)).sum() > 10)
    assert found > 0.5 * len(sections())


def test_ribs_have_marrow_and_cartilage_lies_in_front() -> None:
    for seed in range(20):
        patient = Patient(np.random.default_rng(seed))
        assert all(-60 < rib.core < 160 and 0.6 < rib.cortex < 1.7 for rib in patient.ribs)
        assert len(patient.cartilage) >= 4
        assert all(40 < rib.core < 170 and rib.cortex == 0 for _, rib in patient.cartilage)
        assert all(0.1 < abs(angle) < 1.1 for angle, _ in patient.cartilage)


def test_fields_of_view_vary() -> None:
    shares, centers = [], []
    for seed in range(40):
        anatomy = Anatomy(np.random.default_rng(seed))
        body = anatomy.at(0.5, 64).body_r < 1
        columns = np.flatnonzero(body.any(0))
        shares.append(len(columns) / 64)
        middle = np.argwhere(body).mean(0) - 31.5
        centers.append(float(np.hypot(*middle)) * anatomy.fov / 64)
    assert min(shares) < 0.7 and max(shares) > 0.97
    assert sum(share == 1.0 for share in shares) >= 1, "some bodies are cut off"
    assert max(centers) > 12 and all(center < 60 for center in centers)


def test_a_third_of_the_cases_has_thick_slices() -> None:
    """A thick slice blurs what it cuts obliquely, so that it differs from its own middle plane."""
    rng = np.random.default_rng(0)
    counts = [len(_draw_offsets(rng, 5.0)) for _ in range(600)]
    assert set(counts) == {1, 3} and 0.25 < np.mean(np.array(counts) == 3) < 0.42
    for _ in range(50):
        offsets = _draw_offsets(rng, 5.0)
        assert offsets[len(offsets) // 2] == 0 and np.abs(offsets).max() <= 2.5


def test_a_thick_slice_differs_from_its_middle_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    """Organs stay where they are; where they run obliquely through the slice, the image is blurred."""
    monkeypatch.setattr(case_module, "_draw_offsets", lambda rng, step: np.zeros(1))
    thin = generate_case(305, 3, 96)
    monkeypatch.setattr(case_module, "_draw_offsets", lambda rng, step: np.array([-1.5, 0.0, 1.5]))
    thick = generate_case(305, 3, 96)
    for one, two in zip(thin.slices, thick.slices, strict=True):
        difference = np.abs(one.hu.astype(int) - two.hu)
        assert np.median(difference) < 4 and (difference > 40).sum() > 20
        shared = {lesion.id: lesion.mask for lesion in two.lesions}
        for lesion in one.lesions:
            assert lesion.id not in shared or np.array_equal(lesion.mask, shared[lesion.id])


def test_a_lower_voltage_makes_contrast_medium_brighter() -> None:
    def aorta(kvp: int) -> float:
        return float(
            np.mean([draw_tissue(np.random.default_rng(i), "portal", kvp).mean[Organ.AORTA] for i in range(60)])
        )

    assert aorta(80) > aorta(100) + 10 > aorta(120) + 20 > aorta(140)
    plain = [draw_tissue(np.random.default_rng(i), "noncontrast", kvp).mean for kvp in (80, 140) for i in (1, 1)]
    np.testing.assert_array_equal(plain[0], plain[2])
    assert {draw_scanner(np.random.default_rng(i)).kvp for i in range(60)} == {80, 100, 120, 140}
    assert {case.kvp for case in cases()} <= {80, 100, 120, 140} and len({case.kvp for case in cases()}) > 1
