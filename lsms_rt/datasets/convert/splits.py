"""The split of every patient: the source's own where it has one, else by a hash, so that it never changes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from lsms_rt.datasets.phantom.spec import SPLITS

from .source import SourceCase

# Held-out splits first: a patient of two official splits stays in the one that figures are reported on.
ORDER = ("test", "val", "train")


def split_by_hash(patient: str, seed: int, shares: Sequence[tuple[str, float]] = SPLITS) -> str:
    """Return the split of a patient; the same patient and seed always give the same."""
    digest = hashlib.sha256(f"{seed}/{patient}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in shares:
        if place < share:
            return name
        place -= share
    return shares[-1][0]


def assign_splits(cases: Sequence[SourceCase], seed: int) -> tuple[list[SourceCase], list[str]]:
    """Give every case its split.

    Args:
        cases: of the whole source.
        seed: changes the split by hash.

    Returns:
        The cases with a split, and notes.  Scans of a patient whom the source has in two splits stay in the held-out
        one only.  An official split without "val" gets one: an eighth of the patients of its "train".
    """
    official = Counter(case.split for case in cases if case.split)
    notes: list[str] = []
    if not official:
        return [replace(case, split=split_by_hash(case.patient, seed)) for case in cases], notes
    kept: list[SourceCase] = []
    by_patient: dict[str, set[str]] = {}
    for case in cases:
        by_patient.setdefault(case.patient, set()).add(case.split)
    for case in cases:
        held_out = next((name for name in ORDER if name in by_patient[case.patient]), "train")
        if case.split == held_out:
            kept.append(case)
    if len(kept) < len(cases):
        notes.append(f"{len(cases) - len(kept)} scans are left out: their patients are also in a held-out split")
    if not official["val"]:
        shares = (("train", 0.875), ("val", 0.125))
        kept = [
            replace(case, split=split_by_hash(case.patient, seed, shares)) if case.split == "train" else case
            for case in kept
        ]
        notes.append("the source has no validation split: an eighth of its training patients is used")
    return kept, notes


def missing_splits(splits: Counter[str]) -> list[str]:
    """Return the names of the usual splits that have no case."""
    return [name for name, _ in SPLITS if not splits[name]]
