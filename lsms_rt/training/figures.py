"""Pictures of a training run: its curves, and what the result does best, middling and worst."""

from __future__ import annotations

import json
import textwrap
from itertools import pairwise
from pathlib import Path

import numpy as np

from lsms_rt.datasets.questions import Answer
from lsms_rt.reading.load import load_slice
from lsms_rt.segmenter import Segmenter


def draw_curves(log: Path, path: Path) -> None:
    """Losses and validation figures over the updates, from a run's ``log.jsonl``."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in log.read_text().splitlines()]
    # A resumed run repeats the updates since its checkpoint: the later row counts.
    steps = list({row["update"]: row for row in rows if "dice" in row}.values())
    checks = list({row["update"]: row for row in rows if "validation" in row}.values())
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in ("dice", "bce", "contrast", "class"):
        left.plot([row["update"] for row in steps], _smooth([row[name] for row in steps]), label=name)
    left.set(title="training losses (weighted, smoothed)", xlabel="update", yscale="log")
    for row, following in pairwise(steps):
        if row["size"] != following["size"]:
            left.axvline(following["update"], color="grey", linewidth=0.8, linestyle=":")
    left.legend()
    right.plot([row["update"] for row in checks], [row["validation"]["dice"] for row in checks], "o-", label="Dice")
    right.plot(
        [row["update"] for row in checks], [row["validation"]["silent"] for row in checks], "s-", label="silence"
    )
    right.set(title="validation, averaged weights, 256x256", xlabel="update", ylim=(0, 1))
    right.legend(loc="lower right")
    figure.savefig(path, dpi=100)


def draw_answers(segmenter: Segmenter, answers: list[Answer], path: Path) -> None:
    """Best, median and worst answers to true sentences: green true mask, red answer."""
    from matplotlib.figure import Figure

    ranked = sorted((a for a in answers if a.target_nonempty), key=lambda answer: answer.dice)
    middle = len(ranked) // 2
    picked = [("worst", ranked[:4]), ("median", ranked[middle - 2 : middle + 2]), ("best", ranked[-4:])]
    figure = Figure(figsize=(13, 11), layout="constrained")
    axes = figure.subplots(3, 4)
    for row, (title, group) in zip(axes, picked, strict=True):
        for axis, answer in zip(row, group, strict=True):
            ct = load_slice(answer.row.image)
            axis.imshow(ct.hu, cmap="gray", vmin=-110, vmax=190)
            axis.contour(answer.row.read_mask(), [0.5], colors="lime", linewidths=0.9)
            axis.contour(segmenter.predict(ct, answer.row.sentence).mask, [0.5], colors="red", linewidths=0.9)
            axis.set_title(f"{title} {answer.dice:.2f}\n{textwrap.fill(answer.row.sentence, 44)}", fontsize=8)
            axis.axis("off")
    figure.suptitle("RefHL-Phantom, held-out cases: true mask green, answer red")
    figure.savefig(path, dpi=80)


def _smooth(values: list[float], width: int = 9) -> np.ndarray:
    kernel = np.ones(width) / width
    return np.convolve(np.pad(values, width // 2, mode="edge"), kernel, mode="valid")
