"""Search for the largest set of INT8 units within an accuracy budget, with a safety margin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lsms_rt.datasets.questions import Answer, questions
from lsms_rt.datasets.refhl import Annotation
from lsms_rt.errors import InputError

from .candidate import Candidates
from .policy import failures, nothing_to_lose, unchecked
from .recipe import Ranges
from .sensitivity import Sensitivity, Unit, ranges_of_units
from .statistics import Comparison, compare_answers

# Smaller sets to try; if none passes, the largest set that passed is selected.
MAX_MARGIN_TRIALS = 4


@dataclass(frozen=True)
class Trial:
    """One set of units, and how it changed the answers to the held-out sentences.

    Attributes:
        units: number of units.
        share: their part of all dense multiply-accumulates.
        noise: sum of the noise of each unit alone.
        comparison: the answers compared with those of the unchanged engine.
        failures: why the set exceeds the budget; empty if it passes.
        unchecked: what could not be checked for lack of data, one line each.
    """

    units: int
    share: float
    noise: float
    comparison: Comparison
    failures: tuple[str, ...]
    unchecked: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON."""
        return {
            "units": self.units,
            "macs_share": self.share,
            "noise": self.noise,
            "passed": not self.failures,
            "failures": list(self.failures),
            **self.comparison.to_dict(),
        }


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Attributes:
        units: the selected units.
        selected: the trial of those, which passed.
        largest: the trial of the largest set that passed.
        all_units: the trial of all units in INT8.
        trials: all trials in order, including the three above.
    """

    units: list[Unit]
    selected: Trial
    largest: Trial
    all_units: Trial
    trials: list[Trial]


class Search:
    """Adds units in order of noise per multiply-accumulate, as many as pass on the held-out sentences.

    The noise of units adds up nearly as if they were independent, so each can be measured alone; whether a set of them
    passes is always measured.

    Args:
        candidates: the engine.
        sensitivity: the units to choose from, their effects and ranges.
        held_out: rows that judge a set; neither ranges nor effects were measured on them.
        status: called with one line after every trial.
    """

    def __init__(
        self,
        candidates: Candidates,
        sensitivity: Sensitivity,
        held_out: list[Annotation],
        status: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.candidates, self.effects, self.ranges = candidates, sensitivity.effects, sensitivity.ranges
        self.held_out, self.status = held_out, status
        self.order = sorted(sensitivity.units, key=lambda unit: self._noise([unit]) / unit.macs)
        self.trials: list[Trial] = []

    def run(self, max_dice_drop: float, margin: float) -> SearchResult | None:
        """Search; None if no set that was tried passes.

        The largest set that passes is at the limit of what a few hundred sentences can resolve, so the selected set has
        at most 1 / ``margin`` of its noise.  That costs little, because most noise comes from a few layers with few
        multiply-accumulates.

        Args:
            max_dice_drop: the budget, as in ``policy.failures``.
            margin: 1 or more; 1 selects the largest set that passes.

        Raises:
            InputError: there is not enough data in the held-out rows to judge INT8.
        """
        self.reference = self._answers({}, "unchanged engine")
        reason = nothing_to_lose(compare_answers(self.reference, self.reference))
        if reason:
            raise InputError(
                f"there is not enough data to judge INT8: {reason}; use another --held-out-split, or data set"
            )
        all_units = self._try(self.order, max_dice_drop)
        if all_units.failures:
            count, largest = self._largest(max_dice_drop)
        else:
            count, largest = len(self.order), all_units
        if largest is None:
            return None
        units, selected = self._with_margin(self.order[:count], largest, max_dice_drop, margin)
        return SearchResult(units, selected, largest, all_units, self.trials)

    def _largest(self, max_dice_drop: float) -> tuple[int, Trial | None]:
        """Bisect for the number of units, in order, that pass: the first ``low`` do, the first ``high`` do not."""
        low, high, largest = 0, len(self.order), None
        while high - low > 1:
            middle = (low + high) // 2
            trial = self._try(self.order[:middle], max_dice_drop)
            if trial.failures:
                high = middle
            else:
                low, largest = middle, trial
        return low, largest

    def _with_margin(
        self, units: list[Unit], largest: Trial, max_dice_drop: float, margin: float
    ) -> tuple[list[Unit], Trial]:
        """Try sets with ever less noise until one passes."""
        noise = largest.noise
        for _ in range(MAX_MARGIN_TRIALS if margin > 1 else 0):
            noise /= margin
            fewer = self._within(noise)
            if not fewer:
                break
            if fewer != units:
                trial = self._try(fewer, max_dice_drop)
                if not trial.failures:
                    return fewer, trial
        return units, largest

    def _within(self, max_noise: float) -> list[Unit]:
        """Take units in order, and skip every unit that would raise the total noise above ``max_noise``."""
        units: list[Unit] = []
        for unit in self.order:
            if self._noise([*units, unit]) <= max_noise:
                units.append(unit)
        return units

    def _answers(self, ranges: Ranges, title: str) -> list[Answer]:
        asked = questions(self.held_out)
        return [run.answer for run in self.candidates.run(ranges, asked, title, len(self.held_out))]

    def _noise(self, units: list[Unit]) -> float:
        return sum(self.effects[unit.key].noise for unit in units)

    def _try(self, units: list[Unit], max_dice_drop: float) -> Trial:
        share = sum(unit.macs for unit in units) / self.candidates.total_macs
        title = f"{len(units)} units, {share:.1%} of MACs"
        comparison = compare_answers(self.reference, self._answers(ranges_of_units(units, self.ranges), title))
        trial = Trial(
            units=len(units),
            share=share,
            noise=self._noise(units),
            comparison=comparison,
            failures=tuple(failures(comparison, max_dice_drop)),
            unchecked=tuple(unchecked(comparison, max_dice_drop)),
        )
        self.status(f"{title}: " + ("; ".join(trial.failures) or "within the budget"))
        self.trials.append(trial)
        return trial
