"""What an engine may lose against its reference: the accuracy budget, and when there is not enough data to judge.

A loss counts as allowed only if the data exclude a greater one, so few sentences never help an engine.  Gains never pay
for lesions that are lost.
"""

from __future__ import annotations

from collections.abc import Iterator

from .bounds import least_n
from .statistics import FOUND_DICE, SMALL_MM, Comparison

# Multiples of the budget for mean Dice.  At its default, 0.01, 500 sentences of a phantom can show each of them.
MISSED, SMALL_MISSED, FALSE_POSITIVES = 3, 15, 7
# Mean Dice of the reference; below it, a loss cannot be detected.
MIN_DICE = 0.1
# Positive sentences.
MIN_POSITIVE = 10
# Cases with positive sentences: with fewer, the interval of the mean Dice drop is too narrow, and a rare kind of lesion
# may be absent.
MIN_CASES = 40
# Lesions below SMALL_MM that the reference finds; of fewer, not the bound of what is lost is judged, but the estimate.
MIN_SMALL = 30
# Of fewer small lesions, one that is lost may be chance.
MIN_SMALL_MISSED = 2
_SMALL_MISSED_NAME = f"lesions below {SMALL_MM:.0f} mm are newly missed"


def failures(comparison: Comparison, max_dice_drop: float) -> list[str]:
    """List how an engine exceeds the budget.

    - The 95 % interval of the drop of mean Dice must end at ``max_dice_drop`` or below.
    - Of the lesions that the reference finds, at most three times that share may be newly missed, of those below 10 mm
      fifteen times, and of the negative sentences for which the reference's mask is empty, seven times that share may
      become false positives.  Each is judged by its one-sided 95 % upper bound.
    - Of fewer than 30 lesions below 10 mm, two or more may not be newly missed if their share exceeds the same limit.

    Returns:
        one line per failure, with the figures; empty if the engine passes.
    """
    return [line for line, _ in _exceeded(comparison, max_dice_drop)]


def only_bounds_exceeded(comparison: Comparison, max_dice_drop: float) -> bool:
    """Return whether there are failures, and every estimate is within the budget: more data may show that all is."""
    exceeded = [by_estimate for _, by_estimate in _exceeded(comparison, max_dice_drop)]
    return bool(exceeded) and not any(exceeded)


def _exceeded(comparison: Comparison, max_dice_drop: float) -> Iterator[tuple[str, bool]]:
    """Yield every failure, and whether the estimate itself exceeds the budget, not only its bound."""
    dice, interval = comparison.dice, comparison.dice_drop_interval
    if dice is not None:
        # Without an interval there is no verdict, see nothing_to_lose, but a measured loss is reported.
        loss = dice.drop if interval is None else interval[1]
        # Written so that NaN fails.
        if not loss <= max_dice_drop:
            line = (
                f"mean Dice changes from {dice.reference:.4f} to {dice.engine:.4f}, and a drop by {loss:.4f} is not "
                f"excluded (allowed: {max_dice_drop:.4f}; {dice.n} sentences)"
            )
            yield line, not dice.drop <= max_dice_drop
    for name, times, events, n, bound in _counts(comparison):
        share = allowed(times, max_dice_drop)
        # Without an event, a bound that is too high means too little data; see cannot_judge and unchecked.
        if events and bound > share:
            line = f"{events} of {n} {name}, and up to {bound:.1%} are not excluded (allowed: {share:.1%})"
            yield line, events > share * n
    small, share = comparison.small_found, allowed(SMALL_MISSED, max_dice_drop)
    if small.n < MIN_SMALL and small.newly_missed >= MIN_SMALL_MISSED and small.newly_missed > share * small.n:
        yield f"{small.newly_missed} of {small.n} {_SMALL_MISSED_NAME} (allowed: {share:.1%})", True


def _counts(comparison: Comparison) -> Iterator[tuple[str, int, int, int, float]]:
    """Yield name, multiple of the budget, events, of how many, and upper bound of every count with a bound."""
    for name, lesions, times, least in (
        ("lesions are newly missed", comparison.found, MISSED, 1),
        (_SMALL_MISSED_NAME, comparison.small_found, SMALL_MISSED, MIN_SMALL),
    ):
        if lesions.n >= least:
            yield name, times, lesions.newly_missed, lesions.n, lesions.bound
    empty = comparison.emptiness
    if empty is not None:
        name = "negative sentences become false positives"
        yield name, FALSE_POSITIVES, empty.new_false_positives, empty.reference, empty.bound


def allowed(times: int, max_dice_drop: float) -> float:
    """Return a share that may be lost: ``times`` the budget for mean Dice, at most 1."""
    return min(1.0, times * max_dice_drop)


def nothing_to_lose(comparison: Comparison) -> str:
    """Return why these sentences cannot show any loss of accuracy; empty if they can."""
    dice = comparison.dice
    count = 0 if dice is None else dice.n
    if dice is None or count < MIN_POSITIVE:
        return f"only {count} positive sentences (whose true mask is not empty), at least {MIN_POSITIVE} are needed"
    if comparison.dice_drop_interval is None:
        return "all positive sentences are of one case, so how much mean Dice varies between cases is unknown"
    if dice.reference < MIN_DICE:
        return (
            f"the reference has a mean Dice of {dice.reference:.3f} on these slices, too low to detect a loss "
            f"(at least {MIN_DICE} is needed)"
        )
    return ""


def cannot_judge(comparison: Comparison, max_dice_drop: float) -> str:
    """Return all reasons why these sentences cannot show that an engine stays within the budget; empty if they can."""
    share = allowed(MISSED, max_dice_drop)
    reasons = list(filter(None, [nothing_to_lose(comparison)]))
    if comparison.positive_cases < MIN_CASES:
        reasons.append(
            f"only {comparison.positive_cases} cases have positive sentences, at least {MIN_CASES} are needed"
        )
    if comparison.found.n < least_n(share):
        reasons.append(
            f"the reference finds only {comparison.found.n} lesions (Dice of at least {FOUND_DICE}), at least "
            f"{least_n(share)} are needed to exclude that more than {share:.1%} are newly missed"
        )
    return "; ".join(reasons)


def unchecked(comparison: Comparison, max_dice_drop: float) -> list[str]:
    """List what :func:`failures` could not check for lack of data, one line each."""
    found = []
    if comparison.without_spacing:
        found.append(
            f"{comparison.without_spacing} lesions have an unknown size, because their images have no pixel spacing: "
            f"those below {SMALL_MM:.0f} mm are not checked separately"
        )
    if comparison.small_found.n < MIN_SMALL:
        found.append(
            f"the reference finds {comparison.small_found.n} lesions below {SMALL_MM:.0f} mm: too few to exclude a "
            f"loss (at least {MIN_SMALL} are needed)"
        )
    needed = least_n(allowed(FALSE_POSITIVES, max_dice_drop))
    count = 0 if comparison.emptiness is None else comparison.emptiness.reference
    if count < needed:
        found.append(
            f"the reference's mask is empty for {count} negative sentences: too few to check for false positives "
            f"(at least {needed} are needed)"
        )
    return found
