"""Records of accuracy as Markdown tables."""

from __future__ import annotations

from typing import Any

from .cells import interval, number
from .records import Record


def accuracy_table(record: Record) -> str:
    """Return one line per figure of accuracy, then the tables by kind of sentence and named type, where recorded."""
    figures = record["accuracy"]
    names = {
        "dice": "mean Dice, true sentences",
        "dice_other": "mean Dice where another lesion of the same slice is named",
        "silence": "specificity: false sentences with an empty mask",
        "missed": "missed: true sentences with an empty mask",
        "hit_rate": "hit rate: true sentences with a Dice of at least 0.1",
        "paraphrase_dice": "mean Dice between the masks of two wordings of one meaning",
        "on_target": "share of a mask on what is meant",
        "on_others": "share of a mask on other lesions",
        "told_apart": "pairs of lesions of a slice told apart",
    }
    intervals = figures.get("intervals", {})
    lines = [f"{figures['sentences']} sentences on {figures['slices']} slices of {figures['cases']} cases.", ""]
    lines += ["| figure | | 95 % interval |", "|---|---|---|"]
    lines += [
        f"| {words} | {number(figures[name], 3)} | {interval(intervals.get(name))} |"
        for name, words in names.items()
        if name in figures
    ]
    by_diameter = figures["dice_by_diameter_mm"] or {}
    lines += [f"| mean Dice, lesions of {mm} mm | {value:.3f} | |" for mm, value in by_diameter.items()]
    lines += _beyond_dice(figures)
    if figures.get("presence"):
        presence = figures["presence"]
        lines.append(f"| area under the ROC curve of the score | {presence['auroc']:.3f} | |")
        for share, dice in presence["dice_at_silence"].items():
            lines.append(f"| mean Dice at specificity {share} | {dice:.3f} | |")
    if "reference_lines" in record:
        lines += ["", "| perfect outlines, of these words only | mean Dice | specificity |", "|---|---|---|"]
        for name, line in record["reference_lines"].items():
            lines.append(f"| {name} | {number(line['dice'], 3)} | {number(line['silence'], 3)} |")
    for name, table in figures.get("tables", {}).items():
        lines += ["", f"| by {name} | true | mean Dice | missed | false | specificity |", "|---|---|---|---|---|---|"]
        for key, row in table.items():
            cells = (row["true"], *(number(row[k], 2) for k in ("dice", "missed")), row["false"])
            lines.append(f"| {key} | " + " | ".join(map(str, cells)) + f" | {number(row['silence'], 2)} |")
    return "\n".join(lines)


def _beyond_dice(figures: dict[str, Any]) -> list[str]:
    """Return the lines of what records of version 0.1 do not have: figures per lesion, distances of outlines."""
    rows: list[tuple[str, float | None, tuple[float, float] | None]] = []
    if lesions := figures.get("lesions"):
        names = {
            "precision": f"precision per lesion, of {lesions['predicted']} predicted ones",
            "recall": f"recall per lesion, of {lesions['meant']} that are meant",
            "f1": "F1 per lesion",
            "false_positives_per_slice": "false positives per slice and sentence",
        }
        rows += [(words, lesions[name], lesions["intervals"][name]) for name, words in names.items()]
    if surface := figures.get("surface"):
        masks = f"{surface['measured']} masks that are not empty"
        words = f"normalized surface distance within {surface['tolerance_mm']:g} mm, {masks}"
        rows.append((words, surface["nsd"], surface["intervals"]["nsd"]))
        rows.append(("HD95 of the same, mm", surface["hd95_mm"], surface["intervals"]["hd95_mm"]))
        rows.append(("median HD95, mm", surface["hd95_median_mm"], None))
    return [f"| {words} | {number(value, 3)} | {interval(ends)} |" for words, value, ends in rows]
