"""Parts of the converters: labels, splits, pieces, and sentences that are true of nothing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lsms_rt.ct_slice import CtSlice
from lsms_rt.datasets.convert.choose import choose_slices
from lsms_rt.datasets.convert.given import given_rows
from lsms_rt.datasets.convert.labels import role_of
from lsms_rt.datasets.convert.lesions import lesions_of
from lsms_rt.datasets.convert.made import grammar_of, sentences_of
from lsms_rt.datasets.convert.options import ConvertOptions
from lsms_rt.datasets.convert.source import Finding, LesionMask, SourceCase, Volume
from lsms_rt.datasets.convert.splits import assign_splits, split_by_hash
from lsms_rt.errors import InputError


@pytest.mark.parametrize(
    "label, role",
    [
        ("Tumor_1", "lesion"), ("liver tumour", "lesion"), ("Mass", "lesion"), ("cancer", "lesion"),
        ("LiverLesion", "lesion"), ("metastases", "lesion (metastasis)"), ("HCC", "lesion (hcc)"),
        ("simple cyst", "lesion (cyst)"), ("Cystic duct", "other"), ("cyst or metastasis", "lesion"),
        ("Liver", "organ (liver)"), ("left kidney", "organ (kidney)"), ("Liver_Remnant", "other"), ("Hepatic", "other"),
        ("Portal vein", "other"), ("Right lobe of liver", "lobe (right)"), ("left_lobe", "lobe (left)"),
        ("left lower lobe", "other"), ("ignore", "unlabeled"), ("massive", "other"),
    ],
)  # fmt: skip
def test_labels_are_told_apart(label: str, role: str) -> None:
    assert str(role_of(label)) == role


def test_the_user_s_labels_come_first() -> None:
    assert str(role_of("Liver", lesion_labels=("liv*",))) == "lesion"
    assert str(role_of("Tumor_1", lesion_labels=("blob",))) == "other"
    assert str(role_of("Gland", organ_labels=("gland",))) == "organ (gland)"
    assert str(role_of("Liver", organ_labels=("gland",))) == "other"


def test_the_split_of_a_patient_never_changes() -> None:
    splits = [split_by_hash(f"patient {n}", seed=0) for n in range(2000)]
    counts = Counter(splits)
    assert {name: round(count / 2000, 1) for name, count in counts.items()} == {"train": 0.7, "val": 0.1, "test": 0.2}
    assert splits[:5] == ["test", "train", "train", "test", "test"]
    assert splits != [split_by_hash(f"patient {n}", seed=1) for n in range(2000)]


def test_official_splits_are_kept() -> None:
    def case(name: str, split: str) -> SourceCase:
        return SourceCase(case_id=name, patient=name[:2], read=lambda: volume([]), split=split)

    cases = [case(f"{n:02d}a", "train") for n in range(40)] + [case("00b", "test"), case("99a", "test")]
    kept, notes = assign_splits(cases, seed=0)
    names = {one.case_id: one.split for one in kept}
    assert "00a" not in names and (names["00b"], names["99a"]) == ("test", "test")
    assert len(notes) == 2
    assert Counter(names.values())["val"] in range(1, 12)


def volume(masks: list[np.ndarray], findings: list[str] | None = None, **fields: object) -> Volume:
    """Five slices of 40x40 pixels of 2 mm, 10 mm apart."""
    slices = [CtSlice(np.zeros((40, 40), np.float32), (2.0, 2.0), position_mm=10.0 * n) for n in range(5)]
    if findings is not None:
        pairs = [Finding(text, mask) for text, mask in zip(findings, masks, strict=True)]
        return Volume(slices=slices, findings=pairs, **fields)  # type: ignore[arg-type]
    return Volume(slices=slices, lesions=[LesionMask(mask) for mask in masks], **fields)  # type: ignore[arg-type]


def block(n: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((5, 40, 40), bool)
    mask[n, rows, columns] = True
    return mask


def test_labels_that_touch_are_two_lesions_and_labels_that_overlap_one() -> None:
    touching = volume([block(1, slice(4, 10), slice(4, 10)), block(1, slice(4, 10), slice(10, 16))])
    assert len(lesions_of(touching, 1).lesions) == 2
    overlapping = volume([block(1, slice(4, 10), slice(4, 11)), block(1, slice(4, 10), slice(10, 16))])
    assert len(lesions_of(overlapping, 1).lesions) == 1
    corner = volume([block(1, slice(4, 10), slice(4, 10)) | block(1, slice(10, 16), slice(10, 16))])
    assert len(lesions_of(corner, 1).lesions) == 1


def test_slices_with_small_pieces_and_near_slices_are_not_used() -> None:
    masks = [block(0, slice(4, 10), slice(4, 10)), block(2, slice(4, 6), slice(4, 6))]
    chosen = choose_slices(volume(masks), 8, np.random.default_rng(0))
    assert chosen.with_lesions == [0]
    assert len(chosen.empty) == 2 and set(chosen.empty) <= {1, 3, 4}
    assert chosen.unused == {"a piece of a lesion below 8 pixels": 1}
    alone = choose_slices(volume(masks), 1, np.random.default_rng(0))
    assert (alone.with_lesions, alone.empty) == ([0], [])


def test_without_an_organ_nothing_is_said_of_density_or_place() -> None:
    here = volume([block(1, slice(4, 20), slice(4, 20)), block(1, slice(24, 30), slice(30, 36))])
    found = lesions_of(here, 1)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        for sentence in sentences_of(found.lesions, grammar_of(found, (), (), rng)):
            words = sentence.text.lower()
            assert not any(word in words for word in ("liver", "dens", "attenuat", "dark", "bright", "lobe"))


def test_an_empty_slice_gets_false_sentences_only() -> None:
    found = lesions_of(volume([]), 0)
    for seed in range(40):
        sentences = sentences_of((), grammar_of(found, (), ("liver",), np.random.default_rng(seed)))
        assert len(sentences) == 2
        assert all(sentence.targets == () for sentence in sentences)


def test_a_sentence_like_the_patient_s_own_is_never_called_false() -> None:
    masks = [block(1, slice(4, 10), slice(4, 10))]
    here = volume(masks, ["a solid nodule in the right upper lobe"])
    others = ["a subsolid nodule in the right upper lobe", "nodule", "pleural effusion with atelectasis"]
    for seed in range(20):
        rows = given_rows(here, 1, others, np.random.default_rng(seed))
        assert [row.sentence for row in rows] == [here.findings[0].sentence, others[2]]
        assert rows[0].mask.any() and not rows[1].mask.any()
    assert len(given_rows(here, 1, others[:2], np.random.default_rng(0))) == 1


@pytest.mark.parametrize("exhaustive", [False, True])
def test_a_finding_is_false_far_away_only_if_its_mask_is_complete(exhaustive: bool) -> None:
    here = volume([block(1, slice(4, 10), slice(4, 10))], ["a nodule"], exhaustive=exhaustive)
    assert len(given_rows(here, 4, [], np.random.default_rng(0))) == exhaustive
    # A finding of a few pixels is neither true nor false.
    few = volume([block(1, slice(4, 6), slice(4, 6))], ["a nodule"], exhaustive=exhaustive)
    assert given_rows(few, 1, [], np.random.default_rng(0)) == []


@pytest.mark.parametrize("wrong", [{"slices_per_case": 0}, {"limit": 0}, {"seed": -1}, {"kind": "list_"}])
def test_options_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        ConvertOptions(**{"kind": "seg", **wrong})  # type: ignore[arg-type]
