"""The table of measurements: a row per input, sentence and finding, out of results.json."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

NAME = "measurements"
# column -> its type, and what it holds; docs/archive.md repeats it
COLUMNS: dict[str, tuple[type, str]] = {
    "input": (int, "number of the input, from 1"),
    "sentence": (int, "number of the sentence, from 1"),
    "status": (str, "complete; incomplete: slices or files are missing; failed: no result"),
    "understood": (str, "whether the engine understands the sentence: yes, partly, no"),
    "slices": (int, "slices with a result"),
    "found_slices": (int, "slices in which something was found"),
    "incomplete": (int, "images without a result"),
    "gaps": (int, "steps between slices that are too wide; empty if positions are unknown"),
    "volume_ml": (float, "volume of what was found in the series; empty if unknown"),
    "finding": (
        int,
        "number of the finding, a slice in which something was found, from 1; 0: nothing found",
    ),
    "index": (int, "number of its slice, from 0, from feet to head"),
    "slice": (str, "its slice as other systems name it"),
    "position_mm": (float, "position of its slice"),
    "area_mm2": (float, "its area; empty if the pixel spacing is unknown"),
    "mean_hu": (float, "mean HU over its pixels"),
    "pixels": (int, "its pixels"),
    "score": (float, "highest probability in its slice; without a finding, in the series"),
    "row0": (int, "first row of its box, in the file's own grid"),
    "column0": (int, "first column"),
    "row1": (int, "row after the last one"),
    "column1": (int, "column after the last one"),
    "mask": (str, "file of its mask, relative to this table"),
    "error": (str, "what could not be read, computed or written, and why"),
}
# How a table of any version begins.
BEGIN = "input,sentence,"
# How what is missing of an input begins, in a run with several.
INPUT = re.compile(r"input ([0-9]+): ")
# The lists of results.json that say what is missing.
LEFT_OUT = ("not_read", "not_computed", "not_written")


def rows_of(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run, by input, sentence and finding; a column that is missing in a row is unknown.

    Args:
        document: results.json.
    """
    errors = _errors(document)
    series = {(row["input"], row["sentence"]): row for row in document["series"]}
    findings: dict[tuple[int, int], list[Mapping[str, Any]]] = defaultdict(list)
    for record in document["results"]:
        if record["found"]:
            findings[record["input"], record["sentence"]].append(record)
    for asked in document["sentences"]:
        place = asked["input"], asked["sentence"]
        why = "; ".join(errors[asked["input"]])
        row = {"input": place[0], "sentence": place[1], "understood": asked["understood"]}
        row |= {"error": why} if why else {}
        if place not in series:
            yield row | {"status": "failed"}
            continue
        found = series[place]
        row |= {key: found[key] for key in ("slices", "incomplete", "gaps", "volume_ml", "score")}
        row |= {"found_slices": found["found"], "status": "incomplete" if why else "complete"}
        if not findings[place]:
            yield row | {"finding": 0}
        for number, record in enumerate(findings[place], 1):
            yield row | {"finding": number} | _measures(record)


def failed_rows(number: int, sentences: int, why: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of an input without any result: one for each of its sentences."""
    for sentence in range(1, sentences + 1):
        yield {"input": number, "sentence": sentence, "status": "failed", "error": why}


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as a table with a line of names; unknown values are empty.

    A text that spreadsheets would compute, since it begins like a formula, begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _measures(record: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("index", "slice", "position_mm", "area_mm2", "mean_hu", "pixels", "score", "mask")
    box = zip(("row0", "column0", "row1", "column1"), record["bbox"], strict=True)
    return {key: record.get(key) for key in keys} | dict(box)


def _errors(document: Mapping[str, Any]) -> dict[int, list[str]]:
    """Return what is missing of each input; messages begin with its number where a run had several."""
    errors: dict[int, list[str]] = defaultdict(list)
    for reason in (reason for key in LEFT_OUT for reason in document[key]):
        match = INPUT.match(reason) if document["inputs"] > 1 else None
        errors[int(match[1]) if match else 1].append(reason[match.end() :] if match else reason)
    return errors
