"""Lesions: their 3-D shapes, their looks by type and phase, and how they are painted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .render import Scanner, Tissue
from .shapes import Array

TYPES = ("cyst", "hemangioma", "metastasis", "hcc", "abscess", "calcification")
MIN_DIAMETER_MM, MIN_PIXELS = 3.0, 4  # a section smaller than this is not said to be there


@dataclass(frozen=True)
class Shape:
    """A perturbed ellipsoid; mm in the image frame, z caudal."""

    centre: Array  # (3,)
    radii: Array  # (3,)
    tilt: float  # radians in the axial plane
    waves: Array  # (K, 3) angular wave vectors of the boundary's harmonics
    phases: Array  # (K,)
    amps: Array  # (K,)

    def local(self, x: Array, y: Array, z: float) -> tuple[Array, Array]:
        """(rho, p): rho (h, w) is < 1 inside; p (h, w, 3) the ellipsoid's own coordinates."""
        c, s = np.cos(self.tilt), np.sin(self.tilt)
        dx, dy = x - self.centre[0], y - self.centre[1]
        dz = np.full(dx.shape, z - self.centre[2])
        p = np.stack([(c * dx + s * dy), (c * dy - s * dx), dz], -1) / self.radii
        r = np.sqrt((p * p).sum(-1)) + 1e-6
        bend = np.cos((p / r[..., None]) @ self.waves.T + self.phases) @ self.amps
        return r / (1 + bend), p


@dataclass(frozen=True)
class Look:
    """HU and edges of a lesion in one phase. Bands are counted inwards from the edge."""

    base: float
    enhancement: str
    margin: str
    softness: float  # width of the edge as a fraction of the radius
    rim: float = 0.0  # HU of the outer band
    rim_mm: float = 0.0
    core: float = 0.0  # HU inside rho < core_rho
    core_rho: float = 0.0
    mosaic: float = 0.0  # HU of internal texture
    halo: float = 0.0  # HU added outside the edge
    nodules: Array | None = None  # (K, 4) centre in ellipsoid coordinates, radius
    nodule_hu: float = 0.0
    septum: float = 0.0  # HU added on thin internal walls
    gas: bool = False


def draw_shape(rng: np.random.Generator, centre: Array, diameter: float, type_: str) -> Shape:
    """A random shape whose in-slice equivalent diameter is about `diameter` mm."""
    e = np.exp(rng.normal(0, 0.13))
    radii = diameter / 2 * np.array([e, 1 / e, rng.uniform(0.9, 1.8)])
    lumpy = type_ in ("abscess", "hemangioma") or (type_ in ("hcc", "metastasis") and rng.random() < 0.35)
    k = 5
    waves = rng.normal(0, 3.2 if lumpy else 2.0, (k, 3))
    amps = rng.uniform(0.5, 1.0, k) * (rng.uniform(0.035, 0.085) if lumpy else rng.uniform(0.01, 0.04))
    return Shape(centre, radii, rng.uniform(0, np.pi), waves, rng.uniform(0, 2 * np.pi, k), amps)


def contrast_needed(scanner: Scanner, diameter: float) -> float:
    """HU a lesion must differ by to be seen; small ones need more."""
    return max(15.0, 1.2 * scanner.sigma) * (1 + 2.0 / max(diameter, 3.0))


def _edge(rng: np.random.Generator, sharp: bool) -> dict[str, Any]:
    return (
        {"margin": "sharp", "softness": 0.03}
        if sharp
        else {"margin": "ill-defined", "softness": rng.uniform(0.22, 0.45)}
    )


def _draw(rng: np.random.Generator, type_: str, phase: str, t: Tissue, need: float) -> Look:
    u, liver, plain = rng.uniform, t.liver, phase == "noncontrast"
    dark = liver - max(need, 15) * u(1.2, 1.7) - u(0, 20)
    if type_ == "cyst":
        return Look(u(-5, 20), "none", **_edge(rng, True))
    if type_ == "calcification":
        return Look(u(150, 900) if rng.random() < 0.7 else u(250, 500), "none", **_edge(rng, True), mosaic=u(0, 60))
    if type_ == "hemangioma":
        if plain:
            return Look(u(26, 42), "none", **_edge(rng, True))
        if phase == "delayed":
            fill = max(t.blood * u(0.95, 1.1), liver + need * u(1.3, 1.8))
            full = rng.random() < 0.6
            core = 0.0 if full else u(0.3, 0.55)
            return Look(
                fill,
                "homogeneous" if full else "heterogeneous",
                **_edge(rng, True),
                core=liver - u(10, 30),
                core_rho=core,
            )
        k = int(rng.integers(4, 9))
        d = rng.normal(size=(k, 3)) * [1, 1, 0.7]
        d /= np.linalg.norm(d, axis=1, keepdims=True)
        size = u(0.2, 0.45, (k, 1))
        nod = np.hstack([d * (1 - 0.7 * size), size])
        hu = max(t.blood * u(0.75, 1.0), liver + 2 * need)
        return Look(
            min(u(32, 55), liver - need * u(1.0, 1.4)),
            "nodular",
            **_edge(rng, True),
            nodules=nod,
            nodule_hu=hu,
        )
    if type_ == "metastasis":
        edge = _edge(rng, rng.random() < 0.12)
        if plain:
            return Look(dark if liver > 35 else liver + need * u(1.2, 1.6), "none", **edge)
        if phase == "arterial" and rng.random() < 0.25:
            return Look(liver + need * u(1.3, 2.2) + u(0, 25), "homogeneous", **edge)
        if rng.random() < 0.6:  # target: bright thin ring, dark centre, darkest middle
            return Look(
                dark,
                "rim",
                **edge,
                rim=liver + u(8, 45),
                rim_mm=u(1.5, 3.5),
                core=dark - u(5, 25),
                core_rho=u(0.35, 0.6),
            )
        if rng.random() < 0.5:
            return Look(dark, "heterogeneous", **edge, mosaic=u(10, 18))
        return Look(min(dark, u(25, 48)), "none", **edge)
    if type_ == "hcc":
        edge = _edge(rng, rng.random() < 0.75)
        if plain:
            return Look(liver - need * u(1.15, 1.4), "none", **edge)
        if phase == "arterial":
            het = rng.random() < 0.5
            base = liver + need * u(1.3, 1.8) + u(5, 50)
            return Look(base, "heterogeneous" if het else "homogeneous", **edge, mosaic=u(14, 30) if het else 0.0)
        if rng.random() < 0.65:
            return Look(
                liver - need * u(1.1, 1.5),
                "rim",
                **_edge(rng, True),
                rim=liver + need + u(15, 45),
                rim_mm=u(1.5, 2.6),
                mosaic=u(4, 10),
            )
        return Look(liver - need * u(1.15, 1.6), "heterogeneous", **edge, mosaic=u(10, 20))
    rim = liver - u(2, 10) if plain else liver + need * u(0.8, 1.3) + u(5, 35)
    base = min(u(8, 30), liver - need * u(1.3, 1.8))
    return Look(
        base,
        "none" if plain else "rim",
        **_edge(rng, rng.random() < 0.4),
        rim=rim,
        rim_mm=u(2.5, 6.5),
        halo=-u(8, 28),
        septum=u(25, 60) if not plain and rng.random() < 0.6 else 0.0,
        gas=rng.random() < 0.25,
    )


def draw_look(rng: np.random.Generator, type_: str, phase: str, t: Tissue, sc: Scanner, diameter: float) -> Look | None:
    """A look that is visible against this liver, or None when the type cannot be."""
    need = contrast_needed(sc, diameter)
    for _ in range(8):
        look = _draw(rng, type_, phase, t, need)
        if look.rim_mm > 0.16 * diameter:  # a ring must leave room for a centre
            look = replace(look, rim_mm=0.16 * diameter)
        if look.base > -25 and abs(look.base - t.liver) >= need:
            return look
    return None


def paint(hu: Array, shape: Shape, look: Look, x: Array, y: Array, z: float, liver: Array, gain: float) -> Array:
    """Paints one lesion into `hu` (h, w, in place, HU) within `liver` (h, w bool).

    x, y (h, w) are mm; `gain` scales its contrast. Returns rho (h, w).
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
