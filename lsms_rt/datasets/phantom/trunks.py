"""The vessels and ducts outside the liver, drawn as chains of straight tubes, and the adrenal glands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .organs import Organ, Value
from .patient import Patient, Plane
from .shapes import Array
from .spots import Blob, allowed
from .vessels import Tube, distance_to

Rng = np.random.Generator
_ON = frozenset((Organ.BODY, Organ.SOFT))
_ADRENAL = Value(20.0, ((Organ.AORTA, 0.25),))


@dataclass(frozen=True)
class Trunk:
    """Tubes of one label; ``tube.portal`` marks the portal system, whose HU differ from those of the hepatic veins."""

    tubes: tuple[Tube, ...]
    label: Organ


def draw_trunks(p: Patient, rng: Rng) -> list[Trunk]:
    """Draw the portal trunk with its roots, the arteries of the gut and the liver, renal veins and the bile duct."""
    u, height = rng.uniform, p.length_mm
    hilum = np.array([p.hilum[0] * p.ac, p.hilum[1] * p.bc, p.hilum_s * height])
    aorta = np.array([p.aorta[0], p.aorta[1], 0.0])
    low = (p.hilum_s + u(0.12, 0.22)) * height
    neck = np.array([u(-2, 10), aorta[1] - u(20, 32), low])
    spleen = np.array([(p.spleen.cx - 0.2) * p.ac, (p.spleen.cy - 0.05) * p.bc, p.spleen_s * height + 20])
    celiac = np.array([aorta[0], aorta[1] - p.aorta[2] - 14, low - u(20, 40)])
    root = np.array([aorta[0], aorta[1], celiac[2] + 3])
    sma_z = celiac[2] + u(10, 20)
    sma = np.array([aorta[0], aorta[1] - p.aorta[2] - u(8, 14), sma_z + 14])
    front = np.array([*(hilum[:2] + [-8.0, -4.0]), hilum[2]])
    trunks = [
        _trunk(rng, [hilum, neck], u(5.5, 9.0), Organ.VESSEL, True),
        _trunk(rng, [neck, neck + [0.0, 4.0, 0.6 * height]], u(4.5, 7.0), Organ.VESSEL, True),
        _trunk(rng, [neck, (neck + spleen) / 2 + [0.0, 8.0, 0.0], spleen], u(3.5, 6.0), Organ.VESSEL, True),
        _trunk(
            rng,
            [root, celiac, (celiac + hilum) / 2 + [0.0, -6.0, 0.0], hilum + [4.0, -6.0, 0.0]],
            u(1.5, 3),
            Organ.AORTA,
        ),
        _trunk(rng, [celiac, (celiac + spleen) / 2 + [0.0, 4.0, -8.0], spleen], u(1.3, 2.8), Organ.AORTA),
        _trunk(rng, [[aorta[0], aorta[1], sma_z], sma, sma + [0.0, -6.0, 0.6 * height]], u(2.5, 4.5), Organ.AORTA),
        _trunk(
            rng,
            [front, neck + [-16.0, 4.0, 0.0], neck + [-18.0, 8.0, 40.0]],
            u(5, 9) if rng.random() < 0.2 else u(1.5, 3.5),
            Organ.GALLBLADDER,
        ),
    ]
    for kidney in p.kidneys:
        z = kidney.s * height - u(0, 20)
        inner = [kidney.cu * p.ac - np.sign(kidney.cu) * 0.4 * kidney.rx, kidney.cv * p.bc, z]
        bend = [
            p.ivc.cx + 30 if kidney.cu > 0 else p.ivc.cx,
            aorta[1] - p.aorta[2] - 5 if kidney.cu > 0 else p.ivc.cy,
            z,
        ]
        trunks.append(_trunk(rng, [inner, bend, [p.ivc.cx, p.ivc.cy, z]], u(3, 5.5), Organ.IVC))
    return trunks


def _trunk(rng: Rng, points: Sequence[Array | list[float]], radius: float, label: Organ, portal: bool = False) -> Trunk:
    knots = [np.asarray(point, float) for point in points]
    knots[1:-1] = [knot + rng.normal(0, 3, 3) for knot in knots[1:-1]]
    return Trunk(tuple(Tube(a, b, radius, portal) for a, b in pairwise(knots)), label)


def draw_adrenals(p: Patient, rng: Rng) -> list[Blob]:
    """Draw two thin limbs per side, which meet in front."""
    blobs = []
    for side in (-1, 1):
        x, y = side * rng.uniform(28, 40), p.spine_y - p.spine_r * rng.uniform(0.2, 0.6)
        z, length, thick = rng.uniform(0.5, 0.7) * p.length_mm, rng.uniform(8, 14), rng.uniform(1.2, 2.4)
        for tilt in (1.1, 2.1):
            center = (x + 0.8 * length * np.cos(tilt), y + 0.8 * length * np.sin(tilt), z)
            blobs.append(Blob(center, (length, thick, 18), _ON, Organ.SOFT, _ADRENAL, tilt, decoy=False))
    return blobs


def paint_trunks(lab: Array, p: Patient, plane: Plane, trunks: list[Trunk]) -> Array:
    """Paint the trunks into fat and soft tissue; return the pixels of the portal system, bool (H, W)."""
    portal = np.zeros(lab.shape, bool)
    free = allowed(_ON)
    for trunk in trunks:
        for tube in trunk.tubes:
            found = distance_to(tube, p, plane)
            if found is None:
                continue
            box, squared = found
            hit = (squared < tube.radius**2) & free[lab[box]]
            lab[box][hit] = trunk.label
            if tube.portal:
                portal[box] |= hit
    return portal
