"""Records as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .cells import number
from .compare import Difference
from .records import ACCURACY, ENGINES, GATE, INT8, KINDS, PEERS, PROBES, SCALING, SERVE, Record, origin, rows_of
from .samples import Samples
from .tables_accuracy import accuracy_table
from .tables_peers import peers_table
from .tables_probes import probes_table
from .tables_scaling import scaling_table
from .values import row_values, without_name

FEW = "n/a (too few samples)"
LATENCIES = {
    "predict_cached": "cached sentence",
    "predict_new_sentence": "new sentence",
    "predict_from_dicom_bytes": "from DICOM bytes",
}


def markdown(record: Record) -> str:
    """Return all of a record, and its provenance."""
    tables = {
        ENGINES: _engines, PEERS: peers_table, SCALING: scaling_table, ACCURACY: accuracy_table, INT8: int8_table,
        GATE: gate_table, PROBES: probes_table, SERVE: serve_table,
    }  # fmt: skip
    table = tables.get(record["kind"], rows_table)
    title = f"{record['what']}.\n\n" if "what" in record else ""
    return f"{title}{table(record)}\n\n{origin(record)}.\n"


def rows_table(record: Record) -> str:
    """Return one line per row: the fields that name it, its words, then its numbers or the medians of its samples."""
    kind, rows = record["kind"], rows_of(record)
    cells_of: list[dict[str, Samples | float | str]] = []
    for row in rows:
        values = without_name(kind, row)
        words = {name: value for name, value in values.items() if isinstance(value, str)}
        cells_of.append(words | dict(row_values(values)))
    names = [field for field in KINDS[kind] if any(field in row for row in rows)]
    columns = list(dict.fromkeys(column for row in cells_of for column in row))
    lines = ["| " + " | ".join(names + columns) + " |", "|---" * len(names + columns) + "|"]
    for row, values in zip(rows, cells_of, strict=True):
        cells = [str(row.get(field, "")) for field in names]
        lines.append("| " + " | ".join(cells + [_cell(values.get(column)) for column in columns]) + " |")
    return "\n".join(lines)


def _cell(value: Samples | float | str | None) -> str:
    if isinstance(value, Samples):
        return f"{value.median:.4g} {value.unit}"
    return f"{value:.6g}" if isinstance(value, float) else value or ""


def serve_table(record: Record) -> str:
    """Return what a server adds to a request and what faults do, then one line per number of clients."""
    over = record["overhead"]
    lines = [
        f"A request takes {over['request, ms']:.1f} ms, `predict` {over['predict, ms']:.1f} ms: "
        f"{over['overhead, ms']:.1f} ms more (medians of {over['rounds']} turns; the client is Python's http.client, "
        f"with httpx a request takes {over['request with httpx, ms']:.1f} ms).",
        "",
        rows_table(record),
        "",
        *(f"- {name}: {_counts(value)}" for name, value in record["faults"].items()),
    ]
    return "\n".join(lines)


def _counts(value: Any) -> str:
    return ", ".join(f"{count} {what}" for what, count in value.items()) if isinstance(value, dict) else str(value)


def int8_table(record: Record) -> str:
    """Return one line per engine: accuracy against fp32, and time."""
    lines = [
        "| engine | dense MACs in INT8 | graphs, MB | mean Dice | below 10 mm | newly missed lesions | "
        "empty, of the negative sentences | new false positives | time to fp32 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        against = row["against_fp32"]
        empty, time = against["emptiness"], row["time_to_fp32"]
        # Records of version 0.1 do not have them.
        found = against.get("found")
        missed = f"{found['newly_missed']} of {found['n']}" if found else "-"
        lines.append(
            f"| {row['name']} | {row['macs_share']:.1%} | {row['graphs_mb']:.1f} | {against['dice']['engine']:.4f} | "
            f"{against['small']['engine']:.4f} | {missed} | {empty['engine']} of {empty['n']} | "
            f"{empty['newly_painted']} | {time['p50']:.2f} ({time['p25']:.2f} to {time['p75']:.2f}) |"
        )
    return "\n".join(lines)


def gate_table(record: Record) -> str:
    """Return one line per number of lost lesions: the probability to pass, before and now, by found lesions."""
    rows = rows_of(record)
    sizes = sorted({row["lesions"] for row in rows})
    lines = [
        "| newly missed lesions | " + " | ".join(f"of {n}: before | now" for n in sizes) + " |",
        "|---" * (1 + 2 * len(sizes)) + "|",
    ]
    cells = {(row["noise"], row["lost"], row["lesions"]): f"{row['before']:.1%} | {row['now']:.1%}" for row in rows}
    for noise, lost in dict.fromkeys((row["noise"], row["lost"]) for row in rows):
        name = f"{lost}, the others as they were" if not noise else f"{lost}, the others change by {noise:g}"
        lines.append(f"| {name} | " + " | ".join(cells[noise, lost, n] for n in sizes) + " |")
    lines += ["", f"{record['runs']} simulated engines per figure; gains make up for the lost Dice."]
    return "\n".join(lines)


def compare_table(differences: Iterable[Difference]) -> str:
    """Return A, B, their ratio and the verdict for the terminal."""
    rows = [
        (
            d.name,
            f"{d.a:.4g}",
            f"{d.b:.4g}",
            d.unit,
            f"{d.ratio.value:.3f} ({d.ratio.low:.3f} to {d.ratio.high:.3f})" if d.ratio else "",
            d.verdict,
        )
        for d in differences
    ]
    rows.insert(0, ("figure", "A", "B", "unit", "B / A (95 %)", "B is"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def latency_table(record: Record) -> str:
    """Return one line per engine: latency, throughput and memory; and the provenance."""
    lines = [
        "| engine | cached sentence, ms | new sentence, ms | from DICOM bytes, ms | series, slices per second | "
        "first mask of a process, s | peak memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, engine in record["engines"].items():
        what, latency = engine["engine"], engine["latency"]
        cells = " | ".join(f"{latency[key]['p50']:.1f} (p95 {number(latency[key]['p95'], 1)})" for key in LATENCIES)
        series = max(value["p50"] for way, value in engine["throughput"].items() if way.startswith("series"))
        first = engine["cold_start"]["process_to_mask_ms"]["p50"] / 1000
        title = f"{name}: {what['preset']}, {what['image_size']}x{what['image_size']}, {what['precision']}"
        peak = engine["cold_start"].get("peak_rss_mb", {}).get("p50")
        lines.append(f"| {title} | {cells} | {series:.1f} | {first:.2f} | {number(peak, 0)} |")
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
        latency = engine["latency"][key]
        cells = " | ".join(number(latency[figure], 2, FEW) for figure in ("p50", "p90", "p95", "p99", "min"))
        lines.append(f"| {words} | {cells} | {latency['cov']:.1%} | {latency['count']} |")
    lines += ["", "| stage of predict | ms (p50) |", "|---|---|"]
    lines += [f"| {stage} | {value['p50']:.2f} |" for stage, value in engine["stages"].items()]
    # Version 0.1 did not record it.
    cpu = engine.get("cpu_ms_a_slice", {})
    lines += ["", "| throughput | slices per second (p50) |" + " CPU ms per slice |" * bool(cpu)]
    lines += ["|---|---|" + "---|" * bool(cpu)]
    for way, value in engine["throughput"].items():
        lines.append(f"| {way} | {value['p50']:.2f} |" + (f" {cpu[way]['p50']:.1f} |" if cpu else ""))
    lines += ["", "| cold start, a fresh process | p50 |", "|---|---|"]
    for field, value in engine["cold_start"].items():
        lines.append(f"| {field.rsplit('_', 1)[0].replace('_', ' ')} | {value['p50']:.0f} {value['unit']} |")
    for way, events in engine["events"].items():
        cells = " | ".join(f"{samples['p50']:.3f}" for samples in events.values())
        lines += ["", f"| {way}, ms (p50) | {' | '.join(events)} |", "|---|" + "---|" * len(events), f"| | {cells} |"]
    memory = engine["memory"]
    host, device = number(memory["peak_rss_mb"], 0), _device(memory["device"])
    lines += ["", f"Peak memory of all these measurements: {host} MB on the host; {device}."]
    power = engine["energy"]
    if "absent" in power:
        lines += ["", f"Energy: not measured ({power['absent']})."]
    else:
        lines += [
            "",
            f"Energy: {power['joules_a_slice']:.3f} J per slice above idle ({power['source']}; idle "
            f"{power['idle_watts']:.1f} W, at work {power['watts']:.1f} W, {power['seconds']:.0f} s).",
        ]
    lines += ["", *(f"- warning: {line}" for line in engine["warnings"])]
    lines += [f"- {name.replace('_', ' ')}: {how}" for name, how in engine["method"].items()]
    return "\n".join(lines)


def _device(memory: dict[str, Any]) -> str:
    if "absent" in memory:
        return f"on the device: not measured ({memory['absent']})"
    used = f"{number(memory['used_open_mb'], 0)} MB, {number(memory['used_before_mb'], 0)} MB before the engine"
    return f"on the device, all processes: {used}"


# The parts of a record that a text can contain.
PARTS = {"": markdown, "latency": latency_table}
