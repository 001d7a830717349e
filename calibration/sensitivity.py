"""What INT8 does to the answers, one unit at a time."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lsms_rt.datasets.questions import Answer, Question

from .files import write_whole
from .trial import Trials
from .units import Ranges, Unit

# Of a slice's pixels, those with the highest logits: where something is painted, or would be first.  A lesion is a
# hundredth of a slice, so a signal-to-noise ratio over all pixels does not see it: clipping all ranges at a percentile
# makes that ratio better and Dice much worse, for what is clipped are the lesions' peaks (bench/results/cpu/int8.json).
DECIDING = 0.02


@dataclass(frozen=True)
class Effect:
    """Of one unit in INT8 with the ranges of ``method``.

    ``noise``: mean square of the logits' change where an answer is decided (DECIDING); ``sqnr_db``: power of all logits
    over that of their change; ``dice_drop``: of mean Dice with the truth, over a few dozen sentences: an indication.
    """

    unit: str
    method: str
    noise: float
    sqnr_db: float
    dice_drop: float


class Probe:
    """A few questions with the logits of the engine as it is, for comparison."""

    def __init__(self, trials: Trials, asked: list[Question]) -> None:
        self.trials, self.asked = trials, asked
        self.answers, self.logits = trials.logits({}, asked)
        self.deciding = [logits >= np.quantile(logits, 1 - DECIDING) for logits in self.logits]

    def effect(self, name: str, method: str, layers: Ranges) -> Effect:
        """Of ``layers`` in INT8."""
        answers, logits = self.trials.logits(layers, self.asked)
        changes = [a - b for a, b in zip(logits, self.logits, strict=True)]
        noise = np.mean([np.square(d[where]).mean() for d, where in zip(changes, self.deciding, strict=True)])
        power, error = (sum(float(np.square(a).sum()) for a in arrays) for arrays in (self.logits, changes))
        sqnr = 10 * np.log10(power / max(error, 1e-30))
        return Effect(name, method, float(noise), float(sqnr), _dice(self.answers) - _dice(answers))


def measure_effects(probe: Probe, units: list[Unit], ranges: dict[str, Ranges], cache: Path) -> list[Effect]:
    """The effect of every unit alone with the ``ranges`` of every method.

    ``cache`` is a file that is read and written after every unit, so that a run that was broken off goes on; it must
    belong to these graphs, ranges and questions.
    """
    from tqdm import tqdm

    known = {}
    if cache.exists():
        effects = [Effect(**row) for row in json.loads(cache.read_text())]
        known = {(effect.unit, effect.method): effect for effect in effects}
    for unit in tqdm(units, desc="effect of every unit alone", unit="unit", disable=None):
        for method, found in ranges.items():
            if (unit.key, method) not in known:
                known[unit.key, method] = probe.effect(unit.key, method, {unit.graph: unit.of(found)})
        write_text(cache, json.dumps([asdict(effect) for effect in known.values()], indent=1) + "\n")
    return [known[unit.key, method] for unit in units for method in ranges]


def least_noise(effects: list[Effect]) -> dict[str, Effect]:
    """Unit -> its effect with the method that does it least harm."""
    best: dict[str, Effect] = {}
    for effect in effects:
        if effect.unit not in best or effect.noise < best[effect.unit].noise:
            best[effect.unit] = effect
    return best


def _dice(answers: list[Answer]) -> float:
    true = [answer.dice for answer in answers if answer.wanted]
    return float(np.mean(true)) if true else 0.0
