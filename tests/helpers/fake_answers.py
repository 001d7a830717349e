"""Answers, comparisons and units made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lsms_rt.calibration.compare import Comparison, compare_answers
from lsms_rt.calibration.units import Unit
from lsms_rt.datasets.questions import Answer
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.export.graph.layers import DenseLayer


def answer(
    case: int, dice: float, wanted: bool = True, painted: bool = True, mm: float = 20, area: float = 50
) -> Answer:
    row = Annotation(f"c{case}", "1", Path("i"), Path("m"), "the cyst", "cyst", "val", line=case)
    return Answer(row, dice, painted, wanted, mm if wanted else 0.0, int(area), area if painted else 0.0)


def compared(*pairs: tuple[Answer, Answer]) -> Comparison:
    return compare_answers([a for a, _ in pairs], [replace(b, row=a.row) for a, b in pairs])


def unit(name: str, macs: int, graph: str = "image") -> Unit:
    return Unit(graph, name, (DenseLayer(name, "x", "w", 0, macs),))
