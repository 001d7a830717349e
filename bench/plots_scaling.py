"""The picture of a scaling record: how cost grows, and how the time of a slice is spent."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import style
from .records import Record

LINE, SECOND, FLOOR = style.OURS, style.DOT, style.GRAY
# Kinds of operators with a bar of their own.
BARS = 10


def draw_scaling(record: Record) -> Any:
    """Return a figure of six panels."""
    figure = style.new_figure(14, 7.6)
    panels = figure.subplots(2, 3)
    axes, ceilings = record["axes"], record["ceilings"]
    size, batch, slices, sentence, shares, roof = panels.flat
    _line(size, axes["image size"], LINE, "measured, all cores")
    sides = [point["x"] for point in record["flops"]]
    floor = [1000 * point["flops"] / ceilings["flops"] for point in record["flops"]]
    size.plot(sides, floor, "--", color=FLOOR, label="operations at the peak of one core")
    cores = record["cores"]
    size.plot(sides, [ms / cores for ms in floor], ":", color=FLOOR, label=f"at the peak of {cores} cores")
    _label(size, "side of the image, pixels", "ms per slice")
    side = f"{record['image_size']}x{record['image_size']}"
    _line(batch, axes["batch"], LINE, "one call")
    _label(batch, f"slices in one call, {side}", "ms per slice")
    _line(slices, axes["slices"], LINE, "one sentence and a series")
    _label(slices, f"slices of a series, {side}, one new sentence", "ms per slice")
    by_engine = axes["sentence, tokens of the engine"]
    longest = max(point["x"] for point in by_engine)
    _line(sentence, by_engine, LINE, "engine built for that many")
    _line(sentence, axes["sentence, tokens of it"], SECOND, f"sentence of that many, engine for {longest}")
    _label(sentence, f"tokens; text encoder of {record['text']['sentences']}", "ms per new sentence")
    _shares(shares, _profiled(record))
    _roofline(roof, record["operators"], ceilings)
    # Version 0.1 had one backend.
    backend = f", {record['backend']} {record['precision']}" if "backend" in record else ""
    if "operators_openvino" in record:
        roof.set_title("the same network in ONNX Runtime, fp32", fontsize=9)
    figure.suptitle(
        f"{record['weights']}{backend}: how cost grows, and how the time of one slice is spent", fontsize=11
    )
    return figure


def _profiled(record: Record) -> list[dict[str, Any]]:
    """Return the operators of the backend that was measured, the longest ones."""
    if "operators_openvino" not in record:
        return list(record["operators"])
    rows = record["operators_openvino"]
    named = [{"kind": f"{row['kind']}, {row['precision']}", "ms": row["ms"]} for row in rows]
    rest = {"kind": "all others", "ms": sum(row["ms"] for row in named[BARS:])}
    return [*named[:BARS], *([rest] if named[BARS:] else [])]


def _line(axes: Any, points: list[dict[str, Any]], color: str, label: str) -> None:
    axes.plot([p["x"] for p in points], [p["p50"] for p in points], "-o", color=color, markersize=4, label=label)
    for point in points:
        axes.plot(np.full(point["count"], point["x"]), point["samples"], "_", color=color, alpha=0.5)


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.set_xticks(sorted({value for line in axes.lines[:1] for value in line.get_xdata()}))
    axes.legend(fontsize=8)
    style.open_frame(axes)


def _shares(axes: Any, operators: list[dict[str, Any]]) -> None:
    total = sum(row["ms"] for row in operators)
    for y, row in enumerate(reversed(operators)):
        axes.barh(y, row["ms"], color=LINE, alpha=0.85)
        axes.text(row["ms"], y, f" {row['ms']:.1f} ms, {row['ms'] / total:.0%}", va="center", fontsize=8)
    axes.set_yticks(range(len(operators)), [row["kind"] for row in reversed(operators)], fontsize=8)
    axes.set_xlim(0, 1.35 * max(row["ms"] for row in operators))
    axes.set_xlabel(f"ms of one slice on one thread ({total:.0f} ms in all)")
    style.open_frame(axes)


def _roofline(axes: Any, operators: list[dict[str, Any]], ceilings: dict[str, float]) -> None:
    counted = [row for row in operators if row["flops"]]
    intensity = [row["flops"] / row["bytes"] for row in counted]
    x = np.geomspace(min(*intensity, 0.5) / 2, 2 * max(*intensity, 100), 100)
    axes.loglog(x, np.minimum(ceilings["flops"], x * ceilings["bytes"]) / 1e9, color=FLOOR, label="roof, one thread")
    for row, value in zip(counted, intensity, strict=True):
        speed = row["flops"] / row["ms"] / 1e6
        axes.loglog(value, speed, "o", color=LINE)
        axes.annotate(
            f" {row['kind']} ",
            (value, speed),
            fontsize=8,
            va="bottom" if row["kind"].startswith("dense") else "top",
            ha="right" if value > 10 else "left",
        )
    axes.set_xlabel("operations per byte of inputs and outputs")
    axes.set_ylabel("1e9 operations per second")
    axes.legend(fontsize=8, loc="lower right")
    style.open_frame(axes)
