"""How cost grows, and where the time goes, as one picture."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from .records import Record

LINE, SECOND, FLOOR = "#c0392b", "#2c3e50", "#7f8c8d"


def draw_scaling(record: Record) -> Any:
    """A figure of six panels."""
    figure, panels = plt.subplots(2, 3, figsize=(14, 7.6), layout="constrained")
    axes, ceilings = record["axes"], record["ceilings"]
    size, batch, slices, sentence, shares, roof = panels.flat
    _line(size, axes["image size"], LINE, "measured, all cores")
    sides = [point["x"] for point in record["flops"]]
    floor = [1000 * point["flops"] / ceilings["flops"] for point in record["flops"]]
    size.plot(sides, floor, "--", color=FLOOR, label="its operations at one core's peak")
    cores = record["cores"]
    size.plot(sides, [ms / cores for ms in floor], ":", color=FLOOR, label=f"the same over {cores} cores")
    _words(size, "side of the image, pixels", "ms a slice")
    side = f"{record['image_size']}x{record['image_size']}"
    _line(batch, axes["batch"], LINE, "one call")
    _words(batch, f"slices in one call, {side}", "ms a slice")
    _line(slices, axes["slices"], LINE, "a sentence and a series")
    _words(slices, f"slices of a series, {side}, one new sentence", "ms a slice")
    made = axes["sentence, tokens of the engine"]
    most = max(point["x"] for point in made)
    _line(sentence, made, LINE, "engine made for that many")
    _line(sentence, axes["sentence, tokens of it"], SECOND, f"sentence of that many, engine for {most}")
    _words(sentence, f"tokens; text encoder of {record['text']['sentences']}", "ms a new sentence")
    _shares(shares, record["operators"])
    _roofline(roof, record["operators"], ceilings)
    figure.suptitle(f"{record['weights']}: how cost grows, and where one slice's time goes", fontsize=11)
    return figure


def _line(axes: Any, points: list[dict[str, Any]], color: str, label: str) -> None:
    axes.plot([p["x"] for p in points], [p["p50"] for p in points], "-o", color=color, markersize=4, label=label)
    for point in points:
        axes.plot(np.full(point["count"], point["x"]), point["samples"], "_", color=color, alpha=0.5)


def _words(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(bottom=0)
    axes.set_xticks(sorted({value for line in axes.lines[:1] for value in line.get_xdata()}))
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _shares(axes: Any, operators: list[dict[str, Any]]) -> None:
    total = sum(row["ms"] for row in operators)
    for place, row in enumerate(reversed(operators)):
        axes.barh(place, row["ms"], color=LINE, alpha=0.85)
        axes.text(row["ms"], place, f" {row['ms']:.1f} ms, {row['ms'] / total:.0%}", va="center", fontsize=8)
    axes.set_yticks(range(len(operators)), [row["kind"] for row in reversed(operators)], fontsize=8)
    axes.set_xlim(0, 1.35 * max(row["ms"] for row in operators))
    axes.set_xlabel(f"ms of one slice on one thread ({total:.0f} ms in all)")
    axes.spines[["top", "right"]].set_visible(False)


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
    axes.set_xlabel("operations a byte of inputs and outputs")
    axes.set_ylabel("1e9 operations a second")
    axes.legend(fontsize=8, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
