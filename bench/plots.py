"""Records as pictures: every raw sample is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from .plots_scaling import draw_scaling
from .records import PEERS, SCALING, Record, digest, origin
from .tables import LATENCIES

OURS, OTHERS, DOT = "#c0392b", "#7f8c8d", "#2c3e50"


def draw(record: Record, stem: Path) -> list[Path]:
    """Write ``STEM.png``, or one picture an engine; returns the files."""
    if record["kind"] == PEERS:
        return [_peers(record, stem.with_suffix(".png"))]
    if record["kind"] == SCALING:
        return [_save(draw_scaling(record), record, stem.with_suffix(".png"))]
    names = list(record["engines"])
    paths = [stem.with_suffix(".png")] if len(names) == 1 else [stem.with_name(f"{stem.name}-{n}.png") for n in names]
    return [_engine(record, name, path) for name, path in zip(names, paths, strict=True)]


def _peers(record: Record, path: Path) -> Path:
    rows = sorted(record["rows"], key=lambda row: -row["ms_a_slice"]["p50"])
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(rows) + 1.9), layout="constrained")
    for place, row in enumerate(rows):
        median, samples = row["ms_a_slice"]["p50"], row["ms_a_slice"]["samples"]
        axes.barh(place, median, color=OURS if row["name"] == "ours" else OTHERS, height=0.6, alpha=0.85)
        axes.plot(samples, np.full(len(samples), place), "|", color=DOT, markersize=9)
        times = "" if row["name"] == "ours" else f", {row['times_ours']['value']:.2f} times ours"
        axes.text(max(samples), place, f"  {median:.0f} ms{times}", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_xlabel("ms a slice (bar: median; marks: every round)")
    axes.set_xlim(0, 1.3 * max(max(row["ms_a_slice"]["samples"]) for row in rows))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"{record['weights']}, {record['image_size']}x{record['image_size']}, series of {record['slices']} slices, "
        "one sentence",
        fontsize=10,
    )
    return _save(figure, record, path)


def _engine(record: Record, name: str, path: Path) -> Path:
    engine = record["engines"][name]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for key, words in LATENCIES.items():
        samples = np.sort(engine["latency"][key]["samples"])
        left.plot(samples, (np.arange(len(samples)) + 1) / len(samples), drawstyle="steps-post", label=words)
    left.set_xlabel("predict, ms")
    left.set_ylabel("share of calls that took at most that")
    left.legend(fontsize=8, loc="center right", frameon=False)
    stages = {stage: value["p50"] for stage, value in engine["stages"].items() if stage != "total"}
    middle.barh(range(len(stages)), list(stages.values()), color=OTHERS)
    for place, value in enumerate(stages.values()):
        middle.text(value, place, f" {value:.2f}", va="center", fontsize=8)
    middle.set_yticks(range(len(stages)), list(stages))
    middle.set_xlim(0, 1.25 * max(stages.values()))
    middle.set_xlabel("ms of a predict, by stage (median)")
    ways: dict[str, Any] = engine["throughput"]
    for place, value in enumerate(ways.values()):
        right.barh(place, value["p50"], color=OURS, alpha=0.85)
        right.plot(value["samples"], np.full(value["count"], place), "|", color=DOT)
    right.set_yticks(range(len(ways)), list(ways), fontsize=8)
    right.set_xlabel("slices a second (bar: median; marks: rounds)")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    what = engine["engine"]
    figure.suptitle(
        f"{name}: {what['preset']}, {what['image_size']}x{what['image_size']}, {what['precision']}", fontsize=10
    )
    return _save(figure, record, path)


def _save(figure: Any, record: Record, path: Path) -> Path:
    figure.supxlabel(origin(record), fontsize=6, color=OTHERS)
    figure.savefig(path, dpi=110, metadata={"record": digest(record)})
    plt.close(figure)
    return path
