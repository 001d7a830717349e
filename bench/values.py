"""The values of a record of any kind, by name: measured samples, or single numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .records import ACCURACY, ARCHIVE, ENGINES, KINDS, PEERS, SCALING, Record, rows_of
from .samples import Samples

Value = Samples | float


def values_of(record: Record) -> Iterator[tuple[str, Value]]:
    """Yield name and value of everything that two records of one kind can be compared by."""
    kind = record["kind"]
    if kind == ENGINES:
        yield from _engines(record)
    elif kind == SCALING:
        for axis, points in record["axes"].items():
            for point in points:
                yield f"{axis}: {point['x']}", Samples.from_dict(point)
                if "cpu" in point:
                    yield f"CPU of {axis}: {point['x']}", Samples.from_dict(point["cpu"])
    elif kind == PEERS:
        yield from _peers(record)
    elif kind == ACCURACY:
        yield from row_values(record["accuracy"])
    elif kind == ARCHIVE:
        yield from row_values({name: record[name] for name in ("cpu_ms_a_slice", "slices_a_second", "two_over_one")})
    else:
        for row in rows_of(record):
            name = row_name(kind, row)
            for field, value in row_values(without_name(kind, row)):
                yield f"{name}: {field}" if name else field, value


def row_name(kind: str, row: dict[str, Any]) -> str:
    """Return the fields that name a row, in words."""
    named = [(field, row[field]) for field in KINDS[kind] if field in row]
    return ", ".join(str(value) if isinstance(value, str) else f"{field} {value}" for field, value in named)


def without_name(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in row.items() if field not in KINDS[kind]}


def row_values(row: dict[str, Any]) -> list[tuple[str, Value]]:
    """Return the samples in a row if there are any, and its numbers if not; nested fields are joined by dots."""
    found = list(_flat(row, ""))
    return [(name, value) for name, value in found if isinstance(value, Samples)] or found


def _flat(value: Any, name: str) -> Iterator[tuple[str, Value]]:
    if isinstance(value, dict) and "samples" in value:
        yield name, Samples.from_dict(value)
    elif isinstance(value, dict):
        for field, part in value.items():
            yield from _flat(part, f"{name}.{field}" if name else field)
    elif isinstance(value, (int, float)):
        yield name, float(value)


def _engines(record: Record) -> Iterator[tuple[str, Samples]]:
    for name, engine in record["engines"].items():
        for group in ("latency", "throughput", "cold_start"):
            for field, samples in engine[group].items():
                if samples["unit"] != "MB":
                    yield f"{name}: {field}", Samples.from_dict(samples)
        # Older records do not have them.
        for field, samples in engine.get("cpu_ms_a_slice", {}).items():
            yield f"{name}: CPU of {field}", Samples.from_dict(samples)


def is_ours(row: dict[str, Any]) -> bool:
    """Return whether a row of a record of peers is an engine of ours."""
    return bool(row.get("ours", row["name"] == "ours"))


def _peers(record: Record) -> Iterator[tuple[str, Samples]]:
    launches = record.get("launches", 1)
    times = {row["name"]: np.array(row["ms_a_slice"]["samples"]) for row in record["rows"]}
    for row in record["rows"]:
        name, values = row["name"], times[row["name"]]
        yield name, _medians(values, launches, "ms")
        # The ratio within each round, in which the drift of the machine cancels.
        if name != "ours" and is_ours(row):
            yield f"{name}, times as fast as ours", _medians(times["ours"] / values, launches, "times as fast")
        elif name != "ours":
            yield f"{name}, times ours", _medians(values / times["ours"], launches, "times ours")
        if "cpu_ms_a_slice" in row:
            yield f"CPU of {name}", _medians(np.array(row["cpu_ms_a_slice"]["samples"]), launches, "CPU ms")


def _medians(values: np.ndarray, launches: int, unit: str) -> Samples:
    """Return one median per launch: rounds of one process are not independent samples of how fast another one is."""
    return Samples(tuple(float(v) for v in np.median(values.reshape(launches, -1), axis=1)), unit)
