"""Figures of accuracy as text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsms_rt.bench.accuracy.evaluate import Accuracy

# Resampling fewer cases does not show how far others may lie.
FEW_CASES = 10
# printed in this order: (heading, [(figure, its text)])
FIGURES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "",
        (
            ("cases", "cases"),
            ("slices", "slices"),
            ("sentences", "sentences"),
            ("partly_understood", "sentences that are understood in part"),
            ("not_understood", "sentences that are not understood, but asked anyway"),
            ("unanswered", "other sentences, left out: the engine knows no word of them"),
        ),
    ),
    (
        "true sentences (the slice holds what they mean)",
        (
            ("dice", "mean Dice"),
            ("dice_by_meaning", "mean Dice, wordings of one meaning counted once"),
            ("dice_other", "mean Dice of another lesion than the slice's first sentence means"),
            ("missed", "missed: share with an empty mask"),
            ("hit_rate", "hit rate: share with a Dice of at least 0.1"),
        ),
    ),
    ("false sentences (it does not)", (("silence", "specificity: share with an empty mask"),)),
    (
        "where the mask lies (share of its pixels)",
        (
            ("on_target", "on what is meant"),
            ("on_others", "on other lesions"),
            ("elsewhere", "elsewhere"),
            ("wrong_lesion", "masks more on other lesions than on what is meant"),
            ("told_apart", "pairs of lesions of a slice told apart"),
        ),
    ),
    (
        "two wordings of one meaning",
        (("paraphrase_dice", "mean Dice of their masks"), ("paraphrase_flips", "share with exactly one mask empty")),
    ),
)


# attribute of Accuracy -> (heading, [(figure, its text)])
BEYOND_DICE = {
    "lesions": (
        "lesions: connected pieces, matched one to one from a Dice of 0.2 on",
        (
            ("meant", "meant, of all sentences"),
            ("predicted", "predicted, for all sentences"),
            ("precision", "precision"),
            ("recall", "recall"),
            ("f1", "F1"),
            ("false_positives_per_slice", "false positives per slice and sentence"),
        ),
    ),
    "surface": (
        "outlines of masks that are not empty, true sentences",
        (
            ("measured", "sentences"),
            ("empty", "left out: empty mask"),
            ("without_spacing", "left out: unknown pixel spacing"),
            ("tolerance_mm", "tolerance in mm"),
            ("nsd", "mean normalized surface distance (1 is best)"),
            ("hd95_mm", "mean HD95 in mm"),
            ("hd95_median_mm", "median HD95 in mm"),
        ),
    ),
}


def accuracy_text(accuracy: Accuracy, lines: dict[str, dict[str, float | None]]) -> str:
    """Return all figures and tables, and the reference lines of the data set."""
    return "\n".join([*_figures(accuracy), *_lines(lines), *_tables(accuracy)])


def _figures(accuracy: Accuracy) -> list[str]:
    values = accuracy.to_dict()
    text = []
    for heading, figures in FIGURES:
        text += [heading] if heading else []
        for name, what in figures:
            text.append(f"  {what:72} {_number(values[name])}{_interval(accuracy.intervals.get(name))}")
    for part, (heading, figures) in BEYOND_DICE.items():
        found = values[part]
        text += [heading] if found else []
        text += [
            f"  {what:72} {_number(found[name])}{_interval(found['intervals'].get(name))}"
            for name, what in (figures if found else ())
        ]
    text += [f"not measured: {accuracy.left_out}"] if accuracy.left_out else []
    if 1 < accuracy.cases < FEW_CASES:
        text.append(f"the intervals, which resample cases, are too narrow: {accuracy.cases} cases are few")
    if accuracy.dice_by_diameter_mm:
        text.append("mean Dice by diameter")
        text += [f"  {f'{bin_} mm':72} {_number(dice)}" for bin_, dice in accuracy.dice_by_diameter_mm.items()]
    if accuracy.presence is not None:
        presence = accuracy.presence
        text.append("the score as a classifier of true and false sentences")
        text.append(f"  {'area under the ROC curve':72} {_number(presence.auroc)}")
        for share, dice in presence.dice_at_silence.items():
            missed = presence.missed_at_silence[share]
            text.append(f"  {f'mean Dice at specificity {share} (missed: {missed:.3f})':72} {_number(dice)}")
        text.append(f"  {'calibration error':72} {_number(presence.calibration_error)}")
    return text


def _lines(lines: dict[str, dict[str, float | None]]) -> list[str]:
    text = ["reference: perfect outlines, of these words only (mean Dice, specificity)"]
    return text + [f"  {name:72} {_number(line['dice'])}  {_number(line['silence'])}" for name, line in lines.items()]


def _tables(accuracy: Accuracy) -> list[str]:
    text = []
    for name, table in accuracy.tables.items():
        heads = ("true", "Dice", "missed", "Dice where not empty", "false", "specificity")
        text.append(f"{f'by {name}':32}" + "".join(f"{head:>{max(8, len(head) + 2)}}" for head in heads))
        for key, row in table.items():
            values = (row.true, row.dice, row.missed, row.dice_where_painted, row.false, row.silence)
            cells = (f"{_number(v):>{max(8, len(head) + 2)}}" for head, v in zip(heads, values, strict=True))
            text.append(f"  {key:30}" + "".join(cells))
    return text


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"  (95 %: {interval[0]:.3f} to {interval[1]:.3f})"
