"""Compare two records and tell differences from noise: ``lsms-rt bench compare A.json B.json``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lsms_rt.errors import InputError

from .cold_start import FIELDS
from .options import NOISE
from .records import ENGINES, SCALING, Record, device_of
from .samples import Ratio, Samples, unpaired_ratio
from .values import values_of

MORE_IS_BETTER = ("slices/s", "times ours", "times as fast")
# Samples for a verdict: the spread of fewer means nothing.
MIN_SAMPLES = 5
# Relative difference of two processes' latencies (up to a sixth was seen), which the spread within one does not show.
PROCESS = 0.2


@dataclass(frozen=True)
class Difference:
    """One value of both records.

    Attributes:
        name: Name of the value.
        a: Median of A, or its number.
        b: Median of B, or its number.
        unit: Unit of the samples; "" for a number.
        ratio: B to A; None for a number, which has no samples.
        verdict: "faster", "slower", "same" or "unclear" for samples; "same", "higher" or "lower" for a number.
    """

    name: str
    a: float
    b: float
    unit: str
    ratio: Ratio | None
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        values = {"name": self.name, "a": self.a, "b": self.b, "unit": self.unit, "verdict": self.verdict}
        return values | {"ratio": self.ratio and self.ratio.to_dict()}


def compare(a: Record, b: Record, noise: float = NOISE) -> tuple[list[Difference], list[str]]:
    """Compare every value that both records have.

    Args:
        a: The first record.
        b: The second record, of the same kind.
        noise: Relative difference to ignore between samples.

    Returns:
        The differences, and warnings about what makes the records hard to compare.

    Raises:
        InputError: The records are of different kinds, or have no value in common.
    """
    if a["kind"] != b["kind"]:
        raise InputError(f"A is a record of {a['kind']}, B of {b['kind']}; pass two records of one kind")
    of_b = dict(values_of(b))
    differences = []
    for name, value in values_of(a):
        other = of_b.get(name)
        if isinstance(value, Samples) and isinstance(other, Samples):
            one_process = a["kind"] in (ENGINES, SCALING) and name.rpartition(": ")[2] not in FIELDS
            differences.append(_of_samples(name, value, other, max(noise, PROCESS) if one_process else noise))
        elif isinstance(value, float) and isinstance(other, float):
            same = math.isclose(value, other, rel_tol=1e-9)
            verdict_ = "same" if same else "higher" if other > value else "lower"
            differences.append(Difference(name, value, other, "", None, verdict_))
    if not differences:
        raise InputError("A and B have no value in common; measure the same engines, peers or kernels")
    return differences, _cautions(a, b)


def _of_samples(name: str, a: Samples, b: Samples, noise: float) -> Difference:
    ratio = unpaired_ratio(b.values, a.values)
    few = min(len(a.values), len(b.values)) < MIN_SAMPLES
    return Difference(name, a.median, b.median, a.unit, ratio, "unclear" if few else verdict(ratio, a.unit, noise))


def verdict(ratio: Ratio, unit: str, noise: float) -> str:
    """Judge B against A: "same" if the whole interval lies within the noise, a side if all of it lies beyond."""
    low, high = 1 / (1 + noise), 1 + noise
    if ratio.low > high or ratio.high < low:
        more = ratio.low > high
        return "faster" if more == (unit in MORE_IS_BETTER) else "slower"
    return "same" if ratio.low >= low and ratio.high <= high else "unclear"


def _cautions(a: Record, b: Record) -> list[str]:
    cautions = []
    if device_of(a) != device_of(b):
        cautions.append(f"devices differ: {device_of(a)} vs. {device_of(b)}")
    for name in sorted(set(a["versions"]) & set(b["versions"])):
        if a["versions"][name] != b["versions"][name]:
            cautions.append(f"versions of {name} differ: {a['versions'][name]} vs. {b['versions'][name]}")
    for name in sorted(set(a.get("engines", {})) & set(b.get("engines", {}))):
        first, second = a["engines"][name], b["engines"][name]
        for key in ("digest", "backend", "precision", "image_size"):
            if first["engine"][key] != second["engine"][key]:
                cautions.append(f"{name}: {key} differs: {first['engine'][key]} vs. {second['engine'][key]}")
        for key in ("threads", "effort"):
            values = [record["method"][key] for record in (first, second)]
            if values[0] != values[1]:
                cautions.append(f"{name}: {key} differs: {_words(values[0])} vs. {_words(values[1])}")
    names = {"what": "what was measured", "image_size": "image size", "slices": "length of the series"}
    for field, words in (names | {"weights": "weights"}).items():
        first, second = a.get(field), b.get(field)
        if first != second and not isinstance(first, dict):
            cautions.append(f"{words} differs: {first} vs. {second}")
    return cautions


def _words(value: Any) -> str:
    return ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else str(value)
