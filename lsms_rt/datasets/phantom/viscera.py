"""The organs around the liver: bowel, stomach, pancreas, spleen, kidneys and the great vessels."""

from __future__ import annotations

import numpy as np

from .organs import Organ
from .patient import Kidney, Patient, Plane
from .shapes import Array, bump, oval, ramp

_STOMACH_WALL_MM = 4.0


def paint_gut(lab: Array, p: Patient, plane: Plane, room: Array) -> None:
    """Paint bowel loops where a smooth noise is high; more of them caudally and in front."""
    s, v, matrix = plane.s, plane.v, plane.matrix
    n = p.gut.at(s, matrix)
    n = n - p.gut_level + np.float32(1.6 * ramp((s - 0.25) / 0.5) - 1.0) - 0.6 * v * (v > 0)
    lab[room & (n > 0)] = Organ.BOWEL
    f = p.fold.at(s, matrix)
    lab[room & (n > 0.22)] = Organ.CONTENT
    # Gas rises to the front.
    lab[room & (n > 0.28) & (f - 1.2 * v > 1.0)] = Organ.GAS
    # Mesenteric vessels.
    lab[room & (n < -0.2) & (np.abs(f) > 1.9)] = Organ.SOFT


def paint_viscera(lab: Array, p: Patient, plane: Plane, room: Array) -> None:
    """Paint stomach, pancreas and spleen within ``room`` (bool, H, W)."""
    u, v, s = plane.u, plane.v, plane.s
    sg = bump(s, 0.25, p.stomach_half)
    if sg > 0.15:
        st = p.stomach
        d = oval(u, v, st.cx, st.cy, st.rx * sg, st.ry * sg, st.tilt)
        wall = _STOMACH_WALL_MM / (p.ac * st.rx * sg)
        lab[room & (d < 1.12)] = Organ.BODY
        lab[room & (d < 1)] = Organ.STOMACH
        lumen = room & (d < 1 - wall)
        lab[lumen] = Organ.CONTENT
        # A level: the patient lies on the back.
        lab[lumen & (v < st.cy + p.air_level * st.ry * sg)] = Organ.GAS
    pg = bump(s, p.hilum_s + 0.12, 0.2)
    # Pancreas: a band in front of the great vessels.
    if pg > 0.1:
        d = oval(u, v, 0.12, 0.02, 0.36 * pg, 0.12 * pg, -0.35)
        lab[room & (d < 1)] = Organ.SOFT
    gs = bump(s, p.spleen_s, p.spleen_half)
    if gs > 0.1:
        sp = p.spleen
        d = oval(u, v, sp.cx, sp.cy, sp.rx * gs, sp.ry * gs, sp.tilt)
        # The spleen's inner face is concave.
        hollow = oval(u, v, sp.cx - 0.36, sp.cy - 0.1, 0.26, 0.3)
        lab[room & (d < 1.08)] = Organ.BODY
        lab[room & (d < 1) & (hollow > 1)] = Organ.SPLEEN


def paint_retroperitoneum(lab: Array, p: Patient, plane: Plane) -> None:
    """Paint kidneys, the muscles beside the spine, aorta and IVC."""
    for kidney in p.kidneys:
        g = bump(plane.s, kidney.s, kidney.half)
        if g >= 0.2:
            box = p.box(plane.matrix, kidney.cu * p.ac, kidney.cv * p.bc, 2.2 * max(kidney.rx, kidney.ry))
            _paint_kidney(lab[box], p, plane.cut(box), kidney, g)
    box = p.box(plane.matrix, 0, p.spine_y, 70)
    lab, plane = lab[box], plane.cut(box)
    x, y, s = plane.x, plane.y, plane.s
    sy, sr = p.spine_y, p.spine_r
    # Crura, psoas and the muscles of the back.
    for sx in (-1, 1):
        lab[oval(x, y, sx * (sr * 0.75), sy - sr * 0.75, 7, 13, -0.5 * sx) < 1] = Organ.MUSCLE
        lab[oval(x, y, sx * (sr + 7), sy + 4, 11 * ramp((s - 0.4) / 0.4) + 1e-3, 16) < 1] = Organ.MUSCLE
        lab[oval(x, y, sx * 34, p.bc * 0.55 + 34, 30, 21, 0.25 * sx) < 1] = Organ.MUSCLE
    ax, ay, ar = p.aorta
    # The crura end in the middle.
    lab[oval(x, y, ax, ay, ar + 3, ar + 3) < 1] = np.where(s < 0.5, Organ.MUSCLE, Organ.BODY)
    lab[oval(x, y, ax, ay, ar, ar) < 1] = Organ.AORTA
    lab[oval(x, y, p.ivc.cx, p.ivc.cy, p.ivc.rx, p.ivc.ry) < 1] = Organ.IVC


def _paint_kidney(lab: Array, p: Patient, plane: Plane, kidney: Kidney, g: float) -> None:
    """Paint a kidney's section; g: its width as a share of the largest section's."""
    x, y, s = plane.x, plane.y, plane.s
    side, rx, ry = np.sign(kidney.cu), kidney.rx, kidney.ry
    cx, cy = kidney.cu * p.ac, kidney.cv * p.bc
    # Behind a kidney lies fat, not liver.
    behind = oval(x, y, cx - side * 0.5 * rx, cy + 0.75 * ry, 1.25 * rx * g, 1.2 * ry * g) < 1
    lab[behind & ((lab == Organ.LIVER_LEFT) | (lab == Organ.LIVER_RIGHT))] = Organ.BODY
    d = oval(x, y, cx, cy, rx * g, ry * g, 0.5 * side)
    lab[(d < 1 + 0.18 / g) & (lab != Organ.MUSCLE)] = Organ.BODY
    lab[d < 1] = Organ.KIDNEY
    ang = np.cos((5 + 2 * (rx > 27)) * np.arctan2(y - np.float32(cy), x - np.float32(cx)) + 25 * s + rx)
    # Pyramids: widest near the sinus, never reaching the surface.
    lab[(d < 0.85) & (ang > 2.6 * d - 1.5)] = Organ.MEDULLA
    # The sinus opens towards the midline.
    sinus = oval(x, y, cx - side * 0.45 * rx * g, cy, 0.55 * rx * g, 0.34 * ry * g)
    lab[sinus < bump(s, kidney.s, 0.6 * kidney.half)] = Organ.BODY
