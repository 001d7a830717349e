"""Samples of one quantity, their statistics, and the ratio of two of them with a confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsms_rt.calibration.options import RESAMPLES

PERCENTILES = (50, 90, 95, 99)
CONFIDENCE = 0.95
# Coefficient of variation above which trtexec, too, calls a run unstable.
MAX_COV = 0.025


@dataclass(frozen=True)
class Samples:
    """Raw values in the order in which they were measured; none is ever dropped or clipped."""

    values: tuple[float, ...]
    unit: str = "ms"

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    @property
    def cov(self) -> float:
        """The coefficient of variation: standard deviation over mean."""
        return float(np.std(self.values) / np.mean(self.values))

    def percentile(self, share: float) -> float | None:
        """Return a percentile, or None if no sample lies beyond it; the median always exists."""
        enough = share == 50 or len(self.values) * min(share, 100 - share) / 100 >= 1
        return float(np.percentile(self.values, share)) if enough else None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, then every raw sample."""
        named = {f"p{share}": self.percentile(share) for share in PERCENTILES}
        figures = named | {"min": min(self.values), "mean": float(np.mean(self.values)), "cov": self.cov}
        rounded = {name: None if value is None else _rounded(value) for name, value in figures.items()}
        return {"unit": self.unit, "count": len(self.values), **rounded, "samples": [_rounded(v) for v in self.values]}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Samples:
        return cls(tuple(record["samples"]), record["unit"])


def _rounded(value: float) -> float:
    """Round to four decimals, or to four digits where that is more: a kernel takes microseconds."""
    return round(value, max(4, 3 - math.floor(math.log10(abs(value))))) if value else 0.0


@dataclass(frozen=True)
class Ratio:
    """The ratio of two quantities, and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def nested_ratio(numerator: Sequence[Sequence[float]], denominator: Sequence[Sequence[float]], seed: int = 0) -> Ratio:
    """Return the ratio of samples that share rounds, from several launches of the processes.

    What slows a whole round down cancels in its ratio.  The speed of a process depends on where its memory happens to
    lie, so rounds of one launch do not predict those of the next one.  The value is therefore the median of the
    launches' medians, and the interval a bootstrap over launches, then over their rounds.

    Args:
        numerator: Launches of rounds of one quantity.
        denominator: The same launches and rounds of the other one.
        seed: Seed of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    ratios = [np.asarray(n, float) / np.asarray(d, float) for n, d in zip(numerator, denominator, strict=True)]
    value = np.median([np.median(launch) for launch in ratios])
    inner = np.stack([_resampled_medians(launch, rng) for launch in ratios])  # (launches, RESAMPLES)
    chosen = rng.integers(0, len(ratios), (len(ratios), RESAMPLES))
    resampled = np.median(np.take_along_axis(inner, chosen, axis=0), axis=0)
    return _interval(float(value), resampled)


def unpaired_ratio(numerator: Sequence[float], denominator: Sequence[float], seed: int = 0) -> Ratio:
    """Return the ratio of the medians of two independent runs."""
    rng = np.random.default_rng(seed)
    a, b = np.asarray(numerator, float), np.asarray(denominator, float)
    value = float(np.median(a) / np.median(b))
    return _interval(value, _resampled_medians(a, rng) / _resampled_medians(b, rng))


def _resampled_medians(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    medians: np.ndarray = np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1)
    return medians


def _interval(value: float, resampled: np.ndarray) -> Ratio:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return Ratio(value, float(low), float(high))


def instability(name: str, samples: Samples) -> list[str]:
    """Return a warning if the samples vary too much for a difference of a few per cent to mean anything."""
    if samples.cov <= MAX_COV:
        return []
    return [f"{name}: the samples vary by {samples.cov:.2%} (CoV; above {MAX_COV:.1%}): compare ratios only"]
