"""Records as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .compare import LEAST, Difference
from .records import ENGINES, PEERS, SCALING, Record, origin

LATENCIES = {
    "predict_cached": "sentence asked before",
    "predict_new_sentence": "new sentence",
    "predict_from_dicom_bytes": "from DICOM bytes",
}


def markdown(record: Record) -> str:
    """All of a record, with where it comes from."""
    body = {ENGINES: _engines, PEERS: peers_table, SCALING: scaling_table}[record["kind"]](record)
    return f"{body}\n\n{origin(record)}.\n"


def peers_table(record: Record) -> str:
    """One row a contender: speed and accuracy beside each other."""
    sure = "95 %" if record.get("launches", 1) >= LEAST else "range"
    lines = [
        f"| | ms a slice (median) | times ours ({sure}) | goal | largest logit difference | same mask | first slice, s "
        "| peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        ratio = row["times_ours"]
        times = "1" if row["name"] == "ours" else f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        goal = f"{row['goal']:g}" if "goal" in row else ""
        if goal and ratio["low"] < row["goal"]:
            goal += ", not reached" if ratio["value"] < row["goal"] else ", not for sure"
        lines.append(
            f"| {row['name']}: {row['what']} | {row['ms_a_slice']['p50']:.1f} | {times} | {goal} | "
            f"{row['largest_logit_difference']:.1e} | {row['mask_agreement']:.4%} | {row['first_slice_s']:.1f} | "
            f"{_number(row['peak_rss_mb'], 0)} |"
        )
    lines += [f"| {name} | {reason} | | | | | | |" for name, reason in record["absent"].items()]
    size = record["image_size"]
    lines += [
        "",
        f"{record['weights']}, {size}x{size}; a series of {record['slices']} slices with one sentence; "
        f"{record.get('launches', 1)} launches of {record['rounds']} rounds; threads: {record['threads']}; "
        f"answers compared with {record['answers_compared_with']}.",
    ]
    return "\n".join(lines)


def scaling_table(record: Record) -> str:
    """One table of the axes, one of where a slice's time goes."""
    lines = ["| axis | points: ms (p50) |", "|---|---|"]
    for axis, points in record["axes"].items():
        found = ", ".join(f"{point['x']}: {point['p50']:.1f}" for point in points)
        lines.append(f"| {axis} | {found} |")
    lines += ["", "| one slice on one thread | operators | ms | share | 1e9 operations | 1e9 a second |"]
    lines.append("|---|---|---|---|---|---|")
    total = sum(row["ms"] for row in record["operators"])
    for row in record["operators"]:
        work = f"{row['flops'] / 1e9:.2f} | {row['flops'] / row['ms'] / 1e6:.0f}" if row["flops"] else "not counted | "
        lines.append(f"| {row['kind']} | {row['count']} | {row['ms']:.1f} | {row['ms'] / total:.1%} | {work} |")
    roof = record["ceilings"]
    lines.append(
        f"| the most that one thread can | | | | | {roof['flops'] / 1e9:.0f}, and {roof['bytes'] / 1e9:.1f} GB/s |"
    )
    size = record["image_size"]
    lines += ["", f"{record['weights']}, {size}x{size} but for image size; {record['cores']} cores.", ""]
    lines += [f"- {name}: {how}" for name, how in record["method"].items()]
    return "\n".join(lines)


def compare_table(found: Iterable[Difference]) -> str:
    """For the terminal: A, B, their ratio, and the verdict."""
    rows = [
        (
            d.name,
            f"{d.a:.4g}",
            f"{d.b:.4g}",
            d.unit,
            f"{d.ratio.value:.3f} ({d.ratio.low:.3f} to {d.ratio.high:.3f})",
            d.verdict,
        )
        for d in found
    ]
    rows.insert(0, ("figure", "A", "B", "unit", "B to A (95 %)", "B is"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def latency_table(record: Record) -> str:
    """Of every engine what a user waits for, and what it takes; with where it comes from."""
    lines = [
        "| engine | sentence asked before, ms | new sentence, ms | from DICOM bytes, ms | series, slices a second | "
        "first mask of a process, s | its peak, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, engine in record["engines"].items():
        what, found = engine["engine"], engine["latency"]
        cells = " | ".join(f"{found[key]['p50']:.1f} (p95 {_number(found[key]['p95'], 1)})" for key in LATENCIES)
        series = max(value["p50"] for way, value in engine["throughput"].items() if way.startswith("series"))
        first = engine["cold_start"]["process_to_mask_ms"]["p50"] / 1000
        title = f"{name}: {what['preset']}, {what['image_size']}x{what['image_size']}, {what['precision']}"
        peak = engine["cold_start"].get("peak_rss_mb", {}).get("p50")
        lines.append(f"| {title} | {cells} | {series:.1f} | {first:.2f} | {_number(peak, 0)} |")
    return "\n".join([*lines, "", f"{origin(record)}.", ""])


def _engines(record: Record) -> str:
    return "\n\n".join(_engine(name, engine) for name, engine in record["engines"].items())


def _engine(name: str, engine: dict[str, Any]) -> str:
    what, size = engine["engine"], engine["engine"]["image_size"]
    lines = [
        f"### {name}: {what['preset']}, {size}x{size}, {what['precision']}, {what['backend']}",
        "",
        "| predict, ms | p50 | p90 | p95 | p99 | min | CoV | samples |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key, words in LATENCIES.items():
        found = engine["latency"][key]
        cells = " | ".join(_number(found[figure], 2) for figure in ("p50", "p90", "p95", "p99", "min"))
        lines.append(f"| {words} | {cells} | {found['cov']:.1%} | {found['count']} |")
    lines += ["", "| stage of a predict | ms (p50) |", "|---|---|"]
    lines += [f"| {stage} | {value['p50']:.2f} |" for stage, value in engine["stages"].items()]
    lines += ["", "| throughput | slices a second (p50) |", "|---|---|"]
    lines += [f"| {way} | {value['p50']:.2f} |" for way, value in engine["throughput"].items()]
    lines += ["", "| cold start, a fresh process | p50 |", "|---|---|"]
    for field, value in engine["cold_start"].items():
        lines.append(f"| {field.rsplit('_', 1)[0].replace('_', ' ')} | {value['p50']:.0f} {value['unit']} |")
    for way, found in engine["events"].items():
        cells = " | ".join(f"{samples['p50']:.3f}" for samples in found.values())
        lines += ["", f"| {way}, ms (p50) | {' | '.join(found)} |", "|---|" + "---|" * len(found), f"| | {cells} |"]
    memory = engine["memory"]
    host, device = _number(memory["peak_rss_mb"], 0), _device(memory["device"])
    lines += ["", f"Memory, over all of this: at most {host} MB of the host's; {device}."]
    power = engine["energy"]
    if "absent" in power:
        lines += ["", f"Energy: not measured ({power['absent']})."]
    else:
        lines += [
            "",
            f"Energy: {power['joules_a_slice']:.3f} J a slice above idle ({power['source']}; idle "
            f"{power['idle_watts']:.1f} W, at work {power['watts']:.1f} W, {power['seconds']:.0f} s).",
        ]
    lines += ["", *(f"- warning: {line}" for line in engine["warnings"])]
    lines += [f"- {name.replace('_', ' ')}: {how}" for name, how in engine["method"].items()]
    return "\n".join(lines)


def _device(memory: dict[str, Any]) -> str:
    if "absent" in memory:
        return f"of a device's: not measured ({memory['absent']})"
    used = f"{_number(memory['used_open_mb'], 0)} MB, {_number(memory['used_before_mb'], 0)} MB before the engine"
    return f"of the device's, with all that runs there: {used}"


def _number(value: float | None, digits: int) -> str:
    return "too few" if value is None else f"{value:.{digits}f}"


PARTS = {"": markdown, "latency": latency_table}  # of a record, that a text may hold
