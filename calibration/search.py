"""The largest set of INT8 units that a budget of harm allows, with a margin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lsms_rt.datasets.refhl import Annotation
from lsms_rt.errors import InputError

from .compare import Comparison, compare_answers, failures, unjudged
from .sensitivity import Effect
from .trial import Trials
from .units import Unit, merged

TRIES = 4  # sets with a margin; where none passes, the largest that passed is taken


@dataclass(frozen=True)
class Trial:
    """One set of units, and what it did to the held-out answers.  ``share`` of all dense multiply-accumulates;
    ``noise`` is the sum of the units' own."""

    units: int
    share: float
    noise: float
    comparison: Comparison
    failures: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "macs_share": self.share,
            "noise": self.noise,
            "passed": not self.failures,
            "failures": list(self.failures),
            **self.comparison.to_dict(),
        }


@dataclass(frozen=True)
class Found:
    """``chosen`` units passed on the held-out questions, as ``best``; ``everything`` is all units in INT8, ``largest``
    the largest set that passed; ``trials`` is all that was tried."""

    chosen: list[Unit]
    best: Trial
    largest: Trial
    everything: Trial
    trials: list[Trial]


class Search:
    """Units by least noise for their work, as many as pass on ``held_out`` questions.

    Noise of units adds up nearly as if they were independent, so that a unit's price can be measured alone; whether a
    set of them passes is always measured.  ``effects`` and ``ranges`` are by the unit's key.
    """

    def __init__(
        self,
        trials: Trials,
        units: list[Unit],
        effects: dict[str, Effect],
        ranges: dict[str, dict[str, float]],
        held_out: list[Annotation],
        total_macs: int,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.trials, self.effects, self.ranges, self.held_out = trials, effects, ranges, held_out
        self.total_macs, self.say = total_macs, say
        self.order = sorted(units, key=lambda unit: self.noise([unit]) / unit.macs)
        self.tried: list[Trial] = []

    def noise(self, units: list[Unit]) -> float:
        return sum(self.effects[unit.key].noise for unit in units)

    def run(self, max_dice_drop: float, margin: float) -> Found | None:
        """None where no set that was tried passes.

        The largest set that passes lies at the edge of what a few hundred sentences can tell; what is chosen has a
        ``margin``-th of its noise.  That costs little, for noise is what a few layers make with little work.
        Raises :class:`InputError` where the held-out sentences can show nothing.
        """
        self.reference = self.trials.answers({}, self.held_out, "as it is")
        nothing = unjudged(compare_answers(self.reference, self.reference))
        if nothing:
            raise InputError(f"the held-out rows cannot judge INT8: {nothing}")
        everything = self._try(self.order, max_dice_drop)
        largest, low, high = everything, len(self.order), len(self.order)
        if everything.failures:
            low, passed = 0, None  # the first ``low`` units pass, the first ``high`` do not
            while high - low > 1:
                middle = (low + high) // 2
                trial = self._try(self.order[:middle], max_dice_drop)
                if trial.failures:
                    high = middle
                else:
                    low, passed = middle, trial
            if passed is None:
                return None
            largest = passed
        chosen, best, noise = self.order[:low], largest, largest.noise
        for _ in range(TRIES if margin > 1 else 0):
            noise /= margin
            fewer = self._within(noise)
            if not fewer:
                break
            if fewer != chosen:
                trial = self._try(fewer, max_dice_drop)
                if not trial.failures:
                    return Found(fewer, trial, largest, everything, self.tried)
        return Found(chosen, best, largest, everything, self.tried)

    def _within(self, noise: float) -> list[Unit]:
        """Units in their order, but those that would make more noise than this in all."""
        chosen: list[Unit] = []
        for unit in self.order:
            if self.noise([*chosen, unit]) <= noise:
                chosen.append(unit)
        return chosen

    def _try(self, chosen: list[Unit], max_dice_drop: float) -> Trial:
        share = sum(unit.macs for unit in chosen) / self.total_macs
        title = f"{len(chosen)} units, {share:.1%} of MACs"
        answers = self.trials.answers(merged(chosen, self.ranges), self.held_out, title)
        comparison = compare_answers(self.reference, answers)
        trial = Trial(len(chosen), share, self.noise(chosen), comparison, tuple(failures(comparison, max_dice_drop)))
        self.say(f"{title}: " + ("; ".join(trial.failures) or "within the budget"))
        self.tried.append(trial)
        return trial
