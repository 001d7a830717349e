"""The scores of a model as a classifier: does the slice hold what the sentence means?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .judged import Judged

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Presence:
    """How well the scores tell true sentences from false ones; one operating point hides that it is a choice.

    Attributes:
        auroc: probability that a true sentence scores higher than a false one, ties counted half.
        silence_at_missed: {"5 %": share of false sentences below the score that 5 % of the true ones do not reach}.
        dice_at_silence: {"95 %": mean Dice of true sentences, if the lowest score were chosen that leaves 95 % of the
            false ones empty}; empty if the model gives no probabilities.
        missed_at_silence: {"95 %": share of true sentences below that score}.
        calibration_error: mean distance between score and share of true sentences, over ten bins of the score, weighted
            by their counts.
    """

    auroc: float
    silence_at_missed: dict[str, float]
    dice_at_silence: dict[str, float]
    missed_at_silence: dict[str, float]
    calibration_error: float


def presence_of(true: list[Judged], false: list[Judged]) -> Presence | None:
    """Judge the scores of true and false sentences; None if there are none of one kind, or the model has no scores."""
    present, absent = (np.array([one.score for one in group if one.score is not None]) for group in (true, false))
    if len(present) < len(true) or len(absent) < len(false) or not (true and false):
        return None
    opened = [one.dice_open for one in true if one.dice_open is not None]
    dice_at, missed_at = {}, {}
    for share in (0.90, 0.95):
        # From this score on, a mask is kept; "higher": scores that are equal are not split.
        least = float(np.nextafter(np.quantile(absent, share, method="higher"), np.inf))
        kept = present >= least
        missed_at[f"{share:.0%}"] = float(np.mean(~kept))
        if len(opened) == len(true):
            dice_at[f"{share:.0%}"] = float(np.mean(np.where(kept, opened, 0.0)))
    return Presence(
        auroc=_auroc(present, absent),
        silence_at_missed={
            f"{share:.0%}": float(np.mean(absent < np.quantile(present, share, method="lower")))
            for share in (0.05, 0.10)
        },
        dice_at_silence=dice_at,
        missed_at_silence=missed_at,
        calibration_error=_calibration_error(present, absent),
    )


def _auroc(present: np.ndarray, absent: np.ndarray) -> float:
    ordered = np.sort(absent)
    below = np.searchsorted(ordered, present, "left") + np.searchsorted(ordered, present, "right")
    return float(below.mean() / (2 * len(absent)))


def _calibration_error(present: np.ndarray, absent: np.ndarray) -> float:
    scores = np.concatenate([present, absent])
    truth = np.concatenate([np.ones(len(present)), np.zeros(len(absent))])
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    error = sum(abs(scores[bins == n].sum() - truth[bins == n].sum()) for n in range(BINS))
    return float(error / len(scores))
