"""The chest wall: muscle layers parted by fat, ribs, costal cartilage and the sternum."""

from __future__ import annotations

import numpy as np

from .organs import Organ, Value
from .patient import Patient, Rib
from .shapes import Array, bump, oval
from .spots import OUTSIDE, Canvas, allowed, coverage

_WALL = frozenset((Organ.MUSCLE, Organ.BODY))
_CALCIUM, _CORTEX, _FAT = Value(320.0), Value(0.0, ((Organ.BONE, 1.0),)), Value(0.0, ((Organ.BODY, 1.0),))


def paint_layers(canvas: Canvas, wall_r: Array) -> None:
    """Paint lines of fat between the muscles of the wall; wall_r: float32 (H, W), 1 at its outer edge."""
    p, plane = canvas.p, canvas.plane
    gaps = p.layer.at(plane.s, plane.matrix)
    depth = (1 - wall_r) * np.float32(0.5 * (p.ac + p.bc) + p.wall)
    whole = (slice(0, plane.matrix), slice(0, plane.matrix))
    muscle = canvas.lab == Organ.MUSCLE
    for share, width in p.layers:
        # A layer thickens, thins and ends: where the noise is low there is none.
        inner = np.float32(0.5 * width) * (gaps + np.float32(0.4)) - np.abs(depth - np.float32(share * p.wall))
        cover = np.clip(inner / np.float32(canvas.pixel) + np.float32(0.5), 0, 1) * muscle * (gaps > -0.4)
        canvas.cover(whole, cover, Organ.BODY, _FAT)


def paint_chest(canvas: Canvas, p: Patient) -> None:
    """Paint ribs, cartilage and sternum within muscle and fat."""
    s = canvas.plane.s
    mid = (p.ac + 0.5 * p.wall, p.bc + 0.5 * p.wall)
    for rib in p.ribs:
        # The angle is counted from the back; there are no ribs at the midline in front, and caudally fewer in front.
        angle = p.rib_start + 0.36 * (abs(rib.k) + p.rib_rate * s)
        if angle < np.pi - 0.9 and not (angle > 2.2 and s > 0.6):
            _paint_rib(canvas, rib, mid, angle if rib.k >= 0 else -angle, False)
    for off, cartilage in p.cartilage:
        # The costal margin runs to the side caudally, and ends.
        angle = abs(off) + 0.9 * s
        if angle < 1.25:
            _paint_rib(canvas, cartilage, mid, np.pi - angle if off > 0 else angle - np.pi, p.cartilage_calcified)
    g = bump(s, 0.0, p.sternum_half)
    if g > 0.3:
        rx, ry = p.sternum_r
        _paint_oval(canvas, (0.0, -mid[1], rx * g, ry * g, 0.0), 90.0, 1.2, 0)


def _paint_rib(canvas: Canvas, rib: Rib, mid: tuple[float, float], angle: float, calcified: bool) -> None:
    x, y = mid[0] * np.sin(angle), mid[1] * np.cos(angle)
    tangent = float(np.arctan2(-mid[1] * np.sin(angle), mid[0] * np.cos(angle)))
    place = (float(x), float(y), rib.length, rib.thickness, tangent)
    _paint_oval(canvas, place, rib.core, rib.cortex, 0 if rib.cortex else OUTSIDE)
    if calcified:
        _paint_oval(
            canvas, (*place[:2], rib.length * 0.5, rib.thickness * 0.35, tangent), _CALCIUM.offset, 0.0, OUTSIDE
        )


def _paint_oval(
    canvas: Canvas, place: tuple[float, float, float, float, float], core: float, cortex: float, decoy: int
) -> None:
    """Paint an oval (x, y, half axes in mm, tilt) with its cortex in mm; a cortex of 0 means cartilage."""
    x, y, rx, ry, tilt = place
    box = canvas.p.box(canvas.plane.matrix, x, y, max(rx, ry))
    d = oval(canvas.plane.x[box], canvas.plane.y[box], x, y, rx, ry, tilt)
    free = allowed(_WALL | {Organ.SOFT} if decoy else _WALL)[canvas.lab[box]]
    whole = coverage(d, min(rx, ry), canvas.pixel) * free
    canvas.cover(box, whole, Organ.MARROW if cortex else Organ.SOFT, Value(core), decoy)
    if cortex:
        canvas.cover(box, whole - coverage(d, min(rx, ry), canvas.pixel, cortex) * free, Organ.BONE, _CORTEX)
