"""Records of ``bench scaling`` as Markdown tables."""

from __future__ import annotations

from typing import Any

from .records import Record


def scaling_table(record: Record) -> str:
    """Return a table of the axes, and one of the time of one slice by operator."""
    lines = ["| axis | points: ms (p50) |", "|---|---|"]
    for axis, points in record["axes"].items():
        values = ", ".join(f"{point['x']}: {point['p50']:.1f}{_cpu(point)}" for point in points)
        lines.append(f"| {axis} | {values} |")
    lines += ["", "| one slice on one thread | operators | ms | share | 1e9 operations | 1e9 per second |"]
    lines.append("|---|---|---|---|---|---|")
    total = sum(row["ms"] for row in record["operators"])
    for row in record["operators"]:
        work = f"{row['flops'] / 1e9:.2f} | {row['flops'] / row['ms'] / 1e6:.0f}" if row["flops"] else "not counted | "
        lines.append(f"| {row['kind']} | {row['count']} | {row['ms']:.1f} | {row['ms'] / total:.1%} | {work} |")
    roof = record["ceilings"]
    lines.append(f"| maximum of one thread | | | | | {roof['flops'] / 1e9:.0f}, and {roof['bytes'] / 1e9:.1f} GB/s |")
    lines += _in_openvino(record.get("operators_openvino", []))
    size = record["image_size"]
    # Version 0.1 had one backend.
    backend = f", {record['backend']} {record['precision']}" if "backend" in record else ""
    where = f"{size}x{size} except on the axis image size"
    lines += ["", f"{record['weights']}{backend}, {where}; {record['cores']} cores.", ""]
    lines += [f"- {name}: {how}" for name, how in record["method"].items()]
    return "\n".join(lines)


def _cpu(point: dict[str, Any]) -> str:
    return f" (CPU {point['cpu']['p50']:.1f})" if "cpu" in point else ""


def _in_openvino(operators: list[dict[str, Any]]) -> list[str]:
    if not operators:
        return []
    total = sum(row["ms"] for row in operators)
    lines = [
        "",
        "| one slice on one thread, in OpenVINO | precision | operators | ms | share |",
        "|---|---|---|---|---|",
    ]
    for row in operators:
        lines.append(
            f"| {row['kind']} | {row['precision']} | {row['count']} | {row['ms']:.1f} | {row['ms'] / total:.1%} |"
        )
    return lines
