"""Intervals by resampling cases: sentences of one case are not independent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000


def interval_by_case(values: Sequence[tuple[str, float]]) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of a mean.

    Args:
        values: (case, value) of every sentence.

    Returns:
        Lower and upper end; None for fewer than two cases.
    """
    by_case: dict[str, list[float]] = defaultdict(list)
    for case, value in values:
        by_case[case].append(value)
    if len(by_case) < 2:
        return None
    sums, counts = (np.array([measure(group) for group in by_case.values()], float) for measure in (sum, len))
    drawn = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), (2.5, 97.5))
    return float(low), float(high)
