"""The report of an accuracy gate: one self-contained HTML file, to be read, printed and filed."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from .gate import GateData, GateResult
from .pictures import agreement_picture, worst_picture
from .policy import allowed_false_positives
from .statistics import SMALL_MM, Dice, new_false_positives

NUMBER = re.compile(r"[+-]?[\d.]+( |%|$)")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { border: 1px solid #ccc; padding: .3rem .7rem; text-align: left; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
img { max-width: 100% }
h2 { margin-top: 2rem }
.verdict { padding: .8rem 1rem; border-left: .5rem solid; background: #f6f6f6 }
.yes { border-color: #2a7 } .no { border-color: #c33 } .open { border-color: #d90 }
@media print { h2 { break-after: avoid } }
"""


def gate_report(
    engine: Mapping[str, Any], data: GateData, result: GateResult, max_dice_drop: float, accepted: bool
) -> str:
    """Write the report of a gate.

    Args:
        engine: name -> text for the first table; must have "precision".
        data: the rows that were asked.
        result: the verdict.
        max_dice_drop: the budget.
        accepted: True if the engine is written although it did not pass.

    Returns:
        the HTML page.
    """
    comparison = result.comparison
    parts = [
        f"<h1>Accuracy gate of an LSMS engine: {escape(str(engine['precision']))}</h1>",
        "<p>Research software, not a medical device. This report holds image data of the data set named below.</p>",
        _verdict(result, accepted),
        _table([("property", "value")], [(name, str(value)) for name, value in engine.items()]),
        "<h2>Data</h2>",
        f"<p>{escape(data.description)}: {comparison.sentences} sentences of {comparison.cases} cases. None of their "
        f"slices was used for calibration. SHA-256 of the rows:  <code>{data.digest[:16]}</code>.</p>",
        "<h2>Figures</h2>",
        _figures(result, max_dice_drop),
        "<h2>Agreement with the reference</h2>",
        _picture(agreement_picture(result.answers)),
        _agreement(result),
        "<h2>Answers that lost most Dice</h2>",
        _picture(worst_picture(result.worst)) if result.worst else "<p>No answer lost any Dice.</p>",
        _false_positives(result),
        f"<p>Written {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC. "
        "Reviewed by: ______________________ &nbsp; Date: ______________</p>",
    ]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>Accuracy gate</title><style>{STYLE}</style>"
    return head + "\n".join(parts) + "</html>\n"


def _verdict(result: GateResult, accepted: bool) -> str:
    open_points = [f"Not checked: {point}." for point in result.unchecked]
    if result.passed:
        kind = "open" if open_points else "yes"
        return f"<div class='verdict {kind}'><b>Passed.</b>{_list(open_points)}</div>"
    kind, word = ("no", "Rejected") if result.failures else ("open", "Not judged")
    more = " The engine was written anyway, because of <code>--accept</code>." if accepted else ""
    points = [*result.failures, *filter(None, [result.unjudged]), *open_points]
    return f"<div class='verdict {kind}'><b>{word}.</b>{more}{_list(points)}</div>"


def _list(points: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(point)}</li>" for point in points) + "</ul>" if points else ""


def _figures(result: GateResult, max_dice_drop: float) -> str:
    comparison = result.comparison
    rows: list[tuple[str, ...]] = []
    for name, dice, max_drop in (
        ("mean Dice", comparison.dice, max_dice_drop),
        (f"mean Dice, lesions below {SMALL_MM:.0f} mm", comparison.small, 2 * max_dice_drop),
    ):
        rows.append(_dice_row(name, dice, max_drop))
    if comparison.dice_drop_interval:
        low, high = comparison.dice_drop_interval
        rows.append(
            ("loss of mean Dice, 95 % interval (bootstrap over cases)", "", "", f"{low:+.4f} to {high:+.4f}", "")
        )
    empty = comparison.emptiness
    if empty is None:
        rows.append(("negative sentences", "none in the data", "", "", ""))
    else:
        rows.append(
            (
                f"negative sentences with an empty mask, of {empty.n}", f"{empty.reference}", f"{empty.engine}",
                f"{empty.new_false_positives} new false positives, {empty.newly_empty} newly empty",
                f"{allowed_false_positives(empty.reference, max_dice_drop)} new false positives",
            )
        )  # fmt: skip
    if comparison.missed_reference is not None and comparison.missed_engine is not None:
        missed = (comparison.missed_reference, comparison.missed_engine)
        rows.append(("missed: positive sentences with an empty mask", f"{missed[0]:.1%}", f"{missed[1]:.1%}", "", ""))
    return _table([("figure", "reference", "engine", "change", "allowed")], rows)


def _dice_row(name: str, dice: Dice | None, max_drop: float) -> tuple[str, ...]:
    if dice is None:
        return (name, "none of known size", "", "", "")
    return (
        f"{name}, {dice.n} sentences",
        f"{dice.reference:.4f}",
        f"{dice.engine:.4f}",
        f"{-dice.drop:+.4f}",
        f"{-max_drop:+.4f}",
    )


def _agreement(result: GateResult) -> str:
    area = result.comparison.area
    if area is None:
        return "<p>Areas are not compared: the pixel spacing is unknown, or too few predicted masks are not empty.</p>"
    return (
        f"<p>Predicted area, engine minus reference, {area.n} sentences: mean difference {area.bias:+.1f} mm², "
        f"limits of agreement {area.low:+.1f} to {area.high:+.1f} mm².</p>"
    )


def _false_positives(result: GateResult) -> str:
    pairs = new_false_positives(result.answers)
    if not pairs:
        return "<p>There are no new false positives.</p>"
    rows = [(b.row.case_id, b.row.slice_id, b.row.sentence, str(b.pixels)) for _, b in pairs]
    return "<h2>New false positives: only the engine predicts a mask</h2>" + _table(
        [("case", "slice", "sentence", "pixels")], rows
    )


def _table(heads: list[tuple[str, ...]], rows: Sequence[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        numbers = [" class=n" if tag == "td" and NUMBER.match(cell) else "" for cell in cells]
        return "<tr>" + "".join(f"<{tag}{n}>{escape(c)}</{tag}>" for c, n in zip(cells, numbers, strict=True)) + "</tr>"

    return "<table>" + "".join(line(h, "th") for h in heads) + "".join(line(row, "td") for row in rows) + "</table>"


def _picture(png: bytes) -> str:
    return f"<img src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
