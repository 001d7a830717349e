"""Lesions: their 3-D shapes, and how they are painted with a look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .looks import Look
from .shapes import Array

# Smaller sections do not count as lesions.
MIN_DIAMETER_MM, MIN_PIXELS = 3.0, 4


@dataclass(frozen=True)
class Shape:
    """A perturbed ellipsoid; mm in the image frame, z caudal."""

    # (3,)
    center: Array
    # (3,)
    radii: Array
    # Radians in the axial plane.
    tilt: float
    # (K, 3) angular wave vectors of the boundary's harmonics
    waves: Array
    # (K,)
    phases: Array
    # (K,)
    amps: Array

    def local(self, x: Array, y: Array, z: float) -> tuple[Array, Array]:
        """Return (rho, p): rho (h, w) is < 1 inside; p (h, w, 3) holds the ellipsoid's own coordinates."""
        c, s = np.cos(self.tilt), np.sin(self.tilt)
        dx, dy = x - self.center[0], y - self.center[1]
        dz = np.full(dx.shape, z - self.center[2])
        p = np.stack([(c * dx + s * dy), (c * dy - s * dx), dz], -1) / self.radii
        r = np.sqrt((p * p).sum(-1)) + 1e-6
        bend = np.cos((p / r[..., None]) @ self.waves.T + self.phases) @ self.amps
        return r / (1 + bend), p


def draw_shape(rng: np.random.Generator, center: Array, diameter: float, type_: str) -> Shape:
    """Draw a random shape whose in-slice equivalent diameter is about `diameter` mm."""
    e = np.exp(rng.normal(0, 0.13))
    radii = diameter / 2 * np.array([e, 1 / e, rng.uniform(0.9, 1.8)])
    lumpy = type_ in ("abscess", "hemangioma") or (type_ in ("hcc", "metastasis") and rng.random() < 0.35)
    k = 5
    waves = rng.normal(0, 3.2 if lumpy else 2.0, (k, 3))
    amps = rng.uniform(0.5, 1.0, k) * (rng.uniform(0.035, 0.085) if lumpy else rng.uniform(0.01, 0.04))
    return Shape(center, radii, rng.uniform(0, np.pi), waves, rng.uniform(0, 2 * np.pi, k), amps)


def paint(hu: Array, shape: Shape, look: Look, x: Array, y: Array, z: float, liver: Array, gain: float) -> Array:
    """Paint one lesion into `hu` (h, w, in place, HU) within `liver` (h, w bool).

    x, y (h, w) are mm; `gain` scales its contrast.  Returns rho (h, w), < 1 inside.
    """
    rho, p = shape.local(x, y, z)
    mean_r = float(np.mean(shape.radii[:2]))
    depth = (1 - rho) * mean_r
    value = np.full(rho.shape, look.base)
    wave = np.cos(p @ shape.waves.T * 2.2 + shape.phases * 3)
    if look.mosaic:
        value += look.mosaic * wave.sum(-1) * 0.63
    if look.core_rho:
        value = np.where(rho < look.core_rho, look.core, value)
    if look.septum:
        value += look.septum * (np.abs(wave[..., :2].sum(-1)) < 0.22)
    if look.gas:
        bubble = (rho < 0.6) & (p[..., 1] < -0.15) & (wave[..., 2] > 0.2)
        value = np.where(bubble, -500.0, value)
    if look.nodules is not None:
        for cx, cy, cz, r in look.nodules:
            hit = (p[..., 0] - cx) ** 2 + (p[..., 1] - cy) ** 2 + (p[..., 2] - cz) ** 2 < r * r
            value = np.where(hit & (depth > 0), look.nodule_hu, value)
    if look.rim_mm:
        value = np.where(depth < look.rim_mm, look.rim, value)
    alpha = np.clip((1 + look.softness * 0.4 - rho) / look.softness, 0, 1)
    if look.halo:
        hu += np.where(liver & (rho > 1), look.halo * np.exp(-(((rho - 1) * mean_r / 4.5) ** 2)), 0)
    edge = np.where(liver, alpha, 0)
    local = np.median(hu[liver]) if liver.any() else look.base
    hu += edge * (local + gain * (value - local) - hu)
    return rho
