"""Two runs, and whether they differ by more than noise: ``lsms-rt bench compare A.json B.json``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lsms_rt.errors import InputError

from .cold_start import FIELDS
from .records import ENGINES, PEERS, SCALING, Record, device_of
from .samples import Ratio, Samples, unpaired_ratio

MORE_IS_BETTER = ("slices/s", "times ours")
LEAST = 5  # samples for a verdict: the spread of fewer says nothing
PROCESS = 0.2  # what one process's latencies differ by from the next one's (seen: a sixth), which its own spread hides
NOISE = 0.05  # what two runs on one machine differ by for no reason (two runs on a shared host: up to this)


@dataclass(frozen=True)
class Difference:
    """One figure of both runs.  ``ratio`` is B to A; ``verdict`` "faster", "slower", "same" or "unclear"."""

    name: str
    a: float
    b: float
    unit: str
    ratio: Ratio
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        values = {"name": self.name, "a": self.a, "b": self.b, "unit": self.unit, "verdict": self.verdict}
        return values | {"ratio": self.ratio.to_dict()}


def compare(a: Record, b: Record, noise: float = NOISE) -> tuple[list[Difference], list[str]]:
    """All figures that both have, and what makes them hard to compare.

    Raises :class:`InputError` for records of different kinds, or with nothing in common.
    """
    if a["kind"] != b["kind"]:
        raise InputError(f"A is a record of {a['kind']}, B of {b['kind']}; compare two of a kind")
    theirs = dict(_figures(b))
    found = []
    for name, mine in _figures(a):
        if name in theirs:
            other = theirs[name]
            ratio = unpaired_ratio(other.values, mine.values)
            one_process = a["kind"] != PEERS and name.rpartition(": ")[2] not in FIELDS
            said = verdict(ratio, mine.unit, max(noise, PROCESS) if one_process else noise)
            if min(len(mine.values), len(other.values)) < LEAST:
                said = "unclear"
            found.append(Difference(name, mine.median, other.median, mine.unit, ratio, said))
    if not found:
        raise InputError("A and B have no figure in common; measure the same engine or peers")
    return found, _cautions(a, b)


def verdict(ratio: Ratio, unit: str, noise: float) -> str:
    """B against A.  "same" where the whole interval lies within the noise, a side where all of it lies beyond."""
    low, high = 1 / (1 + noise), 1 + noise
    if ratio.low > high or ratio.high < low:
        more = ratio.low > high
        return "faster" if more == (unit in MORE_IS_BETTER) else "slower"
    return "same" if ratio.low >= low and ratio.high <= high else "unclear"


def _figures(record: Record) -> Iterator[tuple[str, Samples]]:
    if record["kind"] == ENGINES:
        for name, engine in record["engines"].items():
            for group in ("latency", "throughput", "cold_start"):
                for figure, samples in engine[group].items():
                    if samples["unit"] != "MB":
                        yield f"{name}: {figure}", Samples.from_dict(samples)
    elif record["kind"] == SCALING:
        for axis, points in record["axes"].items():
            for point in points:
                yield f"{axis}: {point['x']}", Samples.from_dict(point)
    else:
        launches = record.get("launches", 1)
        times = {row["name"]: np.array(row["ms_a_slice"]["samples"]) for row in record["rows"]}
        for name, values in times.items():
            yield name, _launches(values, launches, "ms")
            if name != "ours":  # a round's own ratio, in which its drift is not seen
                yield f"{name}, times ours", _launches(values / times["ours"], launches, "times ours")


def _launches(values: np.ndarray, launches: int, unit: str) -> Samples:
    """Medians of launches: rounds of one process are no independent samples of how fast another one is."""
    return Samples(tuple(float(v) for v in np.median(values.reshape(launches, -1), axis=1)), unit)


def _cautions(a: Record, b: Record) -> list[str]:
    said = []
    if device_of(a) != device_of(b):
        said.append(f"other devices: {device_of(a)} and {device_of(b)}")
    for name in sorted(set(a["versions"]) & set(b["versions"])):
        if a["versions"][name] != b["versions"][name]:
            said.append(f"other versions of {name}: {a['versions'][name]} and {b['versions'][name]}")
    for name in sorted(set(a.get("engines", {})) & set(b.get("engines", {}))):
        mine, other = a["engines"][name], b["engines"][name]
        for key in ("digest", "backend", "precision", "image_size"):
            if mine["engine"][key] != other["engine"][key]:
                said.append(f"{name}: other {key}: {mine['engine'][key]} and {other['engine'][key]}")
        if any(mine["method"][key] != other["method"][key] for key in ("threads", "effort")):
            said.append(f"{name}: other threads or effort")
    for field, words in (("image_size", "image sizes"), ("slices", "series"), ("weights", "weights")):
        if a.get(field) != b.get(field):
            said.append(f"other {words}: {a.get(field)} and {b.get(field)}")
    return said
