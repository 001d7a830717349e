"""The printed lines: what was found, slice by slice, then one line per series."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from lsms_rt.privacy import names_shown
from lsms_rt.writing.caption import NOTHING_FOUND, incomplete_text, size_text

LOST = "smaller than a pixel, lost when resampled"


def lines(
    results: Sequence[dict[str, Any]], series: Sequence[dict[str, Any]], sentences: Sequence[dict[str, Any]],
    several: bool = False,
) -> list[str]:  # fmt: skip
    """Return the lines of a run: for each input and sentence the slices with a finding, and the number of the others.

    Args:
        results: records of slices, in results.json.
        series: rows of ``summary.series_summary``.
        sentences: what was asked, in results.json; of an input with several, every line names its sentence.
        several: whether several inputs were given; every line then begins with the number of its input.
    """
    asked = Counter(sentence["input"] for sentence in sentences)
    own: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for record in results:
        own[record["input"], record["sentence"]].append(record)
    text = []
    for row in series:
        name = _name(row, several, asked[row["input"]] > 1)
        text += [f"{name}{line}" for line in _of_sentence(own[row["input"], row["sentence"]], row)]
    return text


def _name(row: dict[str, Any], inputs: bool, sentences: bool) -> str:
    parts = [f"input {row['input']}"] if inputs else []
    parts += [f"sentence {row['sentence']}"] if sentences else []
    return f"{', '.join(parts)}: " if parts else ""


def _of_sentence(records: Sequence[dict[str, Any]], row: dict[str, Any]) -> Iterator[str]:
    series = row["slices"] > 1
    for record in records:
        if record["found"]:
            yield f"{_slice_name(record, series)}: {_finding(record)}"
    others = [record for record in records if not record["found"]]
    if others and not series:
        yield f"{_slice_name(others[0], series)}: {NOTHING_FOUND}{_why(others)}"
    elif others and row["found"]:
        yield f"{len(others)} other {'slice' if len(others) == 1 else 'slices'}: {NOTHING_FOUND}{_why(others)}"
    if series or row["incomplete"]:
        yield _series_line(row, others)


def _slice_name(record: dict[str, Any], series: bool) -> str:
    """Return how to find a slice: in a series as other systems name it, else by its file."""
    if not series or not record["slice"]:
        return str(record["source"])
    return f"{record['slice']} ({record['source']})" if names_shown() else str(record["slice"])


def _finding(record: dict[str, Any]) -> str:
    size = size_text(record["pixels"], record["area_mm2"])
    return f"found, {size}, mean {record['mean_hu']:.0f} HU, score {record['score']:.2f}, box {record['bbox']}"


def _why(records: Sequence[dict[str, Any]]) -> str:
    # It was found on the network's grid, which is finer than the image's.
    lost = sum(record["score"] >= record["confidence"] for record in records)
    if lost == len(records):
        return f" ({LOST})"
    score, threshold = max(record["score"] for record in records), records[0]["confidence"]
    also = f"; in {lost} of them {LOST}" if lost else ""
    return f" (highest probability {score:.4f}, confidence threshold {threshold:.4f}{also})"


def _series_line(row: dict[str, Any], others: Sequence[dict[str, Any]]) -> str:
    end = f"; {incomplete_text(row['incomplete'])}" if row["incomplete"] else ""
    if not row["found"]:
        why = _why(others) if others and row["slices"] > 1 else ""
        return f"{NOTHING_FOUND} in {row['slices']} {'slice' if row['slices'] == 1 else 'slices'}{why}{end}"
    volume = "" if row["volume_ml"] is None else f", {row['volume_ml']:.2f} ml"
    largest = f"largest cross-section in {row['largest_slice'] or row['largest_source']}"
    return f"found in {row['found']} of {row['slices']} slices{volume}, {largest}{end}"
