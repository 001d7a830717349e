"""What an engine may lose against its reference: the accuracy budget, and when there is not enough data to judge."""

from __future__ import annotations

import math

from .statistics import SMALL_MM, Comparison

# Mean Dice of the reference; below it, a loss cannot be detected.
MIN_DICE = 0.1
# Positive sentences.
MIN_POSITIVE = 10
# Negative sentences for which the reference's mask is empty.
MIN_EMPTY = 10


def failures(comparison: Comparison, max_dice_drop: float) -> list[str]:
    """List how an engine exceeds the budget.

    Mean Dice may drop by ``max_dice_drop``, that of lesions below 10 mm by twice as much.  Of the negative sentences
    for which the reference's mask is empty, the same share may become false positives (``allowed_false_positives``).

    Returns:
        one line per failure, with the figures; empty if the engine passes.
    """
    found = []
    for name, dice, max_drop in (
        ("mean Dice", comparison.dice, max_dice_drop),
        (f"mean Dice of lesions below {SMALL_MM:.0f} mm", comparison.small, 2 * max_dice_drop),
    ):
        # Written so that NaN fails.
        if dice is not None and not dice.drop <= max_drop:
            found.append(
                f"{name} drops from {dice.reference:.4f} to {dice.engine:.4f}, by {dice.drop:.4f} (allowed: "
                f"{max_drop:.4f}; {dice.n} sentences)"
            )
    empty = comparison.emptiness
    if empty is not None:
        allowed = allowed_false_positives(empty.reference, max_dice_drop)
        if empty.new_false_positives > allowed:
            found.append(
                f"{empty.new_false_positives} of {empty.reference} negative sentences become false positives "
                f"(allowed: {allowed}, {max_dice_drop:.1%} rounded up)"
            )
    return found


def cannot_judge(comparison: Comparison) -> str:
    """Return why these sentences cannot show a loss of accuracy; empty if they can."""
    dice = comparison.dice
    count = 0 if dice is None else dice.n
    if dice is None or count < MIN_POSITIVE:
        return f"only {count} positive sentences (whose true mask is not empty), at least {MIN_POSITIVE} are needed"
    if dice.reference < MIN_DICE:
        return (
            f"the reference has a mean Dice of {dice.reference:.3f} on these slices, too low to detect a loss "
            f"(at least {MIN_DICE} is needed)"
        )
    return ""


def unchecked(comparison: Comparison) -> list[str]:
    """List what :func:`failures` could not check for lack of data, one line each."""
    found = []
    if comparison.without_spacing:
        found.append(
            f"{comparison.without_spacing} lesions have an unknown size, because their images have no pixel spacing: "
            f"those below {SMALL_MM:.0f} mm are not checked separately"
        )
    elif comparison.small is None:
        found.append(f"no lesion is below {SMALL_MM:.0f} mm")
    empty = comparison.emptiness
    count = 0 if empty is None else empty.reference
    if count < MIN_EMPTY:
        found.append(
            f"the reference's mask is empty for {count} negative sentences: too few to check for false positives "
            f"(at least {MIN_EMPTY} are needed)"
        )
    return found


def allowed_false_positives(sentences: int, share: float) -> int:
    """Return ``share`` of ``sentences``, rounded up.

    One false positive is always allowed: a mask at the confidence threshold is decided by rounding, in float16 too.
    """
    return math.ceil(share * sentences - 1e-9)
