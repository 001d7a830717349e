"""The image graph's logits -> a probability for every pixel of the user's grid; measures of a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .ct_slice import CtSlice
from .errors import EngineInvalidError
from .preprocess import Placement, resize

if TYPE_CHECKING:
    from numpy.typing import NDArray


def highest_probability(logits: NDArray[Any], placement: Placement) -> float:
    """The highest probability that the network gave to any place of the slice; logits are (S, S).

    Taken on the network's own grid: on the input's, "found" would depend on how finely a file is sampled.
    """
    return float(_sigmoid(_inside(logits, placement).max()))


def probability_in_grid(logits: NDArray[Any], placement: Placement, ct: CtSlice) -> NDArray[np.float32]:
    """logits (S, S), as for the tensor of `to_tensor` -> float32 (H, W) in [0, 1], in the input's own grid.

    Logits, not probabilities, are interpolated: an edge then falls where it should between two pixels.
    EngineInvalidError if the logits have another shape or are not finite.
    """
    x = resize(_inside(logits, placement), ct.hu.shape[0], ct.hu.shape[1])
    probability: NDArray[np.float32] = _sigmoid(ct.to_input_grid(x))
    return probability


def _inside(logits: NDArray[Any], placement: Placement) -> NDArray[np.float32]:
    """The part of the logits that shows the slice, checked."""
    size = placement.image_size
    if logits.shape != (size, size):
        raise EngineInvalidError(f"logits of shape {logits.shape}, not {(size, size)}; rebuild the engine")
    bad = int(logits.size - np.count_nonzero(np.isfinite(logits)))
    if bad:
        raise EngineInvalidError(f"{bad} of {logits.size} logits are NaN or infinite; rebuild with --precision fp32")
    top, left = placement.top, placement.left
    inside: NDArray[np.float32] = logits[top : top + placement.rows, left : left + placement.columns].astype(np.float32)
    return inside


def _sigmoid(x: Any) -> Any:
    return 0.5 + 0.5 * np.tanh(0.5 * x)  # in this form it cannot overflow


def area_mm2(mask: NDArray[np.bool_], spacing: tuple[float, float] | None) -> float | None:
    """Area of a mask (H, W) in mm2; None if the spacing (between rows, between columns, mm) is unknown."""
    return None if spacing is None else float(np.count_nonzero(mask)) * spacing[0] * spacing[1]


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """2 |a and b| / (|a| + |b|) of two masks of one shape; 1 if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 1.0 if total == 0 else 2.0 * int((a & b).sum()) / total


def verdict(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> str:
    """In words, how an answer compares with the true mask."""
    if not truth.any():
        return "wrong: nothing is there" if mask.any() else "right: nothing is there"
    return f"Dice {dice(mask, truth):.2f}" if mask.any() else "missed"


def bbox(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """(row0, col0, row1, col1) around a mask, half open: mask[row0:row1, col0:col1]; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
