"""Turn logits into a probability for every pixel of the input's grid, and measure masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .ct_slice import CtSlice
from .errors import EngineInvalidError
from .preprocess import Placement, resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The logit of what the network has not seen, outside of the body: probability 0.
OUTSIDE = -100.0


def highest_probability(logits: NDArray[Any], placement: Placement) -> float:
    """Return the highest probability in the slice.

    It is taken on the network's own grid: on the input's, "found" would depend on how finely a file is sampled.

    Args:
        logits: (S, S), of the tensor that ``to_tensor`` made.
        placement: where the slice is in that tensor.
    """
    return float(_sigmoid(_inside(logits, placement).max()))


def probability_in_grid(logits: NDArray[Any], placement: Placement, ct: CtSlice) -> NDArray[np.float32]:
    """Resample logits to the input's grid and return probabilities.

    Logits, not probabilities, are interpolated, which puts an edge at its true position between two pixels.

    Args:
        logits: (S, S), of the tensor that ``to_tensor`` made.
        placement: where the slice is in that tensor.
        ct: the slice.

    Returns:
        float32 (H, W) in [0, 1], in the input's own grid.

    Raises:
        EngineInvalidError: the logits have another shape, or are not finite.
    """
    top, left, bottom, right = placement.box
    x = np.full(ct.hu.shape, OUTSIDE, np.float32)
    x[top:bottom, left:right] = resize(_inside(logits, placement), bottom - top, right - left)
    probability: NDArray[np.float32] = _sigmoid(ct.to_input_grid(x))
    return probability


def _inside(logits: NDArray[Any], placement: Placement) -> NDArray[np.float32]:
    """Crop the logits to the slice (without padding) and validate them."""
    size = placement.image_size
    if logits.shape != (size, size):
        raise EngineInvalidError(
            f"the engine returned logits of shape {logits.shape}, not {(size, size)}; rebuild it: lsms-rt build-engine"
        )
    bad = int(logits.size - np.count_nonzero(np.isfinite(logits)))
    if bad:
        raise EngineInvalidError(f"{bad} of {logits.size} logits are NaN or infinite; rebuild with --precision fp32")
    top, left = placement.top, placement.left
    inside: NDArray[np.float32] = logits[top : top + placement.rows, left : left + placement.columns].astype(np.float32)
    return inside


def _sigmoid(x: Any) -> Any:
    # This form cannot overflow.
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def area_mm2(mask: NDArray[np.bool_], spacing: tuple[float, float] | None) -> float | None:
    """Return the area of a mask in mm2; None if the spacing is unknown.

    Args:
        mask: bool (H, W).
        spacing: mm (between rows, between columns).
    """
    return None if spacing is None else float(np.count_nonzero(mask)) * spacing[0] * spacing[1]


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient of two masks of the same shape, 2 |a and b| / (|a| + |b|); 1 if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def verdict(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> str:
    """Compare a predicted mask with the true mask, in words."""
    if not truth.any():
        return "false positive" if mask.any() else "correct: no lesion to find"
    return f"Dice {dice(mask, truth):.2f}" if mask.any() else "missed"


def bbox(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Return (row0, column0, row1, column1) around a mask, half open; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
