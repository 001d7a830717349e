"""What the accuracy gate of an engine's build said, told to whoever opens the engine."""

from __future__ import annotations

import logging

# Loss of mean Dice that a gate excludes unless its build was given another budget.
DEFAULT_BUDGET = 0.01
log = logging.getLogger("lsms_rt")
# Verdict, as ``Manifest.gate_verdict`` -> the warning when the engine is opened.
WARNINGS = {
    "accepted": "failed its accuracy gate and was written with --accept: it may miss lesions that fp32 finds",
    "skipped": "was built without an accuracy gate: whether it loses lesions was not measured",
    "no verdict": "was not judged: its accuracy gate had too few sentences",
    "passed a wider budget": "passed its accuracy gate with a wider budget than the default: it may miss lesions that "
    "fp32 finds",
    "incomplete": "has a record of an accuracy gate that lacks its budget or its cases, so it proves nothing",
    "none": "has no record of an accuracy gate: whether it loses lesions was not measured",
    "passed by its graphs": "passed its accuracy gate as graphs, on another backend; as it is, it was not asked",
}


def warn_of_gate(precision: str, verdict: str) -> None:
    """Log a warning unless an engine passed its gate or needed none."""
    if verdict in WARNINGS:
        log.warning("this %s engine %s", precision, WARNINGS[verdict])
