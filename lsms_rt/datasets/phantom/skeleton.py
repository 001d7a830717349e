"""Spine and ribs, and what lies beside the body: arms and the table."""

from __future__ import annotations

import numpy as np

from .organs import Organ
from .patient import Patient, Plane
from .shapes import Array, bump, oval

_CORTEX_MM = 1.7  # of a rib


def paint_spine(lab: Array, p: Patient, plane: Plane) -> None:
    """A vertebra or a disc, with its arch and processes and the spinal canal."""
    x, y, sy, sr = plane.x, plane.y, p.spine_y, p.spine_r
    phase = (plane.s * p.length_mm / p.disc + p.spine_phase) % 1.0  # 0 where a disc begins
    arch = oval(x, y, 0, sy + sr * 0.85 + 9, 15, 11.5) < 1
    spinous = (np.abs(x) < 3.5) & (y > sy + sr * 0.85 + 14) & (y < sy + sr + 26 + 14 * phase)
    transverse = (np.abs(y - (sy + sr * 0.75 + 10) - 0.25 * np.abs(x) + 3) < 4.5) & (
        np.abs(x) < 12 + 22 * bump(phase, 0.4, 0.35)
    )
    lab[arch | spinous | transverse] = Organ.BONE
    d = oval(x, y, 0, sy, sr * 1.12, sr * 0.86)
    lab[d < 1] = Organ.BONE
    lab[d < (0.97 if phase < 0.15 else 0.90)] = Organ.SOFT if phase < 0.12 else Organ.MARROW
    lab[oval(x, y, 0, sy + sr * 0.86 + 9, 10, 8) < 1] = Organ.CANAL


def paint_ribs(lab: Array, p: Patient, plane: Plane, wall_r: Array) -> None:
    """Ribs cut obliquely; wall_r: float32 (H, W), 1 at the outside of the abdominal wall."""
    mid = (p.ac + 0.5 * p.wall, p.bc + 0.5 * p.wall)
    ring = np.abs(wall_r - (1 - 0.45 * p.wall / mid[0])) < 0.16  # near the wall: only there can ribs be, which is fast
    rows, cols = np.nonzero(ring)
    x, y = plane.x[rows, cols], plane.y[rows, cols]
    for rib in p.ribs:
        k = rib.k
        th = p.rib_start + 0.36 * (abs(k) + p.rib_rate * plane.s)  # angle from the back
        if th > np.pi - 0.35 or (th > 2.2 and plane.s > 0.6):  # none at the front midline, fewer in front caudally
            continue
        cx, cy = np.sign(k) * mid[0] * np.sin(th) if k else mid[0] * np.sin(th), mid[1] * np.cos(th)
        tangent = np.arctan2(-mid[1] * np.sin(th), (1 if k >= 0 else -1) * mid[0] * np.cos(th))
        d = oval(x, y, cx, cy, rib.length, rib.thickness, tangent)
        hit = d < 1
        lab[rows[hit], cols[hit]] = Organ.BONE
        core = d < 1 - _CORTEX_MM / rib.thickness
        lab[rows[core], cols[core]] = Organ.MARROW


def paint_outside(lab: Array, p: Patient, plane: Plane, body_r: Array) -> None:
    """Arms and table, where this patient's scan shows them; body_r as in AnatomySlice."""
    x, y = plane.x, plane.y
    if p.arms.on:
        r = p.arms.r
        for sx in (-1, 1):
            d = oval(x, y, sx * (p.ac + p.wall + p.fat + r * 1.05), p.arms.v * p.bc, r, r * 1.2)
            free = body_r >= 1
            for limit, organ in ((1, Organ.BODY), (0.82, Organ.MUSCLE), (0.34, Organ.BONE), (0.2, Organ.MARROW)):
                lab[free & (d < limit)] = organ
    if p.table:
        top = p.bc + p.wall + p.fat * 1.1 + 5
        dist = np.abs(y - top + 0.0006 * x * x - 3)  # slightly hollow
        lab[(body_r >= 1) & (dist < 1.5) & (np.abs(x) < 200)] = Organ.TABLE
