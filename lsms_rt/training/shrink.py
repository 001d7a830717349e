"""Labels on another grid."""

from __future__ import annotations

import numpy as np


def resized(labels: np.ndarray, size: int) -> np.ndarray:
    """Return square labels uint8 as (size, size), each that of the nearest pixel.

    Every label keeps a pixel at least: without it, a sentence about a lesion that lies between the pixels would teach
    silence.
    """
    side = len(labels)
    small = sampled(labels, size)
    for lost in np.flatnonzero(_counts(labels).astype(bool) & (_counts(small) == 0)):
        points = np.argwhere(labels == lost)
        row, column = points[len(points) // 2] * size // side
        small[row, column] = lost
    return small


def sampled(labels: np.ndarray, size: int) -> np.ndarray:
    """Return square labels as (size, size), each that of the nearest pixel; small ones may be lost."""
    nearest = ((np.arange(size) + 0.5) * len(labels) / size).astype(int)
    return labels[np.ix_(nearest, nearest)]


def _counts(labels: np.ndarray) -> np.ndarray:
    return np.bincount(labels.ravel(), minlength=256)
