"""How far the outline of a mask lies from the true one, by the package surface-distance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lsms_rt.calibration.bounds import interval_by_case
from lsms_rt.ct_slice import CtSlice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .judged import Judged

# Outlines nearer than this agree: about what two readers differ by.
TOLERANCE_MM = 2.0
TOLERANCES_MM = (0.0, 100.0)
PERCENT = 95


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Agreement of two outlines.

    Attributes:
        nsd: normalized surface distance (surface Dice): the share of the length of both outlines that lies within the
            tolerance of the other one, 0 to 1.
        hd95_mm: the distance to the other outline that 95 % of an outline's length does not exceed, in mm; of the two
            outlines the larger one.
    """

    nsd: float
    hd95_mm: float


@dataclass(frozen=True, kw_only=True)
class SurfaceFigures:
    """Means over the true sentences with a mask, in slices with a known pixel spacing; None of none.

    A distance to an outline that does not exist has no value, so an empty mask is counted and not averaged.

    Attributes:
        tolerance_mm: for ``nsd``.
        measured: number of sentences that the means are of.
        empty: number of true sentences that are left out because their predicted mask is empty.
        without_spacing: number of other true sentences that are left out because their slice has no pixel spacing.
        nsd: mean normalized surface distance.
        hd95_mm: mean HD95.
        hd95_median_mm: median HD95: a mask on another lesion is far away, and rules the mean.
        intervals: 95 % intervals of ``nsd`` and ``hd95_mm`` by resampling cases.
    """

    tolerance_mm: float
    measured: int
    empty: int
    without_spacing: int
    nsd: float | None
    hd95_mm: float | None
    hd95_median_mm: float | None
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)


def surface_of(mask: NDArray[np.bool_], truth: NDArray[np.bool_], ct: CtSlice, tolerance_mm: float) -> Surface | None:
    """Compare two outlines.

    Args:
        mask: bool (H, W) in the input's grid, predicted.
        truth: bool (H, W), the true mask.
        ct: the slice that both are of.
        tolerance_mm: for the normalized surface distance.

    Returns:
        The agreement; None if a mask is empty or the pixel spacing is unknown.
    """
    if ct.spacing_mm is None or not (mask.any() and truth.any()):
        return None
    import surface_distance

    spacing = ct.spacing_mm[::-1] if ct.transposed else ct.spacing_mm
    with warnings.catch_warnings():
        # It imports from namespaces that SciPy 2 removes; the extra "metrics" asks for an earlier one.
        warnings.simplefilter("ignore", DeprecationWarning)
        distances = surface_distance.compute_surface_distances(truth, mask, spacing)
    return Surface(
        nsd=float(surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm)),
        hd95_mm=float(surface_distance.compute_robust_hausdorff(distances, PERCENT)),
    )


def surface_figures(true: Sequence[Judged], tolerance_mm: float) -> SurfaceFigures:
    """Return the means over the answers to true sentences."""
    found = [(one.answer.row.case_id, one.surface) for one in true if one.surface is not None]
    empty = sum(not one.answer.predicted_nonempty for one in true)
    nsd, hd95 = [(case, one.nsd) for case, one in found], [(case, one.hd95_mm) for case, one in found]
    return SurfaceFigures(
        tolerance_mm=tolerance_mm,
        measured=len(found),
        empty=empty,
        without_spacing=len(true) - empty - len(found),
        nsd=float(np.mean([value for _, value in nsd])) if found else None,
        hd95_mm=float(np.mean([value for _, value in hd95])) if found else None,
        hd95_median_mm=float(np.median([value for _, value in hd95])) if found else None,
        intervals={"nsd": interval_by_case(nsd), "hd95_mm": interval_by_case(hd95)},
    )
