"""How a lesion looks in each contrast phase: one function per type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .render import Scanner, Tissue
from .shapes import Array

Rng = np.random.Generator


@dataclass(frozen=True)
class Look:
    """The HU and edges of a lesion in one phase.  Bands are counted inwards from the edge."""

    base: float
    enhancement: str
    margin: str
    # Width of the edge as a fraction of the radius.
    softness: float
    # HU of the outer band.
    rim: float = 0.0
    rim_mm: float = 0.0
    # HU inside rho < core_rho.
    core: float = 0.0
    core_rho: float = 0.0
    # HU of internal texture.
    mosaic: float = 0.0
    # HU added outside the edge.
    halo: float = 0.0
    # (K, 4) center in ellipsoid coordinates, radius
    nodules: Array | None = None
    nodule_hu: float = 0.0
    # HU added on thin internal walls.
    septum: float = 0.0
    gas: bool = False


def contrast_needed(scanner: Scanner, diameter: float) -> float:
    """Return by how many HU a lesion must differ to be seen; small ones need more."""
    return max(15.0, 1.2 * scanner.sigma) * (1 + 2.0 / max(diameter, 3.0))


def _edge(rng: Rng, sharp: bool) -> dict[str, Any]:
    return (
        {"margin": "sharp", "softness": 0.03}
        if sharp
        else {"margin": "ill-defined", "softness": rng.uniform(0.22, 0.45)}
    )


def _cyst(rng: Rng, phase: str, t: Tissue, need: float) -> Look:
    return Look(rng.uniform(-5, 20), "none", **_edge(rng, True))


def _hemangioma(rng: Rng, phase: str, t: Tissue, need: float) -> Look:
    u = rng.uniform
    if phase == "noncontrast":
        return Look(u(26, 42), "none", **_edge(rng, True))
    if phase == "delayed":
        fill = max(t.blood * u(0.95, 1.1), t.liver + need * u(1.3, 1.8))
        if rng.random() < 0.6:
            return Look(fill, "homogeneous", **_edge(rng, True))
        return Look(fill, "heterogeneous", **_edge(rng, True), core=t.liver - u(10, 30), core_rho=u(0.3, 0.55))
    count = int(rng.integers(4, 9))
    away = rng.normal(size=(count, 3)) * [1, 1, 0.7]
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    size = u(0.2, 0.45, (count, 1))
    return Look(
        min(u(32, 55), t.liver - need * u(1.0, 1.4)),
        "nodular",
        **_edge(rng, True),
        nodules=np.hstack([away * (1 - 0.7 * size), size]),
        nodule_hu=max(t.blood * u(0.75, 1.0), t.liver + 2 * need),
    )


def _metastasis(rng: Rng, phase: str, t: Tissue, need: float) -> Look:
    u, edge = rng.uniform, _edge(rng, rng.random() < 0.12)
    dark = t.liver - max(need, 15) * u(1.2, 1.7) - u(0, 20)
    if phase == "noncontrast":
        return Look(dark if t.liver > 35 else t.liver + need * u(1.2, 1.6), "none", **edge)
    if phase == "arterial" and rng.random() < 0.25:
        return Look(t.liver + need * u(1.3, 2.2) + u(0, 25), "homogeneous", **edge)
    if rng.random() < 0.6:
        # A target: a thin bright ring, dark inside, darkest in the middle.
        rim = t.liver + need * u(0.7, 1.2) + u(5, 30)
        core = dark - u(5, 25)
        return Look(dark, "rim", **edge, rim=rim, rim_mm=u(1.5, 3.5), core=core, core_rho=u(0.35, 0.6))
    if rng.random() < 0.5:
        return Look(dark, "heterogeneous", **edge, mosaic=u(10, 18))
    return Look(min(dark, u(25, 48)), "none", **edge)


def _hcc(rng: Rng, phase: str, t: Tissue, need: float) -> Look:
    u, edge = rng.uniform, _edge(rng, rng.random() < 0.75)
    if phase == "noncontrast":
        return Look(t.liver - need * u(1.15, 1.4), "none", **edge)
    if phase == "arterial":
        base = t.liver + need * u(1.3, 1.8) + u(5, 50)
        if rng.random() < 0.5:
            return Look(base, "heterogeneous", **edge, mosaic=u(14, 30))
        return Look(base, "homogeneous", **edge)
    if rng.random() < 0.65:
        # Washed out, in a bright capsule.
        rim, base = t.liver + need + u(15, 45), t.liver - need * u(1.1, 1.5)
        return Look(base, "rim", **_edge(rng, True), rim=rim, rim_mm=u(1.5, 2.6), mosaic=u(4, 10))
    return Look(t.liver - need * u(1.15, 1.6), "heterogeneous", **edge, mosaic=u(10, 20))


def _abscess(rng: Rng, phase: str, t: Tissue, need: float) -> Look:
    u, plain = rng.uniform, phase == "noncontrast"
    return Look(
        min(u(8, 30), t.liver - need * u(1.3, 1.8)),
        "none" if plain else "rim",
        **_edge(rng, rng.random() < 0.4),
        rim=t.liver - u(2, 10) if plain else t.liver + need * u(0.8, 1.3) + u(5, 35),
        rim_mm=u(2.5, 6.5),
        halo=-u(8, 28),
        septum=u(25, 60) if not plain and rng.random() < 0.6 else 0.0,
        gas=rng.random() < 0.25,
    )


def _calcification(rng: Rng, phase: str, t: Tissue, need: float) -> Look:
    u = rng.uniform
    # Clearly brighter than a vessel: a dim one could be anything that enhances.
    base = max(u(150, 900) if rng.random() < 0.7 else u(250, 500), t.liver + 120)
    return Look(base, "none", **_edge(rng, True), mosaic=u(0, 60))


LOOKS: dict[str, Callable[[Rng, str, Tissue, float], Look]] = {
    "cyst": _cyst,
    "hemangioma": _hemangioma,
    "metastasis": _metastasis,
    "hcc": _hcc,
    "abscess": _abscess,
    "calcification": _calcification,
}


def draw_look(rng: Rng, type_: str, phase: str, t: Tissue, sc: Scanner, diameter: float) -> Look | None:
    """Draw a look that is visible against this liver; None if the type cannot be."""
    need = contrast_needed(sc, diameter)
    for _ in range(8):
        look = LOOKS[type_](rng, phase, t, need)
        # A ring must leave room for a center.
        if look.rim_mm > 0.16 * diameter:
            look = replace(look, rim_mm=0.16 * diameter)
        if look.base > -25 and abs(look.base - t.liver) >= need:
            return look
    return None
