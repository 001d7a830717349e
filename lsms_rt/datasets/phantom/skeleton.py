"""The spine, and what lies outside the body: arms and the table."""

from __future__ import annotations

import numpy as np

from .organs import Organ, Value
from .patient import Patient, Plane
from .shapes import Array, bump, oval
from .spots import Canvas, coverage


def paint_spine(canvas: Canvas) -> None:
    """Paint a vertebra or a disc, with its arch, its processes and the spinal canal."""
    p, pixel = canvas.p, canvas.pixel
    sy, sr = p.spine_y, p.spine_r
    box = p.box(canvas.plane.matrix, 0, sy + 15, 55)
    lab, plane = canvas.lab[box], canvas.plane.cut(box)
    x, y = plane.x, plane.y
    # 0 where a disc begins.
    phase = (plane.s * p.length_mm / p.disc + p.spine_phase) % 1.0
    arch = oval(x, y, 0, sy + sr * 0.85 + 9, 15, 11.5) < 1
    spinous = (np.abs(x) < 3.5) & (y > sy + sr * 0.85 + 14) & (y < sy + sr + 26 + 14 * phase)
    transverse = (np.abs(y - (sy + sr * 0.75 + 10) - 0.25 * np.abs(x) + 3) < 4.5) & (
        np.abs(x) < 12 + 22 * bump(phase, 0.4, 0.35)
    )
    lab[arch | spinous | transverse] = Organ.BONE
    d = oval(x, y, 0, sy, sr * 1.12, sr * 0.86)
    lab[d < 1] = Organ.SOFT if phase < 0.12 else Organ.MARROW
    canal = oval(x, y, 0, sy + sr * 0.86 + 9, 10, 8) < 1
    if phase >= 0.12:
        shell = coverage(d, sr, pixel) - coverage(d, sr, pixel, p.vertebra_cortex * (0.4 if phase < 0.15 else 1.0))
        canvas.cover(box, shell * ~canal, Organ.BONE, Value(0.0, ((Organ.BONE, 1.0),)))
    lab[canal] = Organ.CANAL


def paint_outside(lab: Array, p: Patient, plane: Plane, body_r: Array) -> None:
    """Paint arms and table, if this patient's scan shows them; body_r as in AnatomySlice."""
    x, y = plane.x, plane.y
    if p.arms.on:
        r = p.arms.r
        for sx in (-1, 1):
            d = oval(x, y, sx * (p.ac + p.wall + p.fat + r * 1.05), p.arms.v * p.bc, r, r * 1.2)
            free = body_r >= 1
            for limit, organ in ((1, Organ.BODY), (0.82, Organ.MUSCLE), (0.34, Organ.BONE), (0.2, Organ.MARROW)):
                lab[free & (d < limit)] = organ
    if p.table:
        air = body_r >= 1
        top = p.bc + p.wall + p.fat * 1.1 + 5
        dist = np.abs(y - top + 0.0006 * x * x - 3)
        lab[air & (dist < 1.5) & (np.abs(x) < 200)] = Organ.TABLE
        if p.table == 2:
            below = np.abs(y - top - 3 - p.table_depth * (1 - (x / 210) ** 2) + 0.0006 * 210**2)
            lab[air & (below < 1.5) & (np.abs(x) < 200)] = Organ.TABLE
