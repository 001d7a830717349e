"""dataset.json and README.md of a converted data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .license import NOT_STATED
from .options import ConvertOptions

if TYPE_CHECKING:
    from .convert import Report

# Raise it whenever the same source and options no longer give the same rows.
CONVERTER_VERSION = 1


def facts_of(
    options: ConvertOptions, report: Report, license: str, citation: str, labels: Mapping[str, str]
) -> dict[str, Any]:
    """Return the content of dataset.json; it holds no path and no name of a file."""
    return {
        "kind": options.kind,
        "converter_version": CONVERTER_VERSION,
        "seed": options.seed,
        "slices_per_case": options.slices_per_case,
        "source_license": license or NOT_STATED,
        "source_citation": citation or NOT_STATED,
        "labels": dict(labels),
        "scans": report.cases,
        "scans_left_out": len(report.problems),
        "slices": report.slices,
        "slices_not_used": dict(sorted(report.unused.items())),
        "sentences": len(report.lines),
        "sentences_true_of_nothing": report.false_sentences,
        "scans_by_split": dict(sorted(report.splits.items())),
        "notes": list(report.notes),
    }


def card(facts: Mapping[str, Any]) -> str:
    """Return the text of README.md."""
    splits = ", ".join(f"{count} {name}" for name, count in facts["scans_by_split"].items())
    return (
        f"# Converted from {facts['kind']}\n\n"
        "Made by `lsms-rt convert`, in the RefHL-Seg layout: `annotations.csv` has one row per sentence, `images/`\n"
        "one DICOM file per slice, `masks/` one PNG per meaning. The images are of patients: the terms of the source\n"
        "apply, see LICENSE-SOURCE.txt.\n\n"
        f"{facts['scans']} scans ({splits}), {facts['slices']} slices, {facts['sentences']} sentences, of which "
        f"{facts['sentences_true_of_nothing']} are true\nof nothing in their slice.\n"
    )
