"""Pictures of a training run: its curves, and what the result does best, middling and worst."""

from __future__ import annotations

import json
import textwrap
from itertools import pairwise
from pathlib import Path

from lsms_rt.bench.style import GRAY, PREDICTED, TRUTH, new_figure, save
from lsms_rt.datasets.questions import Answer
from lsms_rt.reading.load import load_slice
from lsms_rt.segmenter import Segmenter


def draw_curves(log: Path, path: Path) -> None:
    """Losses and validation figures against the examples seen, from a run's log."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    # A resumed run repeats the updates since its state was saved: the later row counts.
    steps = list({row["updates"]: row for row in rows if "rate" in row}.values())
    checks = list({row["updates"]: row for row in rows if "validation" in row}.values())
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    for name in ("dice", "bce", "select", "presence", "looks"):
        known = [row for row in steps if name in row]
        if known:
            left.plot([row["examples"] for row in known], [row[name] for row in known], ".-", label=name)
    left.set(title="training losses (weighted, smoothed)", xlabel="examples seen", yscale="log")
    for row, following in pairwise(steps):
        if row["stage"] != following["stage"]:
            left.axvline(following["examples"], color=GRAY, linewidth=0.8, linestyle=":")
    if left.lines:
        left.legend()
    seen = [row["examples"] for row in checks]
    found = [row["validation"] for row in checks]
    at_92 = [one.get("at_0.92", {}) for one in found]
    curves = {
        "Dice, every mask kept": [one["dice_gate_open"] for one in found],
        "Dice at specificity 0.92": [one.get("dice") for one in at_92],
        "missed at specificity 0.92": [one.get("missed") for one in at_92],
        "all lesions, no sentence": [one["dice_all_regions"] for one in found],
    }
    for label, values in curves.items():
        right.plot(seen, values, "o-", label=label)
    right.set(title="validation, averaged weights, whole slices", xlabel="examples seen", ylim=(0, 1))
    right.legend(loc="best", fontsize=8)
    for axes in (left, right):
        # Numbers of six digits would overlap.
        axes.locator_params(axis="x", nbins=5)
    save(figure, path)


def draw_answers(
    segmenter: Segmenter, answers: list[Answer], path: Path, title: str = "RefHL-Phantom, held-out cases"
) -> None:
    """Worst, median and best answers to true sentences, four of each: green true mask, red answer."""
    ranked = sorted((a for a in answers if a.target_nonempty), key=lambda answer: answer.dice)
    middle = max(0, len(ranked) // 2 - 2)
    picked = [("worst", ranked[:4]), ("median", ranked[middle : middle + 4]), ("best", ranked[-4:])]
    figure = new_figure(13, 11)
    for row, (name, group) in zip(figure.subplots(3, 4), picked, strict=True):
        for axis in row:
            axis.axis("off")
        for axis, answer in zip(row, group, strict=False):
            ct = load_slice(answer.row.image)
            axis.imshow(ct.to_input_grid(ct.hu), cmap="gray", vmin=-110, vmax=190)
            outlines = ((answer.row.read_mask(), TRUTH), (segmenter.predict(ct, answer.row.sentence).mask, PREDICTED))
            for mask, color in outlines:
                # An empty or a full mask has no outline, and matplotlib warns.
                if mask.any() and not mask.all():
                    axis.contour(mask, [0.5], colors=color, linewidths=0.9)
            axis.set_title(f"{name} {answer.dice:.2f}\n{textwrap.fill(answer.row.sentence, 44)}", fontsize=8)
    figure.suptitle(f"{title}: true mask green, answer red")
    save(figure, path, dpi=80)
