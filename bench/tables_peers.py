"""Records of ``bench peers`` as a Markdown table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .cells import number
from .compare import MIN_SAMPLES
from .records import Record


def peers_table(record: Record) -> str:
    """Return one line per contender and form: speed and accuracy.  Version 0.1 did not record the best of ours."""
    columns = _peers_columns(record)
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for row in record["rows"]:
        lines.append(f"| {row['name']}: {row['what']} | " + " | ".join(cell(row) for cell in columns.values()) + " |")
    lines += [f"| {name} | {reason} " + "| " * (len(columns) - 1) + "|" for name, reason in record["absent"].items()]
    size, best = record["image_size"], record.get("best", {})
    lines += [
        "",
        f"{record['weights']}, {size}x{size}; a series of {record['slices']} slices with one sentence; "
        f"{record.get('launches', 1)} launches of {record['rounds']} rounds; threads: {record['threads']}; "
        f"logits compared with {record['answers_compared_with']}.",
    ]
    if best:
        lines[-1] += f"  Our best: {'; '.join(f'{form}: {name}' for form, name in best.items())}."
    return "\n".join(lines)


def _peers_columns(record: Record) -> dict[str, Callable[[dict[str, Any]], str]]:
    interval = "95 %" if record.get("launches", 1) >= MIN_SAMPLES else "range"
    best = "best" in record
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "ms per slice (median)": lambda row: f"{row['ms_a_slice']['p50']:.1f}",
        f"times ours ({interval})": lambda row: "1" if row["name"] == "ours" else _ratio(row["times_ours"]),
    }
    if best:
        columns[f"times our best ({interval})"] = lambda row: (
            "1" if row["name"] in record["best"].values() else _ratio(row["times_best"])
        )
    columns["goal"] = lambda row: (
        _goal(row["times_best"], row.get("goal_best")) if best else _goal(row["times_ours"], row.get("goal"))
    )
    if best:
        columns["CPU ms per slice"] = lambda row: f"{row['cpu_ms_a_slice']['p50']:.1f}"
    return columns | {
        "max. logit difference": lambda row: f"{row['largest_logit_difference']:.1e}",
        "same mask": lambda row: f"{row['mask_agreement']:.4%}",
        "first slice, s": lambda row: f"{row['first_slice_s']:.1f}",
        "peak MB": lambda row: number(row["peak_rss_mb"], 0),
    }


def _ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def _goal(ratio: dict[str, float], goal: float | None) -> str:
    if goal is None:
        return ""
    if ratio["low"] >= goal:
        return f"{goal:g}"
    return f"{goal:g}, not reached" if ratio["value"] < goal else f"{goal:g}, not significant"
