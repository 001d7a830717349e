"""Answers, comparisons, units and candidate engines made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from lsms_rt.calibration.candidate import Candidates, Run
from lsms_rt.calibration.sensitivity import Unit
from lsms_rt.calibration.statistics import Comparison, compare_answers
from lsms_rt.datasets.questions import Answer
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.export.graph.layers import DenseLayer


def answer(
    case: int,
    dice: float,
    target: bool = True,
    predicted: bool = True,
    mm: float = 20,
    area: float = 50,
    lesion: int | None = None,
) -> Answer:
    """An answer about a lesion of a case; by default, the case has one lesion."""
    mask = Path(f"m{case if lesion is None else lesion}")
    row = Annotation(f"c{case}", "1", Path("i"), mask, "the cyst", "cyst", "val", line=case)
    return Answer(row, dice, predicted, target, mm if target else 0.0, int(area), area if predicted else 0.0)


def compared(*pairs: tuple[Answer, Answer]) -> Comparison:
    return compare_answers([a for a, _ in pairs], [replace(b, row=a.row) for a, b in pairs])


def unit(name: str, macs: int, graph: str = "image") -> Unit:
    return Unit(graph, name, (DenseLayer(name, "x", "w", 0, macs),))


class FakeCandidates(Candidates):
    """A network whose mean Dice falls by the sum of the ``harm`` of its INT8 layers; ``macs`` of all operations.

    ``evaluated`` lists the sets of INT8 layers that were asked.  Every set answers twelve questions with logits that
    change by the harm.
    """

    def __init__(self, harm: dict[str, float], total_macs: int = 1) -> None:
        self.harm, self.total_macs, self.evaluated = harm, total_macs, list[frozenset[str]]()
        self.graphs = {"text": onnx.ModelProto(), "image": onnx.ModelProto()}
        self.layers = {"text": [], "image": [DenseLayer(name, "x", "w", 0, 1) for name in harm]}

    def run(self, ranges, asked, title=None, count=None):  # type: ignore[no-untyped-def,override]
        names = frozenset(name for graph in ranges.values() for name in graph)
        self.evaluated.append(names)
        dice = 0.8 - sum(self.harm[name] for name in names)
        logits = np.linspace(-1, 1, 100).reshape(1, 10, 10) * dice
        for i in range(12):
            yield Run(answer(i, dice), {}, logits)

    def cache_key(self, *parts: object) -> str:
        return f"{hash(str(parts)):x}"
