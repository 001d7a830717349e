"""Bounds of rates and means: what the data exclude."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from .options import RESAMPLES

# Of every one-sided bound.
CONFIDENCE = 0.95


def interval_by_case(values: Iterable[tuple[str, float]]) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of a mean, by resampling cases: sentences of one case are not independent.

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


def upper_bound(events: int, n: int) -> float:
    """Return the one-sided 95 % upper bound (Clopper-Pearson) of a rate of which ``events`` of ``n`` were seen.

    If the true rate were higher, so few events would be seen less than one time in twenty.
    """
    if events >= n:
        return 1.0
    i = np.arange(events + 1)
    log_ways = np.concatenate([[0.0], np.cumsum(np.log((n - i[:-1]) / (i[:-1] + 1)))])
    low, high = events / n, 1.0
    for _ in range(50):
        rate = (low + high) / 2
        at_most = float(np.exp(log_ways + i * math.log(rate) + (n - i) * math.log1p(-rate)).sum())
        low, high = (rate, high) if at_most > 1 - CONFIDENCE else (low, rate)
    return high


def least_n(rate: float) -> int:
    """Return how many trials without an event show that the true rate is at most ``rate``, which is above 0."""
    return 1 if rate >= 1 else math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate))


def mcnemar(lost: int, gained: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: would losses and gains differ as much by chance?"""
    changed, most = lost + gained, max(lost, gained)
    tail = sum(math.comb(changed, i) for i in range(most, changed + 1))
    return min(1.0, float(2 * tail / 2**changed))
