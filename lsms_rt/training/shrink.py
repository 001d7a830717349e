"""Labels on another grid."""

from __future__ import annotations

import numpy as np


def resized(labels: np.ndarray, size: int) -> np.ndarray:
    """Return square labels uint8 as (size, size), each that of the nearest pixel.

    Every label keeps a pixel at least: without it, a sentence about a lesion that lies between the pixels would teach
    silence.
    """
    side = len(labels)
    nearest = ((np.arange(size) + 0.5) * side / size).astype(int)
    small = labels[np.ix_(nearest, nearest)]
    for lost in np.flatnonzero(_counts(labels).astype(bool) & (_counts(small) == 0)):
        points = np.argwhere(labels == lost)
        row, column = points[len(points) // 2] * size // side
        small[row, column] = lost
    return small


def _counts(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels.ravel(), minlength=256)
