"""Which slices of a scan are used: some with lesions, and some without."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from .lesions import MIN_PIXELS, has_small_piece, spacing_of
from .source import Volume

# Of the slices of a scan, this share has no lesion.
EMPTY_SHARE = 0.25
# A slice without lesions is at least this far from one that has: a lesion's end is blurred into its neighbors.
APART_MM = 10.0


@dataclass(frozen=True)
class Chosen:
    """Numbers of slices with and without lesions, and how many slices were not usable, by reason."""

    with_lesions: list[int]
    empty: list[int]
    unused: Counter[str]


def choose_slices(volume: Volume, count: int, rng: np.random.Generator) -> Chosen:
    """Choose up to ``count`` slices of a scan at random.

    Args:
        volume: the scan.
        count: at least 1.
        rng: random numbers.
    """
    areas = volume.any_lesion.sum(axis=(1, 2))
    unused: Counter[str] = Counter()
    full: list[int] = []
    for n in np.flatnonzero(areas):
        if volume.unlabeled is not None and volume.unlabeled[n].any():
            unused["partly unlabeled"] += 1
        elif volume.lesions and has_small_piece(volume, int(n)):
            unused[f"a piece of a lesion below {MIN_PIXELS} pixels"] += 1
        elif volume.findings and max(int(one.mask[n].sum()) for one in volume.findings) < MIN_PIXELS:
            unused[f"no finding of {MIN_PIXELS} pixels"] += 1
        else:
            full.append(int(n))
    empty = [int(n) for n in np.flatnonzero(areas == 0) if _is_clearly_empty(volume, int(n), areas)]
    wanted = round(count * EMPTY_SHARE) if count > 1 else 0
    wanted = max(wanted, count - len(full)) if not full else max(wanted, 1 if count > 1 else 0)
    chosen_empty = _draw(empty, wanted, rng)
    return Chosen(_draw(full, count - len(chosen_empty), rng), chosen_empty, unused)


def _is_clearly_empty(volume: Volume, n: int, areas: np.ndarray) -> bool:
    """Return whether slice ``n`` is far from every lesion, and shows the organ where the source has its mask."""
    if volume.unlabeled is not None and volume.unlabeled[n].any():
        return False
    dy, dx = spacing_of(volume.slices[n])
    if volume.organs and not any(mask[n].sum() * dy * dx >= 1000.0 for mask in volume.organs.values()):
        return False
    near = np.array([abs(height_of(volume, int(m)) - height_of(volume, n)) for m in np.flatnonzero(areas)])
    return bool((near >= APART_MM).all())


def height_of(volume: Volume, n: int) -> float:
    """Return the position of slice ``n`` in mm; where the file does not say, its number times ``APART_MM`` / 2."""
    position = volume.slices[n].position_mm
    return n * APART_MM / 2 if position is None else position


def _draw(numbers: list[int], count: int, rng: np.random.Generator) -> list[int]:
    return sorted(int(numbers[i]) for i in rng.permutation(len(numbers))[: max(count, 0)])
