"""Figures of probes, sentences of which one attribute was replaced, as text for the terminal."""

from __future__ import annotations

from typing import Any

# figure -> its text
COUNTS = {
    "cases": "cases",
    "slices": "slices",
    "sentences": "sentences",
    "meanings": "true meanings, each probed in its first wording",
    "without_meaning": "sentences without a recorded meaning, not probed",
    "unanswered": "sentences and probes left out: the engine knows no word of them",
}
# figure of a row -> its column
COLUMNS = {
    "attribute": "replaced", "true_of": "now true of", "named": "named", "not_found": "not found",
    "without_mask": "no mask", "probes": "probes", "cases": "cases", "dice_before": "Dice before",
    "dice_new": "Dice now", "dice_between": "between", "moved": "moved", "empty": "empty", "same": "same",
    "other": "other", "wanted_interval": "wanted, 95 %", "same_interval": "same, 95 %",
}  # fmt: skip
MEANINGS = (
    "named: sentences that name the attribute; not found: for which no other value is known to be true of that;",
    "no mask: whose mask is empty before a word is replaced; probes: the others, which the figures are of",
    "Dice before: with what the sentence means; now: with what the changed one means; between: of both masks",
    "moved: to what is meant now; empty: no mask now; same: Dice between of at least 0.9, the word is ignored",
    "wanted, 95 %: interval of the share that a model reaches that obeys every word: moved to another lesion, or empty",
)


def probes_text(figures: dict[str, Any]) -> str:
    """Return what :func:`~lsms_rt.bench.probes.figures.probe_figures` found, and what the columns mean."""
    lines = [list(COLUMNS.values()), *([_cell(row[name]) for name in COLUMNS] for row in figures["rows"])]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    counts = [f"  {what:72} {figures[name]}" for name, what in COUNTS.items()]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*counts, "one attribute replaced, all other words kept", *table, *MEANINGS])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return f"{value[0]:.2f} to {value[1]:.2f}"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
