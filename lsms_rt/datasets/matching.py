"""Lesions of a predicted mask matched with those of the true mask, one to one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What a sentence means is found, in whole or in part, if the Dice of its mask is at least this.
FOUND_DICE = 0.1
# Two lesions match if the Dice of one with the other is at least this.
MATCH_DICE = 0.2


@dataclass(frozen=True, kw_only=True)
class Matched:
    """How many lesions of two masks match.

    A lesion is a connected piece of a mask, however small; pixels that touch at a corner are connected.

    Attributes:
        found: pairs of a true and a predicted lesion.
        missed: true lesions without a partner.
        false: predicted lesions without a partner.
    """

    found: int = 0
    missed: int = 0
    false: int = 0

    @property
    def precision(self) -> float | None:
        """Share of the predicted lesions that have a partner, 0 to 1; None if none was predicted."""
        return _share(self.found, self.found + self.false)

    @property
    def recall(self) -> float | None:
        """Share of the true lesions that have a partner, 0 to 1; None if there are none."""
        return _share(self.found, self.found + self.missed)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of both, which is the share of all lesions of both masks with a partner; None of none."""
        return _share(2 * self.found, 2 * self.found + self.missed + self.false)


def match_lesions(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Matched:
    """Match the lesions of two masks of one shape, pairs with the highest Dice first.

    Args:
        mask: bool (H, W), predicted.
        truth: bool (H, W).
    """
    from scipy import ndimage

    corners = np.ones((3, 3))
    (predicted, n_predicted), (true, n_true) = (ndimage.label(one, structure=corners) for one in (mask, truth))
    shared = np.zeros((n_predicted + 1, n_true + 1), np.int64)
    np.add.at(shared, (predicted.ravel(), true.ravel()), 1)
    sizes = shared.sum(1)[1:, None] + shared.sum(0)[None, 1:]
    overlap = 2 * shared[1:, 1:] / sizes
    found = 0
    while overlap.size and overlap.max() >= MATCH_DICE:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        overlap[row, :] = overlap[:, column] = 0.0
        found += 1
    return Matched(found=found, missed=n_true - found, false=n_predicted - found)


def total(matches: Iterable[Matched]) -> Matched:
    """Add up the counts of several pairs of masks."""
    all_ = list(matches)
    return Matched(
        found=sum(one.found for one in all_), missed=sum(one.missed for one in all_), false=sum(m.false for m in all_)
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
