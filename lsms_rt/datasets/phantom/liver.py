"""The liver: its outline, fissures, hilum and two lobes, and the gallbladder in its bed."""

from __future__ import annotations

import numpy as np

from .organs import Organ
from .patient import Patient, Plane
from .shapes import Array, bump, oval, ramp


def liver_outline(p: Patient, plane: Plane, abdomen: Array) -> Array:
    """Return the liver, bool (H, W): a tall right oval and a flat left one, joined smoothly.

    abdomen: float32 (H, W), 1 at the wall or the diaphragm, which the liver fills but does not cross.
    """
    u, v, s = plane.u, plane.v, plane.s
    r, left = p.right, p.left
    # The dome starts with some area: at least 0.3 of the widest section.
    g = bump(s, 0.42, 0.60) if s > 0.42 else max(bump(s, 0.42, 0.5), 0.3)
    # The tip lies further to the right and back.
    drop = ramp((s - 0.5) / 0.5)
    lr = oval(u, v, r.cx - 0.16 * drop, r.cy + 0.14 * drop, r.rx * max(g, 1e-3), r.ry * max(g, 1e-3))
    gl = bump(s, p.left_mid, p.left_half)
    if gl > 0.1:
        ll = oval(u, v, left.cx - 0.1 * (1 - gl), left.cy, left.rx * gl, left.ry * gl, left.tilt)
        k = np.float32(p.blend)
        # A sum of exponentials underflows far from both lobes; this form does not.
        lr = -np.logaddexp(-k * lr, -k * ll) / k
    if p.nodular:
        lr = lr + np.float32(p.nodular) * p.fold.at(s, plane.matrix)
    outline: Array = (lr < 1) & (abdomen < p.touch)
    return outline


def paint_liver(lab: Array, p: Patient, plane: Plane, liver: Array) -> tuple[Array, Array]:
    """Paint the liver with its fissures and the gallbladder.

    Returns the lobe map, uint8 (H, W), and the hilum, bool (H, W), fat through which vessels enter.  ``liver``
    (bool, H, W) is cut in place.  The lobes part along Cantlie's line, from IVC to gallbladder fossa.
    """
    x, y, u, v = plane.x, plane.y, plane.u, plane.v
    cord = _cut_fissures(p, plane, liver)
    hilum = np.zeros(liver.shape, bool)
    hg = bump(plane.s, p.hilum_s, 0.14)
    if hg > 0.1:
        hilum = liver & (oval(u, v, p.hilum[0] + 0.06, p.hilum[1], 0.17 * hg, 0.09 * hg, 0.3) <= 1)
        liver &= ~hilum
    px, py = p.ivc.cx / p.ac, p.ivc.cy / p.bc
    gx, gy = p.fossa
    bladder = p.gallbladder
    gb = bump(plane.s, bladder.s, bladder.half) if bladder.on else 0.0
    k = 0.45 + 0.25 * ramp((plane.s - 0.5) / 0.3)
    cx, cy = (px + (gx - px) * k) * p.ac, (py + (gy - py) * k) * p.bc
    if gb > 0.3:
        _open_fossa(p, plane, liver, (cx, cy), bladder.r * gb)
    side = (u - px) * (gy - py) - (v - py) * (gx - px)
    lobes = np.where(side < 0, 1, 2).astype(np.uint8)
    lab[liver] = np.where(lobes[liver] == 1, Organ.LIVER_LEFT, Organ.LIVER_RIGHT)
    if cord is not None:
        lab[cord] = Organ.SOFT
    if gb > 0.3:
        d = oval(x, y, cx, cy, bladder.r * gb, bladder.r * bladder.long * gb, 0.35)
        lab[d < 1.0 + bladder.wall / bladder.r] = Organ.SOFT
        lab[d < 1] = Organ.GALLBLADDER
    return lobes, hilum


def _open_fossa(p: Patient, plane: Plane, liver: Array, bladder: tuple[float, float], radius: float) -> None:
    """Cut the liver, bool (H, W), in front of the gallbladder at (x, y) mm, which lies at its surface, not inside."""
    ahead = np.array([p.fossa[0] * p.ac - p.ivc.cx, p.fossa[1] * p.bc - p.ivc.cy])
    c, s = ahead / np.linalg.norm(ahead)
    dx, dy = plane.x - np.float32(bladder[0]), plane.y - np.float32(bladder[1])
    along, across = np.float32(c) * dx + np.float32(s) * dy, np.float32(c) * dy - np.float32(s) * dx
    # It widens towards the front.
    half = np.float32(p.fossa_width * radius) + np.float32(0.35) * along
    liver &= ~((along > 0) & (np.abs(across) < half))


def _cut_fissures(p: Patient, plane: Plane, liver: Array) -> Array | None:
    """Cut the fissures, which hold fat, out of ``liver``, bool (H, W); return the ligamentum teres if visible."""
    u, v, s = plane.u, plane.v, plane.s
    venosum = bump(s, p.hilum_s - 0.16, 0.16)
    if p.venosum_mm and venosum > 0.2:
        # From the hilum to the left and in front of the caudate lobe.
        hx, hy = p.hilum
        liver &= oval(u, v, hx + 0.16, hy - 0.08, 0.26 * venosum, p.venosum_mm / p.ac, -0.5) > 1
    if not p.notch.on or not 0.22 < s < 0.8:
        return None
    g = bump(s, 0.5, 0.3)
    reach = -0.9 + p.notch.depth * g * 1.4
    liver &= ~((np.abs(u - p.notch.x - 0.15 * (v + 0.7)) < p.notch.mm * g / p.ac) & (v < reach))
    if not p.teres_mm or s < 0.4:
        return None
    r = p.teres_mm * g
    d = oval(plane.x, plane.y, (p.notch.x + 0.15 * (reach + 0.7)) * p.ac, reach * p.bc, r, r * 1.2)
    cord: Array = liver & (d < 0.4)
    liver &= d > 1
    return cord
