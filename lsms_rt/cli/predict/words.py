"""A report in words, for a terminal."""

from __future__ import annotations

from typing import Any

from .run import Report

SHORT = 20  # slices, of which also those without a finding are listed


def lines(report: Report) -> list[str]:
    """A line a slice, where something was found or there are few; then one an input."""
    said = [_slice(record) for record in report.results if record["found"] or len(report.results) <= SHORT]
    for row in report.series:
        if row["slices"] > 1 or len(report.series) > 1:
            said.append(_series(row, len(report.series) > 1))
    return said


def _slice(record: dict[str, Any]) -> str:
    name = f"{record['number']:4d}  {record['source']}" + (f" [{record['frame']}]" if record["frame"] else "")
    if not record["found"]:
        score, limit = record["score"], record["confidence"]
        if score >= limit:  # on the network's own grid, and gone on a coarser one
            return f"{name}: nothing found (smaller than a pixel)"
        return f"{name}: nothing found (highest probability {score:.4f}, found from {limit:.4f})"
    area = f"{record['area_mm2']:.0f} mm2" if record["area_mm2"] is not None else f"{record['pixels']} pixels"
    return f"{name}: found, {area}, mean {record['mean_hu']:.0f} HU, score {record['score']:.2f}, box {record['bbox']}"


def _series(row: dict[str, Any], numbered: bool) -> str:
    name = f"input {row['input']}: " if numbered else ""
    if not row["found"]:
        return f"{name}nothing found in {row['slices']} slices"
    volume = "" if row["volume_ml"] is None else f", {row['volume_ml']:.2f} ml"
    most = f"most of it in slice {row['largest']} ({row['largest_source']})"
    return f"{name}found in {row['found']} of {row['slices']} slices{volume}, {most}"
