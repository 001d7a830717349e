"""Records as pictures, with every raw sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from . import style
from .plots_probes import draw_probes
from .plots_scaling import draw_scaling
from .records import ENGINES, PEERS, PROBES, SCALING, Record, digest, origin
from .tables import LATENCIES
from .values import is_ours


def draw(record: Record, stem: Path) -> list[Path]:
    """Write ``STEM.png``, or one picture per engine; return the files, none for kinds that only have a table."""
    path = stem.with_suffix(".png")
    if record["kind"] == PEERS:
        return [_save(_peers(record), record, path)]
    if record["kind"] == SCALING:
        return [_save(draw_scaling(record), record, path)]
    if record["kind"] == PROBES:
        return [_save(draw_probes(record), record, path)]
    if record["kind"] != ENGINES:
        return []
    names = list(record["engines"])
    paths = [path] if len(names) == 1 else [stem.with_name(f"{stem.name}-{name}.png") for name in names]
    return [_save(_engine(record, name), record, path) for name, path in zip(names, paths, strict=True)]


def _peers(record: Record) -> Any:
    rows = sorted(record["rows"], key=lambda row: -row["ms_a_slice"]["p50"])
    figure = style.new_figure(9, 0.55 * len(rows) + 1.9)
    axes = figure.subplots()
    for y, row in enumerate(rows):
        median, samples = row["ms_a_slice"]["p50"], row["ms_a_slice"]["samples"]
        axes.barh(y, median, color=style.OURS if is_ours(row) else style.OTHERS, height=0.6, alpha=0.85)
        axes.plot(samples, np.full(len(samples), y), "|", color=style.DOT, markersize=9)
        times = "" if row["name"] == "ours" else f", {row['times_ours']['value']:.2f} times ours"
        axes.text(max(samples), y, f"  {median:.0f} ms{times}", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_xlabel("ms per slice (bar: median; marks: every round)")
    axes.set_xlim(0, 1.45 * max(max(row["ms_a_slice"]["samples"]) for row in rows))
    style.open_frame(axes)
    axes.set_title(
        f"{record['weights']}, {record['image_size']}x{record['image_size']}, series of {record['slices']} slices, "
        "one sentence",
        fontsize=10,
    )
    return figure


def _engine(record: Record, name: str) -> Any:
    engine = record["engines"][name]
    figure = style.new_figure(13, 4)
    left, middle, right = figure.subplots(1, 3)
    for key, words in LATENCIES.items():
        samples = np.sort(engine["latency"][key]["samples"])
        left.plot(samples, (np.arange(len(samples)) + 1) / len(samples), drawstyle="steps-post", label=words)
    left.set_xlabel("predict, ms")
    left.set_ylabel("share of calls that took at most that long")
    left.legend(fontsize=8, loc="center right", frameon=False)
    stages = {stage: value["p50"] for stage, value in engine["stages"].items() if stage != "total"}
    middle.barh(range(len(stages)), list(stages.values()), color=style.OTHERS)
    for y, value in enumerate(stages.values()):
        middle.text(value, y, f" {value:.2f}", va="center", fontsize=8)
    middle.set_yticks(range(len(stages)), list(stages))
    middle.set_xlim(0, 1.25 * max(stages.values()))
    middle.set_xlabel("ms of predict, by stage (median)")
    ways: dict[str, Any] = engine["throughput"]
    for y, value in enumerate(ways.values()):
        right.barh(y, value["p50"], color=style.OURS, alpha=0.85)
        right.plot(value["samples"], np.full(value["count"], y), "|", color=style.DOT)
    right.set_yticks(range(len(ways)), list(ways), fontsize=8)
    right.set_xlabel("slices per second (bar: median; marks: rounds)")
    style.open_frame(left, middle, right)
    what = engine["engine"]
    figure.suptitle(
        f"{name}: {what['preset']}, {what['image_size']}x{what['image_size']}, {what['precision']}", fontsize=10
    )
    return figure


def _save(figure: Any, record: Record, path: Path) -> Path:
    figure.supxlabel(origin(record), fontsize=6, color=style.GRAY)
    return style.save(figure, path, dpi=110, metadata={"record": digest(record)})
