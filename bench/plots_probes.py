"""Probes as a picture: what the mask does when one attribute of a sentence is replaced."""

from __future__ import annotations

from typing import Any

from . import style
from .probes.figures import LEAST_CASES, WANTED
from .records import Record, rows_of

VERDICTS = ("moved", "empty", "other", "same")
GRAYS = {"moved": "0.55", "empty": "0.55", "other": "0.82", "same": style.BAD}


def draw_probes(record: Record) -> Any:
    """Return the figure: one bar per attribute, its parts the shares of what the mask does."""
    rows = rows_of(record)
    attributes = list(dict.fromkeys(row["attribute"] for row in rows))
    figure = style.new_figure(10, 0.5 * len(attributes) + 2.1)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (true_of, wanted) in zip(panels, WANTED.items(), strict=True):
        found = {row["attribute"]: row for row in rows if row["true_of"] == true_of}
        for y, attribute in enumerate(attributes):
            _bar(axes, y, found[attribute], wanted)
        axes.set_title(f"one word changed: now true of {true_of}", fontsize=10)
        axes.set_xlabel("share of the probes")
        axes.set_xlim(0, 1.28)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        style.open_frame(axes)
    panels[0].set_yticks(range(len(attributes)), attributes)
    panels[0].invert_yaxis()
    _legend(figure)
    return figure


def _bar(axes: Any, y: int, row: dict[str, Any], wanted: str) -> None:
    """Draw a bar; of few cases a pale one, as its shares say little."""
    probes, start = row["probes"], 0.0
    if not probes:
        axes.text(0.01, y, "no probes", va="center", fontsize=8, color=style.GRAY)
        return
    alpha = 0.9 if row["cases"] >= LEAST_CASES else 0.35
    for verdict in (wanted, *(name for name in VERDICTS if name != wanted)):
        color = style.GOOD if verdict == wanted else GRAYS[verdict]
        axes.barh(y, row[verdict], left=start, color=color, height=0.62, alpha=alpha)
        start += row[verdict]
    if row["wanted_interval"]:
        low, high = row["wanted_interval"]
        axes.plot([low, high], [y, y], "-", color=style.DOT, linewidth=1.2)
        axes.plot([low, high], [y, y], "|", color=style.DOT, markersize=7)
    axes.text(1.02, y, f"{probes} ({row['cases']} cases)", va="center", fontsize=8)


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Patch(color=style.GOOD, label="as wanted: follows to the other lesion (left), becomes empty (right)"),
        Patch(color=GRAYS["empty"], label="becomes empty (left)"),
        Patch(color=GRAYS["other"], label="changes otherwise"),
        Patch(color=GRAYS["same"], label="stays the same: the word is ignored"),
        Line2D([], [], color=style.DOT, marker="|", label="95 % of the wanted share; pale: too few cases"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
