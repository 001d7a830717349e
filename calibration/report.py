"""The report of an accuracy gate: one self-contained HTML file, to be read, printed and filed."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from html import escape
from typing import Any

from lsms_rt.datasets.matching import MATCH_DICE

from .gate import GateData, GateResult
from .lesions import LesionsCompared
from .pictures import agreement_picture, worst_picture
from .policy import FALSE_POSITIVES, MIN_SMALL, MIN_SMALL_MISSED, MISSED, SMALL_MISSED, allowed
from .statistics import FOUND_DICE, SMALL_MM, FoundLesions, Pairs, new_false_positives, newly_missed

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
        "<p>Research software, not a medical device. This report holds image data of the data set named below; "
        f"{'it names its cases' if data.names_shown else 'its rows are named by their lines in the table'}.</p>",
        _verdict(result, accepted),
        _table([("property", "value")], [(name, str(value)) for name, value in engine.items()]),
        "<h2>Data</h2>",
        f"<p>{escape(data.description)}: {comparison.sentences} sentences of {comparison.cases} cases, "
        f"{comparison.positive_cases} of them with positive sentences. None of their slices was used for calibration. "
        f"SHA-256 of the rows: <code>{data.digest[:16]}</code>.</p>",
        "<h2>Figures</h2>",
        _figures(result, max_dice_drop),
        "<h2>Agreement with the reference</h2>",
        _picture(agreement_picture(result.answers)),
        _agreement(result),
        "<h2>Answers that lost most Dice</h2>",
        _picture(worst_picture(result.worst, data.names_shown)) if result.worst else "<p>No answer lost any Dice.</p>",
        _rows(
            "Sentences for which lesions are newly missed: an empty mask, or Dice less than half the reference's",
            newly_missed(result.answers),
            data.names_shown,
        ),
        _rows(
            "New false positives: only the engine predicts a mask",
            new_false_positives(result.answers),
            data.names_shown,
        ),
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
    small = f"lesions below {SMALL_MM:.0f} mm"
    for name, dice in (("mean Dice", comparison.dice), (f"mean Dice, {small}", comparison.small)):
        if dice is None:
            rows.append((name, "none of known size", "", "", ""))
        else:
            figures = (f"{dice.reference:.4f}", f"{dice.engine:.4f}", f"{-dice.drop:+.4f}", "")
            rows.append((f"{name}, {dice.n} sentences", *figures))
    if comparison.dice_drop_interval:
        low, high = comparison.dice_drop_interval
        name = "loss of mean Dice, 95 % interval (bootstrap over cases)"
        rows.append((name, "", "", f"{low:+.4f} to {high:+.4f}", f"{max_dice_drop:+.4f} at its end"))
    for name, lesions, times in (
        ("lesions", comparison.found, MISSED), (small, comparison.small_found, SMALL_MISSED)
    ):  # fmt: skip
        rows.append(_lesions_row(name, lesions, allowed(times, max_dice_drop)))
    empty = comparison.emptiness
    if empty is None:
        rows.append(("negative sentences", "none in the data", "", "", ""))
    else:
        new = f"{empty.new_false_positives} new false positives (at most {empty.bound:.1%})"
        rows.append(
            (
                f"negative sentences with an empty mask, of {empty.n}", f"{empty.reference}", f"{empty.engine}",
                f"{new}, {empty.newly_empty} newly empty",
                f"{allowed(FALSE_POSITIVES, max_dice_drop):.1%} new false positives",
            )
        )  # fmt: skip
    if comparison.missed_reference is not None and comparison.missed_engine is not None:
        missed = (comparison.missed_reference, comparison.missed_engine)
        rows.append(("missed: positive sentences with an empty mask", f"{missed[0]:.1%}", f"{missed[1]:.1%}", "", ""))
    rows += _per_lesion(result.lesions)
    note = (
        "<p>A loss is allowed only if the data exclude a greater one: the end of the interval, or the one-sided 95 % "
        f"upper bound (Clopper-Pearson), is judged; of fewer than {MIN_SMALL} small lesions, the share that is newly "
        f"missed, from {MIN_SMALL_MISSED} on. A lesion is one true mask in one image, however many sentences ask for "
        "it; every negative sentence counts. p is of McNemar's exact test. What stands per lesion is reported and not "
        f"judged: connected pieces of the masks of all sentences, matched one to one from a Dice of {MATCH_DICE} on."
        "</p>"
    )
    return _table([("figure", "reference", "engine", "change", "allowed")], rows) + note


def _per_lesion(lesions: LesionsCompared) -> list[tuple[str, ...]]:
    names = {
        "hit_rate": f"hit rate: positive sentences with a Dice of at least {FOUND_DICE}",
        "precision": "precision per lesion",
        "recall": "recall per lesion",
        "f1": "F1 per lesion",
    }
    rows: list[tuple[str, ...]] = []
    for name, words in names.items():
        a, b = getattr(lesions.reference, name), getattr(lesions.engine, name)
        known = a is not None and b is not None
        rows.append((words, *((f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}") if known else ("none", "none", "")), ""))
    false = lesions.reference.false, lesions.engine.false
    return [*rows, ("predicted lesions that match none", f"{false[0]}", f"{false[1]}", f"{false[1] - false[0]:+d}", "")]


def _lesions_row(name: str, lesions: FoundLesions, share: float) -> tuple[str, ...]:
    if not lesions.n:
        return (f"{name} that are found", "0", "", "", "")
    return (
        f"{name} that are found",
        f"{lesions.n}",
        "",
        f"{lesions.newly_missed} newly missed (at most {lesions.bound:.1%}), {lesions.newly_found} newly found; "
        f"p = {lesions.p:.2g}",
        f"{share:.1%} newly missed",
    )


def _agreement(result: GateResult) -> str:
    area = result.comparison.area
    if area is None:
        return "<p>Areas are not compared: the pixel spacing is unknown, or too few predicted masks are not empty.</p>"
    return (
        f"<p>Predicted area, engine minus reference, {area.n} sentences: mean difference {area.bias:+.1f} mm², "
        f"limits of agreement {area.low:+.1f} to {area.high:+.1f} mm².</p>"
    )


def _rows(title: str, pairs: Pairs, names: bool) -> str:
    """List answers by their lines in the data set's table and, with ``names``, by case, slice and sentence."""
    if not pairs:
        return f"<p>{escape(title)}: none.</p>"
    heads = ("line", "pixels", "Dice", *(("case", "slice", "sentence") if names else ()))
    rows = []
    for a, b in pairs:
        known = (b.row.case_id, b.row.slice_id, b.row.sentence) if names else ()
        rows.append((f"{b.row.line}", f"{a.pixels} → {b.pixels}", f"{a.dice:.2f} → {b.dice:.2f}", *known))
    return f"<h2>{escape(title)}</h2>" + _table([heads], rows)


def _table(heads: list[tuple[str, ...]], rows: Sequence[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        numbers = [" class=n" if tag == "td" and NUMBER.match(cell) else "" for cell in cells]
        return "<tr>" + "".join(f"<{tag}{n}>{escape(c)}</{tag}>" for c, n in zip(cells, numbers, strict=True)) + "</tr>"

    return "<table>" + "".join(line(h, "th") for h in heads) + "".join(line(row, "td") for row in rows) + "</table>"


def _picture(png: bytes) -> str:
    return f"<img src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
