"""Samples of one quantity, what may be said of them, and of the ratio of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PERCENTILES = (50, 90, 95, 99)
RESAMPLES = 2000  # of a bootstrap: its 95 % ends are then good to about a hundredth of the interval
CONFIDENCE = 0.95
LARGEST_COV = 0.025  # trtexec's own limit, above which it calls a run unstable


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
        """Coefficient of variation: standard deviation over mean."""
        return float(np.std(self.values) / np.mean(self.values))

    def percentile(self, share: float) -> float | None:
        """None where there are too few samples for one to lie beyond it; the median always is."""
        enough = share == 50 or len(self.values) * min(share, 100 - share) / 100 >= 1
        return float(np.percentile(self.values, share)) if enough else None

    def to_dict(self) -> dict[str, Any]:
        """The figures, then every raw sample."""
        named = {f"p{share}": self.percentile(share) for share in PERCENTILES}
        figures = named | {"min": min(self.values), "mean": float(np.mean(self.values)), "cov": self.cov}
        rounded = {name: None if value is None else round(value, 4) for name, value in figures.items()}
        return {"unit": self.unit, "count": len(self.values), **rounded, "samples": [round(v, 4) for v in self.values]}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Samples:
        return cls(tuple(record["samples"]), record["unit"])


@dataclass(frozen=True)
class Ratio:
    """How many times larger one quantity is than another, and where that ratio lies with 95 % confidence."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}


def nested_ratio(numerator: Sequence[Sequence[float]], denominator: Sequence[Sequence[float]], seed: int = 0) -> Ratio:
    """Numerator / denominator of the same rounds, in several launches of processes: outer sequences are launches.

    What slows a whole round down falls out of its ratio.  A process is as fast as its memory happens to lie, so rounds
    of one launch tell nothing of the next: the value is the median of the launches' own medians, and the interval a
    bootstrap over launches, then over their rounds.
    """
    rng = np.random.default_rng(seed)
    ratios = [np.asarray(n, float) / np.asarray(d, float) for n, d in zip(numerator, denominator, strict=True)]
    found = np.median([np.median(launch) for launch in ratios])
    inner = np.stack([_resampled_medians(launch, rng) for launch in ratios])  # (launches, RESAMPLES)
    chosen = rng.integers(0, len(ratios), (len(ratios), RESAMPLES))
    resampled = np.median(np.take_along_axis(inner, chosen, axis=0), axis=0)
    return _interval(float(found), resampled)


def unpaired_ratio(numerator: Sequence[float], denominator: Sequence[float], seed: int = 0) -> Ratio:
    """Ratio of the medians of two runs that know nothing of each other."""
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
    """A warning where samples scatter too much for a difference of a few per cent to mean anything."""
    if samples.cov <= LARGEST_COV:
        return []
    return [f"{name}: the samples scatter by {samples.cov:.2%} (CoV; above {LARGEST_COV:.1%}): compare ratios only"]
