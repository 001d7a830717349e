"""Measure what INT8 does to the answers, one unit (a dense layer, or a group of layers) at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lsms_rt.datasets.choose import record
from lsms_rt.datasets.questions import Answer, Question, questions
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.export.graph.layers import DenseLayer, by_name

from .candidate import Candidates
from .recipe import GRAPHS, Ranges, write_json

# The part of a slice's pixels with the highest logits: those in the mask, or that would enter it first.  A lesion is a
# hundredth of a slice, so a signal-to-noise ratio over all pixels does not see it: clipping all ranges at a percentile
# improves that ratio and makes Dice much worse, because it clips the lesions' peaks (bench/results/cpu/int8.json).
DECIDING = 0.02


@dataclass(frozen=True)
class Unit:
    """A search unit: ``layers`` of one ``graph`` that become INT8 together."""

    graph: str
    name: str
    layers: tuple[DenseLayer, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one slice (text graph: of one sentence) in all its layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def key(self) -> str:
        return f"{self.graph}:{self.name}"


def units_of(layers: Mapping[str, list[DenseLayer]], by: str) -> list[Unit]:
    """Group the layers of both graphs into units, in their order.

    Args:
        layers: graph name -> its dense layers.
        by: "layer" for one layer per unit, "group" for the layers of one half of a block.
    """
    units = []
    for graph in GRAPHS:
        groups: dict[str, list[DenseLayer]] = {}
        for name, layer in by_name(layers[graph]):
            groups.setdefault(name if by == "layer" else group_of(name), []).append(layer)
        units += [Unit(graph, name, tuple(members)) for name, members in groups.items()]
    return units


def group_of(layer: str) -> str:
    """Return the group of a layer by its name.

    ``encoder.stages.0.blocks.1.mlp.expand`` -> ``encoder.stages.0.blocks.1.mlp``.  A part of the decoder, a layer of
    BERT, and all products whose names differ by a number only are groups as well.
    """
    parts = layer.split(".")
    if parts[0] == "encoder":
        return ".".join(parts[: 6 if "blocks" in parts else 4])
    if parts[0] == "text_encoder":
        return ".".join(parts[:5])
    return ".".join(parts[:2]) if len(parts) > 1 else parts[0].rstrip("0123456789_")


def ranges_of_units(units: list[Unit], ranges: Ranges) -> Ranges:
    """Select from ``ranges`` those of the layers of ``units``."""
    selected: Ranges = {graph: {} for graph in GRAPHS}
    for unit in units:
        selected[unit.graph] |= {layer.name: ranges[unit.graph][layer.name] for layer in unit.layers}
    return selected


@dataclass(frozen=True)
class Effect:
    """The effect of one unit in INT8 with the ranges of one method.

    Attributes:
        unit: the unit's key.
        method: the method of its ranges, one of ``ranges.METHODS``.
        noise: mean square of the change of the logits, over the pixels that decide an answer (DECIDING).
        sqnr_db: power of all logits divided by the power of their change, in dB.
        dice_drop: loss of mean Dice with the true masks.  Over a few dozen sentences it is an indication only.
    """

    unit: str
    method: str
    noise: float
    sqnr_db: float
    dice_drop: float


@dataclass(frozen=True)
class Sensitivity:
    """All units, each with the calibration method that makes the least noise.

    Attributes:
        units: the units, in the order of their layers.
        effects: unit key -> the effect of the unit alone.
        ranges: the ranges of all layers.
    """

    units: list[Unit]
    effects: dict[str, Effect]
    ranges: Ranges


def measure_sensitivity(
    candidates: Candidates, ranges: dict[str, Ranges], rows: list[Annotation], by: str, output: Path
) -> Sensitivity:
    """Measure the effect of every unit alone with the ranges of every method, and choose the method of each.

    Args:
        candidates: the engine.
        ranges: method -> the ranges of all layers.
        rows: the rows to measure on.
        by: the kind of units, one of ``options.BY``.
        output: folder of the cache, see :func:`measure_effects`.
    """
    units = units_of(candidates.layers, by)
    effects = min_noise(measure_effects(candidates, units, ranges, rows, by, output))
    return Sensitivity(units, effects, best_ranges(units, effects, ranges))


class Probe:
    """A few questions, with the answers and logits of the unchanged engine for comparison."""

    def __init__(self, candidates: Candidates, asked: list[Question]) -> None:
        self.candidates, self.asked = candidates, asked
        self.answers, self.logits = self._ask({})
        self.deciding = [logits >= np.quantile(logits, 1 - DECIDING) for logits in self.logits]

    def effect(self, name: str, method: str, ranges: Ranges) -> Effect:
        """Measure the effect of the layers named in ``ranges`` in INT8."""
        answers, logits = self._ask(ranges)
        changes = [a - b for a, b in zip(logits, self.logits, strict=True)]
        noise = np.mean([np.square(d[where]).mean() for d, where in zip(changes, self.deciding, strict=True)])
        power, error = (sum(float(np.square(a).sum()) for a in arrays) for arrays in (self.logits, changes))
        sqnr = 10 * np.log10(power / max(error, 1e-30))
        return Effect(name, method, float(noise), float(sqnr), _mean_dice(self.answers) - _mean_dice(answers))

    def _ask(self, ranges: Ranges) -> tuple[list[Answer], list[np.ndarray]]:
        runs = [(run.answer, run.logits) for run in self.candidates.run(ranges, self.asked)]
        return [answer for answer, _ in runs], [logits for _, logits in runs]


def measure_effects(
    candidates: Candidates, units: list[Unit], ranges: dict[str, Ranges], rows: list[Annotation], by: str, output: Path
) -> list[Effect]:
    """Measure the effect of every unit alone, with the ranges of every method.

    A file in the folder ``output`` is updated after every unit, so that an interrupted run resumes.  It is used only
    with the same engine, ranges, rows and kind of units.

    Args:
        candidates: the engine.
        units: the units, made by ``units_of(..., by)``.
        ranges: method -> the ranges of all layers.
        rows: the rows to measure on.
        by: the kind of units, one of ``options.BY``.
        output: folder of the cache.
    """
    key = candidates.cache_key(ranges, record(rows), by, DECIDING)
    return _resume(Probe(candidates, list(questions(rows))), units, ranges, output / f"effects-{key[:12]}.json")


def _resume(probe: Probe, units: list[Unit], ranges: dict[str, Ranges], cache: Path) -> list[Effect]:
    """Measure the effects that are missing in ``cache``."""
    from tqdm import tqdm

    known = {}
    if cache.exists():
        effects = [Effect(**row) for row in json.loads(cache.read_text())]
        known = {(effect.unit, effect.method): effect for effect in effects}
    for unit in tqdm(units, desc="effect of every unit alone", unit="unit", disable=None):
        for method, of_method in ranges.items():
            if (unit.key, method) not in known:
                known[unit.key, method] = probe.effect(unit.key, method, ranges_of_units([unit], of_method))
        write_json(cache, [asdict(effect) for effect in known.values()])
    return [known[unit.key, method] for unit in units for method in ranges]


def min_noise(effects: list[Effect]) -> dict[str, Effect]:
    """Return unit key -> its effect with the method that makes the least noise."""
    best: dict[str, Effect] = {}
    for effect in effects:
        if effect.unit not in best or effect.noise < best[effect.unit].noise:
            best[effect.unit] = effect
    return best


def best_ranges(units: list[Unit], effects: Mapping[str, Effect], ranges: dict[str, Ranges]) -> Ranges:
    """Return the ranges of all layers, each by the method of its unit's entry in ``effects``."""
    best: Ranges = {graph: {} for graph in GRAPHS}
    for unit in units:
        best[unit.graph] |= ranges_of_units([unit], ranges[effects[unit.key].method])[unit.graph]
    return best


def _mean_dice(answers: list[Answer]) -> float:
    positive = [answer.dice for answer in answers if answer.target_nonempty]
    return float(np.mean(positive)) if positive else 0.0
