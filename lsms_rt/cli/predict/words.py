"""A report in words, for a terminal."""

from __future__ import annotations

from typing import Any

from lsms_rt.writing.caption import NOTHING_FOUND, count_text, finding_text

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
            return f"{name}: {NOTHING_FOUND} (smaller than a pixel)"
        return f"{name}: {NOTHING_FOUND} (highest probability {score:.4f}, found from {limit:.4f})"
    finding = finding_text(record["pixels"], record["area_mm2"], record["mean_hu"])
    return f"{name}: found, {finding}, score {record['score']:.2f}, box {record['bbox']}"


def _series(row: dict[str, Any], numbered: bool) -> str:
    name = f"input {row['input']}: " if numbered else ""
    if not row["found"]:
        return name + count_text(0, row["slices"])
    volume = "" if row["volume_ml"] is None else f", {row['volume_ml']:.2f} ml"
    most = f"most of it in slice {row['largest']} ({row['largest_source']})"
    return f"{name}{count_text(row['found'], row['slices'])}{volume}, {most}"
