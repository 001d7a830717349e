"""Smooth functions that organs are made of: ovals, profiles along the body, and random fields."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
# Noise planes over the liver's height: about one per 30 mm.
_Z_KNOTS = 7
# B-spline interpolation leaves about this much of the deviation of the knots.
_SMOOTHING = 0.48


@dataclass(frozen=True)
class Ellipse:
    """An ellipse: center, half axes and tilt (radians), in the frame that its user states."""

    cx: float
    cy: float
    rx: float
    ry: float
    tilt: float = 0.0


def spline_basis(matrix: int, knots: int) -> Array:
    """Return cubic B-spline weights B, float32 (matrix, knots), so that B @ coarse @ B.T upsamples."""
    t = np.linspace(1.0, knots - 2.0, matrix)[:, None] - np.arange(knots)[None, :]
    a = np.abs(t)
    w = np.where(a < 1, 2 / 3 - a**2 + a**3 / 2, np.where(a < 2, (2 - a) ** 3 / 6, 0.0))
    return w.astype(np.float32)


class NoiseField:
    """A smooth random function of (x, y, s) with a standard deviation near 1."""

    def __init__(self, rng: np.random.Generator, knots: int, planes: int = _Z_KNOTS) -> None:
        self._planes = rng.standard_normal((planes, knots, knots)).astype(np.float32) / _SMOOTHING
        self._basis: dict[int, Array] = {}

    def at(self, s: float, matrix: int) -> Array:
        """Return the field at height s, float32 (matrix, matrix)."""
        p, _, knots = self._planes.shape
        if matrix not in self._basis:
            self._basis[matrix] = spline_basis(matrix, knots)
        # Just under the last plane, so that i + 1 exists.
        f = min(max(s, 0.0), 1.0) * (p - 1.001)
        i, w = int(f), f - int(f)
        # cos and sin, not 1 - w and w: the deviation stays the same between two independent planes.
        plane = self._planes[i] * np.cos(w * np.pi / 2) + self._planes[i + 1] * np.sin(w * np.pi / 2)
        b = self._basis[matrix]
        field: Array = b @ plane.astype(np.float32) @ b.T
        return field


def ramp(x: float) -> float:
    """Return a smooth step from 0 to 1 over [0, 1]."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def bump(s: float, center: float, half: float) -> float:
    """Return a half-ellipse profile: 1 at the center, 0 outside center +- half."""
    return float(max(1.0 - ((s - center) / half) ** 2, 0.0) ** 0.5)


def oval(x: Array, y: Array, cx: float, cy: float, rx: float, ry: float, tilt: float = 0.0) -> Array:
    """Return the normalized radius around a tilted ellipse: < 1 inside.  Same shape as x and y."""
    c, s = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    radius: Array = np.sqrt(((c * dx + s * dy) / np.float32(rx)) ** 2 + ((c * dy - s * dx) / np.float32(ry)) ** 2)
    return radius
