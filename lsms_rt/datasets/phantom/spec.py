"""The size of a phantom: how many cases, from which seed.  The command line reads the defaults and limits from here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lsms_rt.errors import InputError

# The size of RefHL-Seg (abstract of arXiv 2408.17347).
CASES, SLICES = 231, 2283
# Shares of the cases.
SPLITS = (("train", 0.7), ("val", 0.1), ("test", 0.2))
MAX_CASES = 1000
# Seeds of cases are seed * 1000 + number; those of the training data of the demo weights begin at 5000 * 1000.
MAX_SEED = 5000
MIN_MATRIX, MAX_MATRIX = 64, 1024


@dataclass(frozen=True, kw_only=True)
class PhantomSpec:
    """Options of ``lsms-rt phantom``.

    Args:
        cases: number of cases, 1 to 1000; a case has 6 to 14 slices.
        seed: random seed; the same seed gives the same data set.
        matrix: rows and columns of a slice, in pixels.

    Raises:
        InputError: a value is out of range.
    """

    cases: int = CASES
    seed: int = 0
    matrix: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.cases <= MAX_CASES:
            raise InputError(f"--cases {self.cases}; give 1 to {MAX_CASES}")
        if not 0 <= self.seed < MAX_SEED:
            raise InputError(f"--seed {self.seed}; give 0 to {MAX_SEED - 1}: higher ones trained the demo weights")
        if not MIN_MATRIX <= self.matrix <= MAX_MATRIX:
            raise InputError(f"--matrix {self.matrix}; give {MIN_MATRIX} to {MAX_MATRIX} pixels")

    def slices_per_case(self) -> list[int]:
        """Return how many slices each case has: 6 to 14, on average 2283 / 231."""
        total, rng = round(self.cases * SLICES / CASES), np.random.default_rng([self.seed, 1])
        counts = rng.integers(6, 15, self.cases)
        while (difference := total - int(counts.sum())) != 0:
            index = int(rng.integers(self.cases))
            counts[index] = np.clip(counts[index] + np.sign(difference), 6, 14)
        return [int(count) for count in counts]

    def splits(self) -> list[str]:
        """Return the split of every case; a random but repeatable assignment."""
        order = np.random.default_rng([self.seed, 2]).permutation(self.cases)
        edges = np.cumsum([share for _, share in SPLITS]) * self.cases
        ranks = {int(case): rank for rank, case in enumerate(order)}
        return [SPLITS[int(np.searchsorted(edges, ranks[case] + 0.5))][0] for case in range(self.cases)]
