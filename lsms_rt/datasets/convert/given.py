"""Rows of a slice for a source with sentences, and sentences of other patients that are true of nothing in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .choose import APART_MM, height_of
from .lesions import MIN_PIXELS
from .source import Finding, Volume

# One false sentence for a slice with findings, two for one without.
FALSE_SENTENCES, FALSE_IN_EMPTY = 1, 2
# A sentence of another patient is false here if less than this share of its words is in the patient's own sentences.
SHARED_WORDS = 0.3
ATTEMPTS = 40


@dataclass(frozen=True)
class Row:
    """A sentence and its mask, bool (H, W); all zeros if the sentence is true of nothing in the slice."""

    sentence: str
    mask: np.ndarray
    query: str = ""
    lesion_type: str = ""


def given_rows(volume: Volume, n: int, others: Sequence[str], rng: np.random.Generator) -> list[Row]:
    """Return the rows of slice ``n``.

    Args:
        volume: the scan.
        n: the slice.
        others: sentences of other patients.
        rng: random numbers.
    """
    here = [one for one in volume.findings if int(one.mask[n].sum()) >= MIN_PIXELS]
    rows = [Row(one.sentence, one.mask[n]) for one in here]
    nothing = np.zeros(volume.slices[n].hu.shape, bool)
    false = [one.sentence for one in volume.findings if volume.exhaustive and _is_far(volume, n, one)]
    own = _words(" ".join(one.sentence for one in volume.findings))
    # A finding that is also said of this slice in other words must not be called false.
    false = [text for text in false if not any(_alike(text, _words(one.sentence)) for one in here)]
    for _ in range(ATTEMPTS if others else 0):
        text = others[int(rng.integers(len(others)))]
        if not _alike(text, own):
            false.append(text)
            break
    wanted = FALSE_SENTENCES if here else FALSE_IN_EMPTY
    false = list(dict.fromkeys(false))
    return rows + [Row(false[i], nothing) for i in rng.permutation(len(false))[:wanted]]


def _is_far(volume: Volume, n: int, finding: Finding) -> bool:
    """Return whether all of a finding is at least ``APART_MM`` above or below slice ``n``."""
    there = np.flatnonzero(finding.mask.any(axis=(1, 2)))
    return bool(len(there)) and all(abs(height_of(volume, int(m)) - height_of(volume, n)) >= APART_MM for m in there)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]{4,}", text.lower()))


def _alike(text: str, own: set[str]) -> bool:
    words = _words(text)
    return not words or len(words & own) >= SHARED_WORDS * len(words)
