"""The 3-D geometry of one random upper abdomen, evaluated one axial slice at a time.

Frames: millimetres with x to the patient's left, y to posterior, origin at the image
centre; the *cavity frame* (u, v) is the same axes divided by the half-widths of the
abdominal cavity, so organs keep their relations in thin and in wide patients.
`s` runs from 0 (top of the liver) to 1 (its tip), `z = s * length_mm`, caudal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

Array = np.ndarray
_Z_KNOTS = 7  # noise planes over the liver's height: about one per 30 mm


class Organ(IntEnum):
    """Values of a label map."""

    BACKGROUND = 0
    BODY = 1  # fat
    MUSCLE = 2
    BONE = 3
    MARROW = 4
    LIVER_LEFT = 5
    LIVER_RIGHT = 6
    VESSEL = 7  # inside the liver; `AnatomySlice.portal` tells the two trees apart
    SPLEEN = 8
    KIDNEY = 9  # cortex
    MEDULLA = 10
    STOMACH = 11  # wall
    CONTENT = 12  # of the stomach or the bowel
    GAS = 13
    AORTA = 14
    IVC = 15
    LUNG = 16
    BOWEL = 17  # wall
    GALLBLADDER = 18
    SOFT = 19  # pancreas and other soft tissue
    CANAL = 20
    HEART = 21
    TABLE = 22


@dataclass(frozen=True)
class AnatomySlice:
    """labels uint8 (H, W); lobes uint8 (H, W) 0 outside, 1 left, 2 right lobe (vessels
    included); portal bool (H, W), the portal venous part of VESSEL; body_r float32
    (H, W), 0 at the body's centre and 1 at the skin."""

    labels: Array
    lobes: Array
    portal: Array
    body_r: Array


def spline_basis(matrix: int, knots: int) -> Array:
    """float32 (matrix, knots): cubic B-spline weights, so that B @ coarse @ B.T upsamples."""
    t = np.linspace(1.0, knots - 2.0, matrix)[:, None] - np.arange(knots)[None, :]
    a = np.abs(t)
    w = np.where(a < 1, 2 / 3 - a**2 + a**3 / 2, np.where(a < 2, (2 - a) ** 3 / 6, 0.0))
    return w.astype(np.float32)


class NoiseField:
    """Smooth random function of (x, y, s) with a standard deviation near 1."""

    def __init__(self, rng: np.random.Generator, knots: int, planes: int = _Z_KNOTS) -> None:
        # 0.48: the B-spline smoothing leaves about 0.48 of the deviation in the plane.
        self._planes = rng.standard_normal((planes, knots, knots)).astype(np.float32) / 0.48
        self._basis: dict[int, Array] = {}

    def at(self, s: float, matrix: int) -> Array:
        """float32 (matrix, matrix) at height s."""
        p, _, knots = self._planes.shape
        if matrix not in self._basis:
            self._basis[matrix] = spline_basis(matrix, knots)
        f = min(max(s, 0.0), 1.0) * (p - 1.001)
        i, w = int(f), f - int(f)
        plane = self._planes[i] * np.cos(w * np.pi / 2) + self._planes[i + 1] * np.sin(w * np.pi / 2)
        b = self._basis[matrix]
        return b @ plane.astype(np.float32) @ b.T


def ramp(x: float) -> float:
    """Smooth step from 0 to 1 over [0, 1]."""
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)


def bump(s: float, centre: float, half: float) -> float:
    """Half-ellipse profile: 1 at the centre, 0 outside centre +- half."""
    return max(1.0 - ((s - centre) / half) ** 2, 0.0) ** 0.5


def oval(x: Array, y: Array, cx: float, cy: float, rx: float, ry: float, tilt: float = 0.0) -> Array:
    """Normalised radius about a tilted ellipse: < 1 inside."""
    c, s = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    dx, dy = x - np.float32(cx), y - np.float32(cy)
    return np.sqrt(((c * dx + s * dy) / np.float32(rx)) ** 2 + ((c * dy - s * dx) / np.float32(ry)) ** 2)


class Anatomy:
    """One patient. All random choices are made here; `at` is a pure function of s."""

    def __init__(self, rng: np.random.Generator) -> None:
        u = rng.uniform
        self.ac, ratio = u(108, 152), u(0.64, 0.84)
        self.bc = self.ac * ratio
        self.wall = u(8, 15)
        self.fat = 4 + 38 * rng.beta(1.3, 2.2)
        a = self.ac + self.wall + self.fat
        self.fov = float(np.clip(2 * a * u(1.05, 1.22), 300, 460))
        a_fit = self.fov / 2 - 6  # keep the skin inside the field of view
        if a > a_fit:
            self.fat = max(3.0, self.fat - (a - a_fit))
        self.fat_power = u(0.9, 1.6)
        self.shift = rng.normal(0, [5, 7])
        self.rot = np.deg2rad(rng.normal(0, 3.5))
        self.length_mm = u(140, 215)
        self.warp = [NoiseField(rng, 8, 4) for _ in range(2)]
        self.fine = [NoiseField(rng, 16) for _ in range(2)]
        self.warp_mm, self.fine_mm = u(2, 5), u(1.0, 2.6)
        self.gut, self.fold = NoiseField(rng, 15), NoiseField(rng, 26)
        # Liver.
        self.q0, self.s_lung = u(0.45, 0.62), u(0.3, 0.55)
        self.right = {"cx": u(-0.52, -0.40), "cy": u(-0.10, 0.05), "rx": u(0.50, 0.66), "ry": u(0.80, 1.0)}
        self.left = {
            "cx": u(-0.12, 0.12),
            "cy": u(-0.56, -0.38),
            "rx": u(0.45, 0.80),
            "ry": u(0.26, 0.42),
            "tilt": u(-0.25, 0.25),
        }
        self.left_mid, self.left_half = u(0.26, 0.42), u(0.36, 0.52)
        self.blend = u(6, 12)
        self.touch = u(0.97, 1.0)  # how near the liver comes to the abdominal wall
        self.fossa = (u(-0.46, -0.24), u(-0.80, -0.65))
        self.notch = {"x": u(-0.10, 0.10), "depth": u(0.25, 0.6), "mm": u(1.0, 4.5), "on": rng.random() < 0.8}
        self.hilum = (u(-0.20, -0.06), u(-0.08, 0.10))
        self.hilum_s = u(0.42, 0.54)
        # Others.
        self.spine_y = self.bc * u(0.42, 0.56)
        self.spine_r = u(17, 25)
        self.spine_phase, self.disc = u(0, 1), u(28, 36)
        self.aorta = (u(4, 16), self.spine_y - self.spine_r - u(6, 12), u(8, 14))
        self.ivc = (-u(16, 26), self.spine_y - self.spine_r - u(2, 14), u(8, 14), u(6, 11))
        self.spleen = {
            "cx": u(0.66, 0.8),
            "cy": u(0.12, 0.35),
            "rx": u(0.18, 0.32),
            "ry": u(0.38, 0.6),
            "tilt": u(-0.4, 0.2),
        }
        self.spleen_s, self.spleen_half = u(0.3, 0.45), u(0.28, 0.5)
        self.stomach = {
            "cx": u(0.28, 0.5),
            "cy": u(-0.38, -0.05),
            "rx": u(0.2, 0.42),
            "ry": u(0.25, 0.48),
            "tilt": u(-0.7, 0.7),
        }
        self.stomach_half, self.air_level = u(0.35, 0.6), u(-1.2, 0.3)
        self.kidneys = [
            (sx * u(0.42, 0.52), u(0.42, 0.55), u(23, 31), u(25, 34), u(0.78, 1.0), u(0.28, 0.45)) for sx in (-1, 1)
        ]
        self.gb = {
            "wall": u(0.4, 1.6),
            "r": u(8, 19),
            "long": u(1.1, 1.9),
            "s": u(0.58, 0.72),
            "half": u(0.1, 0.25),
            "on": rng.random() < 0.65,
        }
        self.gut_level = u(0.1, 0.7)
        self.heart = {
            "cx": u(0.05, 0.3),
            "cy": u(-0.5, -0.3),
            "rx": u(0.4, 0.55),
            "ry": u(0.3, 0.42),
            "half": u(0.05, 0.2),
        }
        self.ribs = [(sx * (k + u(-0.25, 0.25)), u(6, 13), u(3.0, 5.0)) for sx in (-1, 1) for k in range(7)]
        self.rib_rate, self.rib_start = u(0.7, 1.5), u(0.25, 0.5)
        self.arms = (rng.random() < 0.10, u(24, 34), u(-0.2, 0.3))
        self.table = rng.random() < 0.5
        self.tubes = _vessel_trees(self, rng)

    # -- evaluation ------------------------------------------------------------------
    def frame(self, s: float, matrix: int) -> tuple[Array, Array]:
        """Body-frame coordinates in mm, softly warped, both float32 (matrix, matrix)."""
        px = ((np.arange(matrix, dtype=np.float32) + 0.5) / matrix - 0.5) * np.float32(self.fov)
        c, n = np.float32(np.cos(self.rot)), np.float32(np.sin(self.rot))
        dx, dy = px[None, :] - np.float32(self.shift[0]), px[:, None] - np.float32(self.shift[1])
        wx, wy = (np.float32(self.warp_mm) * w.at(s, matrix) for w in self.warp)
        return c * dx + n * dy + wx, c * dy - n * dx + wy

    def at(self, s: float, matrix: int) -> AnatomySlice:
        """The label maps at height s (see AnatomySlice)."""
        x, y = self.frame(s, matrix)
        lab = np.zeros((matrix, matrix), np.uint8)
        outer = (self.ac + self.wall, self.bc + self.wall)
        # More fat behind and at the flanks than in front, as is usual when supine.
        back = self.fat * (0.8 + 0.3 * np.clip(y / outer[1], -1, 1))
        body_r = np.sqrt((x / (outer[0] + self.fat)) ** 2 + (y / (outer[1] + back)) ** 2)
        lab[body_r < 1] = Organ.BODY
        muscle = oval(x, y, 0, 0, *outer)
        lab[muscle < 1] = Organ.MUSCLE
        fx, fy = (np.float32(self.fine_mm) * f.at(s, matrix) for f in self.fine)
        u, v = (x + fx) / np.float32(self.ac), (y + fy) / np.float32(self.bc)
        cav = oval(u, v, 0, 0, 1, 1)  # its own warp: the wall is of uneven thickness
        t = ramp(s / self.s_lung)
        t = 1.0 if t > 0.93 else t  # a recess thinner than a pixel would be a dotted line
        q = self.q0 + (1 - self.q0) * t
        abd = oval(u, v, -0.10 * (1 - t), -0.16 * (1 - t), q, q)
        inside = cav < 1
        lab[inside] = Organ.LUNG if t < 1 else Organ.BODY
        room = inside & (abd < 1)
        lab[room] = Organ.BODY
        if t < 1:  # the diaphragm: a thin sheet between lung and abdomen
            lab[inside & (abd >= 1) & (abd < 1.02)] = Organ.MUSCLE
        self._gut(lab, room & (abd < 0.95), u, v, s, matrix)
        hb = bump(s, 0.0, self.heart["half"])
        if hb > 0.3:
            h = self.heart
            lab[inside & (oval(u, v, h["cx"], h["cy"], h["rx"] * hb, h["ry"] * hb) < 1)] = Organ.HEART
        liver = self._liver(u, v, abd, s) & room
        self._viscera(lab, room & (abd < 0.97), liver, x, y, u, v, s)
        lobes = self._paint_liver(lab, liver, x, y, u, v, s)
        self._retroperitoneum(lab, x, y, s)
        self._frame_bones(lab, x, y, muscle, s)
        liver_kept = (lab == Organ.LIVER_LEFT) | (lab == Organ.LIVER_RIGHT)
        lobes[~liver_kept] = 0
        vessel, portal = self._vessels(x + fx, y + fy, s)
        vessel &= liver_kept
        lab[vessel] = Organ.VESSEL
        self._outside(lab, body_r, x, y)
        return AnatomySlice(lab, lobes, portal & vessel, body_r)

    def _liver(self, u: Array, v: Array, abd: Array, s: float) -> Array:
        r, le = self.right, self.left
        g = bump(s, 0.42, 0.60) if s > 0.42 else max(bump(s, 0.42, 0.5), 0.3)
        drop = ramp((s - 0.5) / 0.5)
        lr = oval(u, v, r["cx"] - 0.16 * drop, r["cy"] + 0.14 * drop, r["rx"] * max(g, 1e-3), r["ry"] * max(g, 1e-3))
        gl = bump(s, self.left_mid, self.left_half)
        if gl > 0.1:
            ll = oval(u, v, le["cx"] - 0.1 * (1 - gl), le["cy"], le["rx"] * gl, le["ry"] * gl, le["tilt"])
            k = np.float32(self.blend)
            lr = -np.log(np.exp(-k * lr) + np.exp(-k * ll)) / k
        return (lr < 1) & (abd < self.touch)

    def _gut(self, lab: Array, room: Array, u: Array, v: Array, s: float, matrix: int) -> None:
        """Bowel loops where a smooth noise is high; more of them caudally and in front."""
        n = self.gut.at(s, matrix)
        n = n - self.gut_level + np.float32(1.6 * ramp((s - 0.25) / 0.5) - 1.0) - 0.6 * v * (v > 0)
        lab[room & (n > 0)] = Organ.BOWEL
        f = self.fold.at(s, matrix)
        lab[room & (n > 0.22)] = Organ.CONTENT
        lab[room & (n > 0.28) & (f - 1.2 * v > 1.0)] = Organ.GAS
        lab[room & (n < -0.2) & (np.abs(f) > 1.9)] = Organ.SOFT  # mesenteric vessels

    def _viscera(self, lab: Array, room: Array, liver: Array, x: Array, y: Array, u: Array, v: Array, s: float) -> None:
        sg = bump(s, 0.25, self.stomach_half)
        if sg > 0.15:
            st = self.stomach
            d = oval(u, v, st["cx"], st["cy"], st["rx"] * sg, st["ry"] * sg, st["tilt"])
            wall = 4.0 / (self.ac * st["rx"] * sg)
            lab[room & (d < 1.12)] = Organ.BODY
            lab[room & (d < 1)] = Organ.STOMACH
            lumen = room & (d < 1 - wall)
            lab[lumen] = Organ.CONTENT
            lab[lumen & (v < st["cy"] + self.air_level * st["ry"] * sg)] = Organ.GAS
        pg = bump(s, self.hilum_s + 0.12, 0.2)
        if pg > 0.1:  # pancreas: a lobulated band in front of the great vessels
            d = oval(u, v, 0.12, 0.02, 0.36 * pg, 0.12 * pg, -0.35)
            lab[room & (d < 1)] = Organ.SOFT
        gs = bump(s, self.spleen_s, self.spleen_half)
        if gs > 0.1:
            sp = self.spleen
            d = oval(u, v, sp["cx"], sp["cy"], sp["rx"] * gs, sp["ry"] * gs, sp["tilt"])
            hollow = oval(u, v, sp["cx"] - 0.36, sp["cy"] - 0.1, 0.26, 0.3)
            lab[room & (d < 1.08)] = Organ.BODY
            lab[room & (d < 1) & (hollow > 1)] = Organ.SPLEEN

    def _paint_liver(self, lab: Array, liver: Array, x: Array, y: Array, u: Array, v: Array, s: float) -> Array:
        """Paints the liver with its notches; returns the lobe map, uint8 (H, W)."""
        n = self.notch
        if n["on"] and 0.22 < s < 0.8:
            half = n["mm"] * bump(s, 0.5, 0.3) / self.ac
            reach = -0.9 + n["depth"] * bump(s, 0.5, 0.3) * 1.4
            liver &= ~((np.abs(u - n["x"] - 0.15 * (v + 0.7)) < half) & (v < reach))
        hg = bump(s, self.hilum_s, 0.14)
        if hg > 0.1:
            h = oval(u, v, self.hilum[0] + 0.06, self.hilum[1], 0.17 * hg, 0.09 * hg, 0.3)
            liver &= h > 1
        px, py = self.ivc[0] / self.ac, self.ivc[1] / self.bc
        gx, gy = self.fossa
        side = (u - px) * (gy - py) - (v - py) * (gx - px)
        lobes = np.where(side < 0, 1, 2).astype(np.uint8)
        lab[liver] = np.where(lobes[liver] == 1, Organ.LIVER_LEFT, Organ.LIVER_RIGHT)
        gb = bump(s, self.gb["s"], self.gb["half"])
        if self.gb["on"] and gb > 0.3:
            k = 0.45 + 0.25 * ramp((s - 0.5) / 0.3)
            cx, cy = (px + (gx - px) * k) * self.ac, (py + (gy - py) * k) * self.bc
            d = oval(x, y, cx, cy, self.gb["r"] * gb, self.gb["r"] * self.gb["long"] * gb, 0.35)
            lab[d < 1.0 + self.gb["wall"] / self.gb["r"]] = Organ.SOFT
            lab[d < 1] = Organ.GALLBLADDER
        return lobes

    def _retroperitoneum(self, lab: Array, x: Array, y: Array, s: float) -> None:
        for ku, kv, rx, ry, ks, kh in self.kidneys:
            g = bump(s, ks, kh)
            if g < 0.2:
                continue
            cx, cy = ku * self.ac, kv * self.bc
            d = oval(x, y, cx, cy, rx * g, ry * g, 0.5 * np.sign(ku))
            lab[(d < 1 + 0.18 / g) & (lab != Organ.MUSCLE)] = Organ.BODY
            lab[d < 1] = Organ.KIDNEY
            ang = np.cos((5 + 2 * (rx > 27)) * np.arctan2(y - np.float32(cy), x - np.float32(cx)) + 25 * s + rx)
            # Pyramids: widest near the sinus, never reaching the surface.
            lab[(d < 0.85) & (ang > 2.6 * d - 1.5)] = Organ.MEDULLA
            # The sinus opens towards the midline.
            lab[
                oval(x, y, cx - np.sign(ku) * 0.45 * rx * g, cy, 0.55 * rx * g, 0.34 * ry * g) < bump(s, ks, 0.6 * kh)
            ] = Organ.BODY
        sy, sr = self.spine_y, self.spine_r
        for sx in (-1, 1):  # crura, psoas and the muscles of the back
            lab[oval(x, y, sx * (sr * 0.75), sy - sr * 0.75, 7, 13, -0.5 * sx) < 1] = Organ.MUSCLE
            lab[oval(x, y, sx * (sr + 7), sy + 4, 11 * ramp((s - 0.4) / 0.4) + 1e-3, 16) < 1] = Organ.MUSCLE
            lab[oval(x, y, sx * 34, self.bc * 0.55 + 34, 30, 21, 0.25 * sx) < 1] = Organ.MUSCLE
        ax, ay, ar = self.aorta
        lab[oval(x, y, ax, ay, ar + 3, ar + 3) < 1] = np.where(s < 0.5, Organ.MUSCLE, Organ.BODY)
        lab[oval(x, y, ax, ay, ar, ar) < 1] = Organ.AORTA
        ix, iy, rx, ry = self.ivc
        lab[oval(x, y, ix, iy, rx, ry) < 1] = Organ.IVC

    def _frame_bones(self, lab: Array, x: Array, y: Array, muscle: Array, s: float) -> None:
        sy, sr = self.spine_y, self.spine_r
        phase = (s * self.length_mm / self.disc + self.spine_phase) % 1.0
        arch = oval(x, y, 0, sy + sr * 0.85 + 9, 15, 11.5) < 1
        spinous = (np.abs(x) < 3.5) & (y > sy + sr * 0.85 + 14) & (y < sy + sr + 26 + 14 * phase)
        side = (np.abs(y - (sy + sr * 0.75 + 10) - 0.25 * np.abs(x) + 3) < 4.5) & (
            np.abs(x) < 12 + 22 * bump(phase, 0.4, 0.35)
        )
        bone = arch | spinous | side
        lab[bone] = Organ.BONE
        d = oval(x, y, 0, sy, sr * 1.12, sr * 0.86)
        lab[d < 1] = Organ.BONE
        lab[d < (0.97 if phase < 0.15 else 0.90)] = Organ.SOFT if phase < 0.12 else Organ.MARROW
        lab[oval(x, y, 0, sy + sr * 0.86 + 9, 10, 8) < 1] = Organ.CANAL
        mid = (self.ac + 0.5 * self.wall, self.bc + 0.5 * self.wall)
        ring = np.abs(muscle - (1 - 0.45 * self.wall / mid[0])) < 0.16  # near the wall: ribs live here
        rows, cols = np.nonzero(ring)
        rx_, ry_ = x[rows, cols], y[rows, cols]
        for k, long_r, thick_r in self.ribs:
            th = self.rib_start + 0.36 * (abs(k) + self.rib_rate * s)
            if th > np.pi - 0.35 or (th > 2.2 and s > 0.6):
                continue
            cx, cy = np.sign(k) * mid[0] * np.sin(th) if k else mid[0] * np.sin(th), mid[1] * np.cos(th)
            tangent = np.arctan2(-mid[1] * np.sin(th), (1 if k >= 0 else -1) * mid[0] * np.cos(th))
            d = oval(rx_, ry_, cx, cy, long_r, thick_r, tangent)
            hit = d < 1
            lab[rows[hit], cols[hit]] = Organ.BONE
            core = d < 1 - 1.7 / thick_r
            lab[rows[core], cols[core]] = Organ.MARROW

    def _vessels(self, x: Array, y: Array, s: float) -> tuple[Array, Array]:
        """Cross-section of the vessel trees: (all, portal only), both bool (H, W)."""
        out, portal = np.zeros(x.shape, bool), np.zeros(x.shape, bool)
        z, step = s * self.length_mm, self.fov / x.shape[0]
        for p, q, rad, is_portal in self.tubes:
            if not min(p[2], q[2]) - rad <= z <= max(p[2], q[2]) + rad:
                continue
            mx, my = (p[:2] + q[:2]) / 2
            # Pixel box about the tube; 16 mm covers the shift, the warp and the rotation.
            half = np.hypot(*(q - p)[:2]) / 2 + rad + 16
            c0 = (mx + self.shift[0] + self.fov / 2 - half) / step
            r0 = (my + self.shift[1] + self.fov / 2 - half) / step
            box = tuple(slice(max(int(o), 0), max(int(o + 2 * half / step) + 1, 0)) for o in (r0, c0))
            d = (q - p).astype(np.float32)
            bx, by, bz = x[box] - np.float32(p[0]), y[box] - np.float32(p[1]), np.float32(z - p[2])
            t = np.clip((bx * d[0] + by * d[1] + bz * d[2]) / (d @ d + 1e-6), 0, 1)
            hit = (bx - t * d[0]) ** 2 + (by - t * d[1]) ** 2 + (bz - t * d[2]) ** 2 < rad * rad
            out[box] |= hit
            if is_portal:
                portal[box] |= hit
        return out, portal

    def _outside(self, lab: Array, body_r: Array, x: Array, y: Array) -> None:
        on, r, v = self.arms
        if on:
            for sx in (-1, 1):
                d = oval(x, y, sx * (self.ac + self.wall + self.fat + r * 1.05), v * self.bc, r, r * 1.2)
                free = body_r >= 1
                for lim, o in (
                    (1, Organ.BODY),
                    (0.82, Organ.MUSCLE),
                    (0.34, Organ.BONE),
                    (0.2, Organ.MARROW),
                ):
                    lab[free & (d < lim)] = o
        if self.table:
            yt = self.bc + self.wall + self.fat * 1.1 + 5
            dist = np.abs(y - yt + 0.0006 * x * x - 3)
            lab[(body_r >= 1) & (dist < 1.5) & (np.abs(x) < 200)] = Organ.TABLE


def _vessel_trees(a: Anatomy, rng: np.random.Generator) -> list[tuple[Array, Array, float, bool]]:
    """Tubes (start, end, radius; mm) of the hepatic veins and the portal vein."""
    mm = np.array([a.ac, a.bc, a.length_mm])
    tubes: list[tuple[Array, Array, float, bool]] = []

    def grow(p: Array, aim: Array, length: float, rad: float, depth: int, portal: bool) -> None:
        aim = aim / np.linalg.norm(aim)
        bend = aim + rng.normal(0, 0.18, 3)
        mid = p + length / 2 * bend / np.linalg.norm(bend)
        end = mid + length / 2 * aim
        tubes.extend([(p, mid, rad, portal), (mid, end, rad * 0.9, portal)])
        if depth == 0 or rad < 1.0:
            return
        for _ in range(2):
            grow(
                end,
                aim + rng.normal(0, 0.55, 3),
                length * rng.uniform(0.62, 0.88),
                rad * rng.uniform(0.64, 0.86),
                depth - 1,
                portal,
            )

    iv = np.array([a.ivc[0], a.ivc[1], 0.2 * a.length_mm])
    fossa = np.array([a.fossa[0], a.fossa[1], 0.5]) * mm
    r = rng.uniform(3.5, 6.0)
    goals = (np.array([-0.75, 0.1, 0.5]) * mm, fossa, np.array([0.2, -0.5, 0.33]) * mm)
    for goal in goals:
        grow(iv, goal - iv, np.linalg.norm(goal - iv) * 0.42, r * rng.uniform(0.8, 1.1), 4, False)
    hil = np.array([a.hilum[0], a.hilum[1], a.hilum_s]) * mm
    pr = rng.uniform(4, 7)
    for goal in (
        np.array([-0.6, 0.2, 0.5]),
        np.array([-0.55, -0.4, 0.6]),
        np.array([0.05, -0.5, 0.36]),
        np.array([-0.6, 0.0, 0.25]),
    ):
        goal = goal * mm
        grow(hil, goal - hil, np.linalg.norm(goal - hil) * 0.4, pr * rng.uniform(0.65, 1.0), 4, True)
    return tubes
