"""Decoys: what looks like a lesion outside the liver: cysts, stones, nodes, calcium, metal.  No sentence means them.

Their looks vary more than in nature: only lying in the liver must distinguish a lesion from the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .organs import Organ, Value
from .patient import Patient
from .spots import Blob

Rng = np.random.Generator
_KIDNEY = frozenset((Organ.KIDNEY, Organ.MEDULLA))
_FAT = frozenset((Organ.BODY,))
_SOFT = frozenset((Organ.BODY, Organ.SOFT))
_BONY = frozenset((Organ.MARROW, Organ.BONE))
_LUMEN = frozenset((Organ.CONTENT,))


def draw_decoys(p: Patient, rng: Rng) -> list[Blob]:
    """Draw the decoys of one patient: each kind in a share of patients, few or many of it."""
    blobs: list[Blob] = []
    for share, mean, draw in _KINDS:
        if rng.random() < share:
            blobs += [draw(p, rng) for _ in range(1 + rng.poisson((mean - 1) * rng.uniform(0.2, 1.8)))]
    return blobs


def _ball(
    rng: Rng, x: float, y: float, z: float, r: float
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the center and radii of a nearly round blob of radius r mm."""
    rx, ry, rz = r * np.exp(rng.normal(0, (0.12, 0.12, 0.2)))
    return (x, y, z), (float(rx), float(ry), float(rz))


def _log(rng: Rng, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _fluid(rng: Rng) -> Value:
    return Value(rng.uniform(-10, 35))


def _calcium(rng: Rng) -> Value:
    return Value(_log(rng, 180, 1200))


def _tissue(rng: Rng) -> Value:
    """Draw a value from unenhanced to as bright as blood."""
    return (
        Value(rng.uniform(15, 70))
        if rng.random() < 0.5
        else Value(rng.uniform(10, 35), ((Organ.AORTA, rng.uniform(0.2, 0.9)),))
    )


def _renal_cyst(p: Patient, rng: Rng) -> Blob:
    k = p.kidneys[int(rng.integers(2))]
    angle, r = rng.uniform(0, 2 * np.pi), _log(rng, 2.5, 22)
    # At the kidney's edge, bulging into the fat; small ones also inside.
    out = rng.uniform(0.5, 1.05)
    x, y = k.cu * p.ac + out * k.rx * np.cos(angle), k.cv * p.bc + out * k.ry * np.sin(angle)
    z = (k.s + rng.uniform(-0.7, 0.3) * k.half) * p.length_mm
    value = _fluid(rng) if rng.random() < 0.75 else _tissue(rng)
    return Blob(*_ball(rng, x, y, z, r), _KIDNEY | _FAT, Organ.SOFT, value)


def _in_spleen(p: Patient, rng: Rng) -> tuple[float, float, float]:
    o = p.spleen
    x = (o.cx + rng.uniform(-0.6, 0.6) * o.rx) * p.ac
    y = (o.cy + rng.uniform(-0.7, 0.7) * o.ry) * p.bc
    return x, y, (p.spleen_s + rng.uniform(-0.7, 0.7) * p.spleen_half) * p.length_mm


def _splenic_lesion(p: Patient, rng: Rng) -> Blob:
    value = _fluid(rng) if rng.random() < 0.5 else Value(rng.uniform(-50, 40), ((Organ.SPLEEN, 1.0),))
    ring = rng.random() < 0.2
    rim = Value(rng.uniform(10, 50), ((Organ.SPLEEN, 1.0),)) if ring else None
    place = _ball(rng, *_in_spleen(p, rng), _log(rng, 2.5, 16))
    return Blob(*place, frozenset((Organ.SPLEEN,)), Organ.SOFT, value, rim=rim, rim_mm=rng.uniform(1.5, 3))


def _granuloma(p: Patient, rng: Rng) -> Blob:
    return Blob(
        *_ball(rng, *_in_spleen(p, rng), rng.uniform(1.2, 3.5)), frozenset((Organ.SPLEEN,)), Organ.BONE, _calcium(rng)
    )


def _central(p: Patient, rng: Rng) -> tuple[float, float, float]:
    """Draw a place near the great vessels or the liver's hilum."""
    if rng.random() < 0.5:
        x, y = p.hilum[0] * p.ac + rng.normal(0, 14), p.hilum[1] * p.bc + rng.normal(0, 9)
        return x, y, (p.hilum_s + rng.normal(0, 0.12)) * p.length_mm
    return p.aorta[0] + rng.normal(-5, 28), p.aorta[1] + rng.normal(-4, 14), rng.uniform(0.3, 1.0) * p.length_mm


def _node(p: Patient, rng: Rng) -> Blob:
    place, radii = _ball(rng, *_central(p, rng), _log(rng, 2.5, 9))
    rim = Value(rng.uniform(10, 30), ((Organ.AORTA, 0.5),)) if rng.random() < 0.25 else None
    return Blob(place, radii, _SOFT, Organ.SOFT, _tissue(rng), rng.uniform(0, 3), rim, rng.uniform(1, 2.5))


def _calcified_node(p: Patient, rng: Rng) -> Blob:
    return Blob(*_ball(rng, *_central(p, rng), _log(rng, 1.5, 6)), _SOFT, Organ.BONE, _calcium(rng))


def _gallstone(p: Patient, rng: Rng) -> Blob:
    g = p.gallbladder
    k = rng.uniform(0.4, 0.75)
    (px, py), (gx, gy) = (p.ivc.cx, p.ivc.cy), (p.fossa[0] * p.ac, p.fossa[1] * p.bc)
    x, y = px + (gx - px) * k + rng.normal(0, 4), py + (gy - py) * k + rng.normal(0, 5)
    z = (g.s + rng.uniform(-0.6, 0.6) * g.half) * p.length_mm
    value = _calcium(rng) if rng.random() < 0.5 else Value(rng.uniform(-60, 160))
    rim = _calcium(rng) if rng.random() < 0.4 else None
    place = _ball(rng, x, y, z, _log(rng, 1.5, 8))
    return Blob(*place, frozenset((Organ.GALLBLADDER,)), Organ.BONE, value, rim=rim, rim_mm=rng.uniform(0.8, 2))


def _in_vertebra(p: Patient, rng: Rng) -> tuple[float, float, float]:
    x, y = rng.uniform(-0.8, 0.8) * p.spine_r, p.spine_y + rng.uniform(-0.6, 0.6) * p.spine_r
    return x, y, rng.uniform(0, 1) * p.length_mm


def _bone_island(p: Patient, rng: Rng) -> Blob:
    return Blob(*_ball(rng, *_in_vertebra(p, rng), _log(rng, 1.5, 6)), _BONY, Organ.BONE, Value(rng.uniform(450, 1100)))


def _bone_defect(p: Patient, rng: Rng) -> Blob:
    """A hemangioma of a vertebra, or a metastasis: darker than marrow."""
    place = _ball(rng, *_in_vertebra(p, rng), _log(rng, 3, 12))
    return Blob(
        *place,
        _BONY,
        Organ.SOFT,
        Value(rng.uniform(-40, 100)),
        rim=Value(300) if rng.random() < 0.3 else None,
        rim_mm=1.5,
    )


def _adrenal_nodule(p: Patient, rng: Rng) -> Blob:
    side = rng.choice((-1, 1))
    x, y = side * rng.uniform(26, 44), p.spine_y - p.spine_r * rng.uniform(0.1, 0.7)
    value = Value(rng.uniform(-20, 40)) if rng.random() < 0.6 else _tissue(rng)
    return Blob(*_ball(rng, x, y, rng.uniform(0.45, 0.8) * p.length_mm, _log(rng, 4, 18)), _SOFT, Organ.SOFT, value)


def _bowel_loop(p: Patient, rng: Rng) -> Blob:
    """A bowel loop full of fluid, or with feces, often close to the liver."""
    x, y = rng.uniform(-0.75, 0.7) * p.ac, rng.uniform(-0.8, 0.4) * p.bc
    (cx, cy, cz), (rx, ry, rz) = _ball(rng, x, y, rng.uniform(0.35, 1.0) * p.length_mm, _log(rng, 6, 18))
    rim = Value(rng.uniform(30, 60), ((Organ.AORTA, rng.uniform(0.0, 0.4)),))
    radii = (rx * rng.uniform(1, 1.8), ry, rz * rng.uniform(1, 2))
    value = _fluid(rng) if rng.random() < 0.7 else Value(rng.uniform(-200, 200))
    on = frozenset((Organ.BODY, Organ.BOWEL, Organ.CONTENT))
    return Blob((cx, cy, cz), radii, on, Organ.CONTENT, value, rng.uniform(0, 3), rim, rng.uniform(1.2, 3))


def _pill(p: Patient, rng: Rng) -> Blob:
    o = p.stomach
    x = (o.cx + rng.uniform(-0.7, 0.7) * o.rx) * p.ac
    y = (o.cy + rng.uniform(-0.5, 0.8) * o.ry) * p.bc
    place, (rx, ry, rz) = _ball(rng, x, y, (0.25 + rng.normal(0, 0.15)) * p.length_mm, rng.uniform(2.5, 5))
    return Blob(place, (rx * 1.6, ry, rz), _LUMEN, Organ.BONE, Value(rng.uniform(150, 1800)), rng.uniform(0, 3))


def _food(p: Patient, rng: Rng) -> Blob:
    """A lump or a bubble in the stomach's content."""
    o = p.stomach
    x = (o.cx + rng.uniform(-0.8, 0.8) * o.rx) * p.ac
    y = (o.cy + rng.uniform(-0.5, 0.9) * o.ry) * p.bc
    place = _ball(rng, x, y, (0.25 + rng.normal(0, 0.2)) * p.length_mm, _log(rng, 2.5, 9))
    value = Value(rng.uniform(-120, 160)) if rng.random() < 0.7 else Value(rng.uniform(-950, -300))
    return Blob(*place, _LUMEN, Organ.CONTENT, value)


def _clip(p: Patient, rng: Rng) -> Blob:
    """A surgical clip, or the end of a drain or a stent."""
    place, (rx, ry, rz) = _ball(rng, *_central(p, rng), rng.uniform(0.9, 1.8))
    on = _SOFT | {Organ.GALLBLADDER}
    return Blob(place, (rx * 2.5, ry, rz * 2.5), on, Organ.BONE, Value(rng.uniform(1200, 3000)), rng.uniform(0, 3))


def _lung_nodule(p: Patient, rng: Rng) -> Blob:
    x, y = rng.uniform(-0.95, 0.95) * p.ac, rng.uniform(-0.3, 0.95) * p.bc
    place = _ball(rng, x, y, rng.uniform(0, p.s_lung) * p.length_mm, _log(rng, 2.5, 12))
    return Blob(*place, frozenset((Organ.LUNG,)), Organ.SOFT, _tissue(rng))


def _wall_nodule(p: Patient, rng: Rng) -> Blob:
    """A lipoma in muscle, or a node or a scar in the fat under the skin."""
    angle, fat = rng.uniform(0, 2 * np.pi), rng.random() < 0.4
    out = 0.5 * p.wall if fat else p.wall + rng.uniform(0.1, 0.9) * p.fat
    x, y = (p.ac + out) * np.sin(angle), (p.bc + out) * np.cos(angle)
    place = _ball(rng, x, y, rng.uniform(0, 1) * p.length_mm, _log(rng, 2.5, 9))
    if fat:
        return Blob(*place, frozenset((Organ.MUSCLE,)), Organ.BODY, Value(rng.uniform(-110, -80)))
    return Blob(*place, _FAT, Organ.SOFT, _tissue(rng))


def _peritoneal_nodule(p: Patient, rng: Rng) -> Blob:
    x, y = rng.uniform(-0.9, 0.9) * p.ac, rng.uniform(-0.9, 0.5) * p.bc
    place = _ball(rng, x, y, rng.uniform(0.2, 1.0) * p.length_mm, _log(rng, 2.5, 12))
    return Blob(*place, _FAT, Organ.SOFT, _tissue(rng) if rng.random() < 0.8 else _fluid(rng))


def _pancreatic_cyst(p: Patient, rng: Rng) -> Blob:
    x, y = rng.uniform(-0.1, 0.4) * p.ac, rng.uniform(-0.1, 0.12) * p.bc
    place = _ball(rng, x, y, (p.hilum_s + 0.12 + rng.normal(0, 0.06)) * p.length_mm, _log(rng, 2.5, 14))
    return Blob(*place, _SOFT, Organ.SOFT, _fluid(rng) if rng.random() < 0.7 else _tissue(rng))


def _aortic_calcium(p: Patient, rng: Rng) -> Blob:
    """A plaque in the aorta's wall."""
    ax, ay, ar = p.aorta
    angle, out = rng.uniform(0, 2 * np.pi), ar + rng.uniform(-1.2, 0.6)
    center = (ax + out * np.cos(angle), ay + out * np.sin(angle), rng.uniform(0, 1) * p.length_mm)
    radii = (rng.uniform(1.5, 7), rng.uniform(0.8, 1.8), rng.uniform(3, 15))
    on = frozenset((Organ.AORTA, Organ.BODY, Organ.MUSCLE))
    return Blob(center, radii, on, Organ.BONE, _calcium(rng), angle + np.pi / 2)


# The share of patients that have the kind, their mean number of it, and the function that draws one.
_KINDS: tuple[tuple[float, float, Callable[[Patient, Rng], Blob]], ...] = (
    (0.70, 10, _renal_cyst),
    (0.45, 6, _splenic_lesion),
    (0.15, 12, _granuloma),
    (0.80, 14, _node),
    (0.40, 8, _calcified_node),
    (0.45, 14, _aortic_calcium),
    (0.50, 8, _gallstone),
    (0.40, 7, _bone_island),
    (0.30, 5, _bone_defect),
    (0.35, 2, _adrenal_nodule),
    (0.70, 10, _bowel_loop),
    (0.25, 4, _pill),
    (0.50, 20, _food),
    (0.25, 10, _clip),
    (0.50, 14, _lung_nodule),
    (0.60, 14, _wall_nodule),
    (0.60, 16, _peritoneal_nodule),
    (0.30, 3, _pancreatic_cyst),
)
