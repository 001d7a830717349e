"""Pictures of a calibration and of an accuracy gate, as PNG bytes."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from lsms_rt.bench.style import BAD, GOOD, GUIDE, PREDICTED, REFERENCE, TRUTH, new_figure, png
from lsms_rt.datasets.phantom.sheet import WINDOW
from lsms_rt.datasets.questions import Answer
from lsms_rt.errors import brief

from .statistics import SMALL_MM, area_pairs

if TYPE_CHECKING:
    from .gate import GateCase
    from .search import Trial
    from .sensitivity import Effect, Unit

# Pairs of units to label: the noisiest, and the largest.
MAX_LABELS = 14
# Smaller values are drawn here, because the axis is logarithmic.
MIN_NOISE = 1e-12


def layers_picture(units: list[Unit], effects: dict[str, Effect], selected: set[str], trials: list[Trial]) -> bytes:
    """Draw all units by gain (share of multiply-accumulates) and noise, and all trials by share and Dice.

    Args:
        units: all units.
        effects: unit key -> its effect.
        selected: keys of the units that are INT8.
        trials: the trials of the search.
    """
    figure = new_figure(13, 5.2)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    total = sum(unit.macs for unit in units)
    for is_int8, color, marker, label in ((True, GOOD, "o", "INT8"), (False, BAD, "X", "stays in floating point")):
        these = [unit for unit in units if (unit.key in selected) == is_int8]
        if these:
            left.scatter(
                [unit.macs / total for unit in these], [max(effects[unit.key].noise, MIN_NOISE) for unit in these],
                c=color, marker=marker, s=34, alpha=0.75, label=f"{label} ({len(these)})",
            )  # fmt: skip
    for unit in _labeled(units, effects, total):
        where = (unit.macs / total, max(effects[unit.key].noise, MIN_NOISE))
        left.annotate(
            _short(unit), where, xytext=(6, 0), textcoords="offset points", fontsize=7, va="center", color="0.2"
        )
    left.set(
        xscale="log", yscale="log", xlabel="gain: share of the layers' multiply-accumulates",
        ylabel="loss: mean square of the logits' change,\nhighest 2 % of the logits",
        title="every unit alone in INT8", xlim=(None, 1),
    )  # fmt: skip
    left.legend(loc="lower right", fontsize=8)
    for passed, color, marker in ((True, GOOD, "o"), (False, BAD, "X")):
        tried = [trial for trial in trials if (not trial.failures) == passed and trial.comparison.dice is not None]
        right.scatter(
            [100 * trial.share for trial in tried],
            [100 * trial.comparison.dice.drop for trial in tried if trial.comparison.dice],
            c=color, marker=marker, label="within the budget" if passed else "exceeds the budget",
        )  # fmt: skip
    right.axhline(0, color=GUIDE, linewidth=0.8)
    right.set(
        xlabel="% of all dense multiply-accumulates in INT8", ylabel="loss of mean Dice, points",
        title="trials on held-out slices", xlim=(0, 100),
    )  # fmt: skip
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.25)
    return png(figure)


def agreement_picture(answers: list[tuple[Answer, Answer]]) -> bytes:
    """Draw a Bland-Altman plot of the predicted areas, and Dice of the engine over Dice of the reference."""
    figure = new_figure(11, 4.6)
    left, right = figure.subplots(1, 2)
    areas = np.array(area_pairs(answers), float).reshape(-1, 2)
    if len(areas) > 1:
        mean, difference = areas.mean(1), areas[:, 1] - areas[:, 0]
        bias, spread = difference.mean(), 1.96 * difference.std(ddof=1)
        left.scatter(mean, difference, s=14, alpha=0.6, color=GOOD)
        for value, style, text in (
            (bias, "-", f"bias {bias:+.1f}"), (bias + spread, "--", f"{bias + spread:+.0f}"),
            (bias - spread, "--", f"{bias - spread:+.0f}"),
        ):  # fmt: skip
            left.axhline(value, linestyle=style, color="0.3", linewidth=1)
            left.annotate(text, (1, value), xycoords=("axes fraction", "data"), fontsize=8, ha="right", va="bottom")
    left.set(
        title="predicted area (Bland-Altman, dashed: limits of agreement)", xlabel="mean of both, mm²",
        ylabel="engine minus reference, mm²",
    )  # fmt: skip
    for small, color in ((False, GOOD), (True, BAD)):
        these = [
            (a.dice, b.dice)
            for a, b in answers
            if a.target_nonempty and (a.diameter_mm is not None and a.diameter_mm < SMALL_MM) == small
        ]
        points = np.array(these, float).reshape(-1, 2)
        label = f"lesions {'below' if small else 'of at least'} {SMALL_MM:.0f} mm"
        right.scatter(points[:, 0], points[:, 1], s=14, alpha=0.6, color=color, label=label)
    right.plot((0, 1), (0, 1), color=GUIDE, linewidth=0.8)
    right.set(title="Dice with the true mask", xlabel="reference", ylabel="engine", aspect="equal")
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.25)
    return png(figure)


def worst_picture(cases: list[GateCase], names: bool) -> bytes:
    """Draw the answers that lost most Dice: true mask green, reference blue, engine red.

    Args:
        cases: the answers.
        names: whether to write case ids and sentences above the pictures, or the lines of the data set's table.
    """
    columns = 3
    rows = -(-len(cases) // columns)
    figure = new_figure(4.2 * columns, 4.7 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.axis("off")
    for axis, case in zip(axes, cases, strict=False):
        ct = case.question.ct
        outlines = [
            (ct.to_model_frame(mask, ct.flips, ct.transposed), color)
            for mask, color in (
                (case.question.truth, TRUTH), (case.reference_mask, REFERENCE), (case.engine_mask, PREDICTED),
            )
        ]  # fmt: skip
        axis.imshow(ct.hu, cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1])
        # Ever thinner lines, so that none hides another.
        for (mask, color), width in zip(outlines, (4, 2.2, 0.9), strict=True):
            if mask.any():
                axis.contour(mask, [0.5], colors=color, linewidths=width)
        y, x = np.nonzero(np.logical_or.reduce([mask for mask, _ in outlines]))
        # Zoom in, so that a mask of a few pixels can be seen.
        half = max(np.ptp(y), np.ptp(x)) / 2 + max(ct.hu.shape) / 6
        axis.set(
            xlim=(np.mean((x.min(), x.max())) - half, np.mean((x.min(), x.max())) + half),
            ylim=(np.mean((y.min(), y.max())) + half, np.mean((y.min(), y.max())) - half),
        )
        row = case.question.row
        name = f"{row.case_id} / {row.slice_id}" if names else f"line {row.line}"
        title = f"{brief(name, 60)}: Dice {case.reference.dice:.2f} → {case.engine.dice:.2f}"
        if names:
            title += "\n" + textwrap.fill(brief(row.sentence), 46)
        # A sentence with two dollar signs would be read as mathematics.
        axis.set_title(title, fontsize=8, parse_math=False)
    figure.suptitle("green: true mask, blue: reference, red: engine", fontsize=10)
    return png(figure)


def _labeled(units: list[Unit], effects: dict[str, Effect], total: int) -> list[Unit]:
    """Select noisy and large units in turn, skipping those whose labels would overlap."""
    noisy = sorted(units, key=lambda unit: -effects[unit.key].noise)
    large = sorted(units, key=lambda unit: -unit.macs)
    labeled: dict[tuple[float, float], Unit] = {}
    for unit in (unit for pair in zip(noisy[:MAX_LABELS], large[:MAX_LABELS], strict=True) for unit in pair):
        x, y = np.log10(unit.macs / total), np.log10(max(effects[unit.key].noise, MIN_NOISE))
        if all(abs(x - other[0]) > 0.9 or abs(y - other[1]) > 0.3 for other in labeled):
            labeled[x, y] = unit
    return list(labeled.values())


def _short(unit: Unit) -> str:
    name = (
        unit.name.replace("encoder.stages.", "s")
        .replace(".blocks.", ".b")
        .replace("attention.", "")
        .replace("svla.", "")
    )
    return name if unit.graph == "image" else f"{unit.graph}: {name.replace('text_encoder.bert.encoder.', '')}"
