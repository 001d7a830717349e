"""Records of probes, sentences of which one attribute was replaced, as Markdown tables."""

from __future__ import annotations

from .cells import interval, number
from .probes.figures import WANTED
from .records import Record, rows_of


def probes_table(record: Record) -> str:
    """Return one line per attribute and per what the changed sentence is true of."""
    lines = [
        f"{record['meanings']} true sentences with different meanings on {record['slices']} slices of "
        f"{record['cases']} cases.",
        "",
        "| replaced | now true of | probes (cases), of sentences | as wanted (95 %) | Dice before | Dice now (95 %) | "
        "Dice between | moved | empty | same (95 %) | other |",
        "|---" * 11 + "|",
    ]
    for row in rows_of(record):
        cells = (
            row["attribute"],
            row["true_of"],
            f"{row['probes']} ({row['cases']}), of {row['named']}",
            _with_interval(row[WANTED[row["true_of"]]], row["wanted_interval"]),
            number(row["dice_before"], 2),
            _with_interval(row["dice_new"], row["dice_new_interval"]),
            number(row["dice_between"], 2),
            number(row["moved"], 2),
            number(row["empty"], 2),
            _with_interval(row["same"], row["same_interval"]),
            number(row["other"], 2),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _with_interval(value: float | None, ends: tuple[float, float] | None) -> str:
    return number(value, 2, "") + (f" ({interval(ends, 2)})" if ends else "")
