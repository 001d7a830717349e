"""An answer with what the analysis needs: where the mask lies, and what would have been without the presence rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.datasets.matching import Matched, match_lesions
from lsms_rt.datasets.questions import Answer, Question, answer_of
from lsms_rt.postprocess import dice

from .measured import Measured
from .surface import Surface, surface_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One answer.

    Attributes:
        answer: the answer.
        score: the model's highest probability in the slice, 0 to 1; None if the model gives none.
        dice_open: Dice of the mask before the rule that empties it below the engine's confidence; None if the model
            gives no probabilities.
        on_target: share of the predicted pixels on what the sentence means; None for an empty mask.
        on_others: share on other regions of the slice, which other sentences mean.
        meant: number of pixels of the true mask.
        understood: whether the model understands the sentence: "yes", "partly" or "no".
        lesions: the lesions of both masks, matched; None if that was not asked for.
        surface: agreement of the outlines; None if a mask is empty, the pixel spacing is unknown, or it was not asked
            for.
    """

    answer: Answer
    score: float | None
    dice_open: float | None
    on_target: float | None
    on_others: float | None
    meant: int
    understood: str = "yes"
    lesions: Matched | None = None
    surface: Surface | None = None

    @property
    def elsewhere(self) -> float | None:
        """Share of the predicted pixels on no region that any sentence about the slice means."""
        if self.on_target is None or self.on_others is None:
            return None
        return 1.0 - self.on_target - self.on_others


def judge(
    question: Question, result: Any, regions: NDArray[np.bool_], threshold: float | None, measured: Measured
) -> Judged:
    """Judge a result.

    Args:
        question: the sentence with its slice and true mask.
        result: a ``Segmentation``, or anything else with a ``mask``.
        regions: bool (H, W), all regions of the slice that a sentence means.
        threshold: the probability from which a pixel belongs to the mask; None if the model has none.
        measured: what is measured beyond Dice.
    """
    mask = result.mask
    pixels = int(np.count_nonzero(mask))
    probability = getattr(result, "probability", None)
    return Judged(
        answer=answer_of(question, mask),
        score=getattr(result, "score", None),
        dice_open=None if probability is None or threshold is None else dice(probability > threshold, question.truth),
        on_target=np.count_nonzero(mask & question.truth) / pixels if pixels else None,
        on_others=np.count_nonzero(mask & regions & ~question.truth) / pixels if pixels else None,
        meant=int(np.count_nonzero(question.truth)),
        understood=getattr(result, "understood", "yes"),
        lesions=match_lesions(mask, question.truth) if measured.lesions else None,
        surface=surface_of(mask, question.truth, question.ct, measured.tolerance_mm)
        if measured.tolerance_mm is not None
        else None,
    )
