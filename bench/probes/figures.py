"""Outcomes of probes as one row per attribute and per what the new sentence is true of."""

from __future__ import annotations

from typing import Any

from lsms_rt.bench.accuracy.evaluate import mean
from lsms_rt.calibration.bounds import interval_by_case
from lsms_rt.datasets.refhl import Annotation

from .ask import ANOTHER, EMPTY, MOVED, NOTHING, OTHER, SAME, Outcome, Probed
from .words import ATTRIBUTES

# What the changed sentence is true of -> what a model does that obeys every word.
WANTED = {ANOTHER: MOVED, NOTHING: EMPTY}
# Of fewer cases, a bootstrap knows too little of what other cases are like.
LEAST_CASES = 10
# One-sided, as all that was seen lies at one end.
CONFIDENCE = 0.975


def probe_figures(asked: list[Annotation], probed: Probed) -> dict[str, Any]:
    """Return what a record of probes holds, in plain types.

    Args:
        asked: the rows that were probed, true and false.
        probed: the outcomes.

    Returns:
        Counts of ``cases``, ``slices``, ``sentences``; ``meanings``, ``without_meaning`` and ``unanswered`` as in
        :class:`~lsms_rt.bench.probes.ask.Probed`; and ``rows``, see :func:`probe_rows`.
    """
    return {
        "cases": len({row.case_id for row in asked}),
        "slices": len({row.image for row in asked}),
        "sentences": len(asked),
        "meanings": probed.meanings,
        "without_meaning": probed.without_meaning,
        "unanswered": probed.unanswered,
        "rows": probe_rows(probed),
    }


def probe_rows(probed: Probed) -> list[dict[str, Any]]:
    """Return one row per attribute and per what the new sentence is true of.

    Each has the ``attribute`` and what the new sentence is ``true_of``; ``named``, the number of sentences that name
    the attribute; ``not_found``, for how many of them no other value is known; ``without_mask``, for how many the
    first mask is empty; ``probes`` and ``cases``, what the figures are of; ``dice_before``, ``dice_new`` and
    ``dice_between``, means as in :class:`~lsms_rt.bench.probes.ask.Outcome`; the shares ``moved``, ``empty``, ``same``
    and ``other``, which add up to 1; and 95 % intervals by resampling cases of ``dice_new``, of ``same`` and of
    ``wanted``, the share that a model reaches that obeys every word; None of fewer than ten cases.
    """
    return [
        _row(probed, attribute, true_of)
        for attribute in ATTRIBUTES
        for true_of in (ANOTHER, NOTHING)
        if probed.named[attribute]
    ]


def _row(probed: Probed, attribute: str, true_of: str) -> dict[str, Any]:
    found = [one for one in probed.outcomes if (one.attribute, one.true_of) == (attribute, true_of)]
    wanted = WANTED[true_of]
    new = [(one.case_id, one.dice_new) for one in found if one.dice_new is not None]
    return {
        "attribute": attribute,
        "true_of": true_of,
        "named": probed.named[attribute],
        "not_found": probed.not_found[attribute, true_of],
        "without_mask": probed.without_mask[attribute, true_of],
        "probes": len(found),
        "cases": len({one.case_id for one in found}),
        "dice_before": mean([one.dice_before for one in found]),
        "dice_new": mean([value for _, value in new]),
        "dice_between": mean([one.dice_between for one in found]),
        **{verdict: mean([one.verdict == verdict for one in found]) for verdict in (MOVED, EMPTY, SAME, OTHER)},
        "dice_new_interval": _interval(new),
        "same_interval": _interval(_is(found, SAME)),
        "wanted_interval": _interval(_is(found, wanted)),
    }


def _is(outcomes: list[Outcome], verdict: str) -> list[tuple[str, float]]:
    return [(one.case_id, float(one.verdict == verdict)) for one in outcomes]


def _interval(values: list[tuple[str, float]]) -> tuple[float, float] | None:
    cases = len({case for case, _ in values})
    if cases < LEAST_CASES:
        return None
    numbers = {value for _, value in values}
    if numbers <= {0.0} or numbers <= {1.0}:
        # Resampling equal values shows nothing: the exact interval (Clopper-Pearson), as if each case were one probe.
        edge = 1 - (1 - CONFIDENCE) ** (1 / cases)
        return (0.0, edge) if numbers == {0.0} else (1 - edge, 1.0)
    return interval_by_case(values)
