"""The six figures of README.md, from several committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .values import is_ours

PART = "summary"
# Goals of the demo weights, and of their engine.  Those of the contenders are in their records.
DICE, SPECIFICITY, LOGITS = 0.80, 0.95, 1e-4


def summary(folder: Path) -> str:
    """Return a Markdown table of six figures.

    Args:
        folder: Results of one device, e.g. ``bench/results/cpu``; links in the table are relative to its
            great-grandparent, the root of the repository.
    """
    files = {name: f"{name}.json" for name in ("demo_accuracy", "demo_bench", "peers_tiny_512", "int8")}
    found: dict[str, dict[str, Any]] = {name: json.loads((folder / file).read_text()) for name, file in files.items()}
    accuracy, parity = found["demo_accuracy"]["accuracy"], found["demo_accuracy"]["parity_with_pytorch"]
    (engine,) = found["demo_bench"]["engines"].values()
    (int8,) = [row for row in found["int8"]["rows"] if row["name"] == "int8 by recipe, rest fp16"]
    side = engine["engine"]["image_size"]
    rows = (
        (
            f"largest logit difference from PyTorch, {parity['slices']} slices",
            f"{parity['max_logit_difference']:.1e}; {parity['mask_agreement']:.4%} of pixels with the same mask",
            f"{LOGITS:.0e}{_missed(parity['max_logit_difference'] > LOGITS)}",
            "demo_accuracy",
        ),
        (
            f"one slice, {side}x{side}, sentence cached, two CPU cores",
            f"{engine['latency']['predict_cached']['p50']:.1f} ms",
            "",
            "demo_bench",
        ),
        (
            f"time of others on the same weights, 512x512, {_one(found['peers_tiny_512'])} = 1",
            _peers(found["peers_tiny_512"]),
            _peer_goals(found["peers_tiny_512"]),
            "peers_tiny_512",
        ),
        (
            f"INT8 by recipe, {int8['macs_share']:.0%} of the dense work",
            f"mean Dice {int8['against_fp32']['dice']['engine']:.4f} instead of "
            f"{int8['against_fp32']['dice']['reference']:.4f}",
            "a drop of 0.01 excluded",
            "int8",
        ),
        (
            f"mean Dice of the demo weights, {accuracy['cases']} held-out cases",
            f"{accuracy['dice']:.3f}",
            f"{DICE:.2f}{_missed(accuracy['dice'] < DICE)}",
            "demo_accuracy",
        ),
        (
            "negative sentences that get an empty mask",
            f"{accuracy['silence']:.3f}",
            f"{SPECIFICITY:.2f}{_missed(accuracy['silence'] < SPECIFICITY)}",
            "demo_accuracy",
        ),
    )
    root = folder.parts[-3:]
    lines = ["| figure | measured | goal | file |", "|---|---|---|---|"]
    for figure, measured, goal, name in rows:
        lines.append(f"| {figure} | {measured} | {goal} | [{name}]({'/'.join((*root, files[name]))}) |")
    return "\n".join(lines) + "\n"


def _one(record: dict[str, Any]) -> str:
    """Return what the times are divided by: our best engine; in records of version 0.1 the only one."""
    return str(record["best"]["series"]) if "best" in record else "ours"


def _peers(record: dict[str, Any]) -> str:
    return "; ".join(f"{_called(row)} {ratio['value']:.2f}" for row, ratio, _ in _with_goals(record))


def _called(row: dict[str, Any]) -> str:
    return f"{row['name']} (ONNX Runtime)" if is_ours(row) else str(row["name"])


def _peer_goals(record: dict[str, Any]) -> str:
    """Return the goals; one that lies inside the 95 % interval of its ratio is not significantly reached."""
    words = []
    for _, ratio, goal in _with_goals(record):
        unsure = " (not significant)" if ratio["low"] < goal <= ratio["value"] else ""
        words.append(f"{goal:g}{_missed(ratio['value'] < goal)}{unsure}")
    return "; ".join(words)


def _with_goals(record: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, float], float]]:
    """Return the rows that have a goal, and the ratio that it is for: in version 0.1 that to "ours"."""
    of, goal = ("times_best", "goal_best") if "best" in record else ("times_ours", "goal")
    return [(row, row[of], row[goal]) for row in record["rows"] if goal in row]


def _missed(missed: bool) -> str:
    return " (not reached)" if missed else ""
