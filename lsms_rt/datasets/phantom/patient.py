"""Every random choice about one patient's anatomy, and the coordinates of an axial plane through it.

Frames: millimeters with x to the patient's left, y to posterior, origin at the image center; the *cavity frame*
(u, v) is the same axes divided by the half-widths of the abdominal cavity, so organs keep their relations in thin and
wide patients.  `s` runs from 0 (top of the liver) to 1 (its tip), `z = s * length_mm`, caudal.

The order of the draws is part of the format: in another order, every seed gives another patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import Array, Ellipse, NoiseField

# Warp and rotation move a point by less than this.
REACH_MM = 16.0


@dataclass(frozen=True)
class Kidney:
    """cu, cv: center in the cavity frame; rx, ry: mm; s, half: its height and half extent."""

    cu: float
    cv: float
    rx: float
    ry: float
    s: float
    half: float


@dataclass(frozen=True)
class Gallbladder:
    """wall, r: mm; long: its length over its width; s, half: its height and half extent; on: not removed."""

    wall: float
    r: float
    long: float
    s: float
    half: float
    on: bool


@dataclass(frozen=True)
class Notch:
    """The fissure between the lobes: x in the cavity frame, depth 0..1, width in mm, and whether there is one."""

    x: float
    depth: float
    mm: float
    on: bool


@dataclass(frozen=True)
class Rib:
    """A rib or a costal cartilage in its oblique cut.

    k: signed number along the chest wall, negative on the patient's right.  length, thickness: half axes in mm.
    core: HU of its marrow or cartilage.  cortex: mm, 0 for cartilage.
    """

    k: float
    length: float
    thickness: float
    core: float
    cortex: float


@dataclass(frozen=True)
class Arms:
    """Arms beside the body: radius in mm, height v in the cavity frame."""

    on: bool
    r: float
    v: float


@dataclass(frozen=True)
class Plane:
    """The plane at height s in all frames; every array float32 (H, W).

    x, y: mm, softly warped.  u, v: the cavity frame, with a finer warp of its own, so that the wall is of uneven
    thickness.  fine_x, fine_y: that finer warp in mm.
    """

    s: float
    x: Array
    y: Array
    u: Array
    v: Array
    fine_x: Array
    fine_y: Array

    @property
    def matrix(self) -> int:
        return int(self.x.shape[0])

    def cut(self, box: tuple[slice, slice]) -> Plane:
        """Return the part of the plane in ``box``; its arrays are views."""
        return Plane(self.s, *(a[box] for a in (self.x, self.y, self.u, self.v, self.fine_x, self.fine_y)))


class Patient:
    """One patient: sizes in mm, places in the cavity frame unless stated otherwise.

    Ranges span thin to obese adults and loosely follow the sizes in anatomy books; they are wider where the network
    should not rely on them.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        u = rng.uniform
        # Half-width of the cavity; a body is wider than deep.
        self.ac, ratio = u(108, 152), u(0.64, 0.84)
        self.bc = self.ac * ratio
        self.wall = u(8, 15)
        # The fat under the skin: mostly thin, with a long tail.
        self.fat = 4 + 38 * rng.beta(1.3, 2.2)
        # The body fills 0.6 to 1 of the image's width; sometimes its flanks are cut off.
        share = u(1.0, 1.1) if rng.random() < 0.08 else u(0.6, 1.0)
        self.fov = float(np.clip(2 * (self.ac + self.wall + self.fat) / share, 260, 500))
        off = u(-30, 30, 2) if rng.random() < 0.3 else rng.normal(0, [6, 9])
        # Off-center on the table, but with the whole wall of the abdomen in the image.
        room = np.maximum(self.fov / 2 - self.wall - np.array([self.ac, self.bc]) - 6, 0)
        self.shift = np.clip(np.clip(off, -room, room), -30, 30)
        self.rot = np.deg2rad(rng.normal(0, 3.5))
        # The liver's height.
        self.length_mm = u(140, 215)
        self.warp = [NoiseField(rng, 8, 4) for _ in range(2)]
        self.fine = [NoiseField(rng, 16) for _ in range(2)]
        self.warp_mm, self.fine_mm = u(2, 5), u(1.0, 2.6)
        self.gut, self.fold = NoiseField(rng, 15), NoiseField(rng, 26)
        self._draw_liver(rng)
        self._draw_others(rng)

    def _draw_liver(self, rng: np.random.Generator) -> None:
        u = rng.uniform
        # Dome of the diaphragm: its size at s = 0, where it ends.
        self.q0, self.s_lung = u(0.45, 0.62), u(0.3, 0.55)
        self.right = Ellipse(u(-0.52, -0.40), u(-0.10, 0.05), u(0.50, 0.66), u(0.80, 1.0))
        self.left = Ellipse(u(-0.12, 0.12), u(-0.56, -0.38), u(0.45, 0.80), u(0.26, 0.42), u(-0.25, 0.25))
        # The left lobe ends above the right one.
        self.left_mid, self.left_half = u(0.26, 0.42), u(0.36, 0.52)
        self.blend = u(6, 12)
        # How near the liver comes to the abdominal wall.
        self.touch = u(0.97, 1.0)
        self.fossa = (u(-0.46, -0.24), u(-0.80, -0.65))
        self.notch = Notch(u(-0.10, 0.10), u(0.25, 0.6), u(1.0, 4.5), bool(rng.random() < 0.8))
        self.hilum = (u(-0.20, -0.06), u(-0.08, 0.10))
        self.hilum_s = u(0.42, 0.54)
        # Fat in the fissure of the ligamentum venosum, half its width in mm, and about the ligamentum teres.
        self.venosum_mm = u(0.8, 3.0) if rng.random() < 0.75 else 0.0
        self.teres_mm = u(4, 10) if rng.random() < 0.6 else 0.0

    def _draw_others(self, rng: np.random.Generator) -> None:
        u = rng.uniform
        self.spine_y = self.bc * u(0.42, 0.56)
        self.spine_r = u(17, 25)
        # disc: the height of a vertebra with its disc.
        self.spine_phase, self.disc = u(0, 1), u(28, 36)
        # x, y and radius in mm.
        self.aorta = (u(4, 16), self.spine_y - self.spine_r - u(6, 12), u(8, 14))
        ivc_x, ivc_y = -u(16, 26), self.spine_y - self.spine_r - u(2, 14)
        # In mm.
        self.ivc = Ellipse(ivc_x, ivc_y, u(8, 14), u(6, 11))
        self.spleen = Ellipse(u(0.66, 0.8), u(0.12, 0.35), u(0.18, 0.32), u(0.38, 0.6), u(-0.4, 0.2))
        self.spleen_s, self.spleen_half = u(0.3, 0.45), u(0.28, 0.5)
        self.stomach = Ellipse(u(0.28, 0.5), u(-0.38, -0.05), u(0.2, 0.42), u(0.25, 0.48), u(-0.7, 0.7))
        self.stomach_half, self.air_level = u(0.35, 0.6), u(-1.2, 0.3)
        self.kidneys = [
            Kidney(side * u(0.42, 0.52), u(0.42, 0.55), u(23, 31), u(25, 34), u(0.78, 1.0), u(0.28, 0.45))
            for side in (-1, 1)
        ]
        self.gallbladder = Gallbladder(
            u(0.4, 1.6), u(8, 19), u(1.1, 1.9), u(0.58, 0.72), u(0.1, 0.25), bool(rng.random() < 0.65)
        )
        # Half the width of the cleft in front of the gallbladder, in shares of its radius; below 0 it begins closed.
        self.fossa_width = u(-0.2, 0.9)
        self.gut_level = u(0.1, 0.7)
        self.heart = Ellipse(u(0.05, 0.3), u(-0.5, -0.3), u(0.4, 0.55), u(0.3, 0.42))
        self.heart_half = u(0.05, 0.2)
        self._draw_chest(rng)
        # Heights v in the cavity frame above which there is no fluid; None where there is none at all.
        self.effusion = u(0.2, 0.85) if rng.random() < 0.12 else None
        self.ascites = u(-0.8, 0.7) if rng.random() < 0.08 else None
        self.fluid = u(-5, 25)
        # Noise on the liver's outline, in shares of its size: nodular in cirrhosis.
        self.nodular = u(0.02, 0.06) if rng.random() < 0.15 else 0.0
        # Scans are mostly taken with arms raised.
        self.arms = Arms(bool(rng.random() < 0.10), u(24, 34), u(-0.2, 0.3))
        # None, a flat line, or a curved shell.
        self.table = int(rng.choice(3, p=(0.35, 0.25, 0.4)))
        self.table_depth = u(25, 60)

    def _draw_chest(self, rng: np.random.Generator) -> None:
        u = rng.uniform
        cortex, marrow = u(0.7, 1.6), u(-20, 120)
        self.ribs = []
        for side in (-1, 1):
            for k in range(7):
                # Some are cut lengthwise.
                length = u(14, 30) if rng.random() < 0.2 else u(6, 13)
                place = side * (k + u(-0.25, 0.25))
                self.ribs.append(Rib(place, length, u(3.0, 5.5), marrow + u(-30, 30), cortex))
        self.rib_rate, self.rib_start = u(0.7, 1.5), u(0.25, 0.5)
        gristle = u(70, 140)
        # Angles from the front's middle line, radians; these resemble enhancing lesions more than anything else.
        self.cartilage = [
            (side * u(0.15, 1.0), Rib(0, u(6, 20), u(3.5, 7.0), gristle + u(-20, 25), 0.0))
            for side in (-1, 1)
            for _ in range(int(rng.integers(2, 5)))
        ]
        self.cartilage_calcified = bool(rng.random() < 0.35)
        self.sternum_half, self.sternum_r = u(0.05, 0.4), (u(9, 20), u(3.5, 6.0))
        # The share of the wall's thickness at which fat parts its muscles, and that fat's width in mm.
        self.layers = [(u(0.15, 0.85), u(0.8, 2.5)) for _ in range(int(rng.integers(1, 4)))]
        self.layer = NoiseField(rng, 20)
        # In mm.
        self.vertebra_cortex = u(0.7, 2.2)

    def box(self, matrix: int, x: float, y: float, half: float) -> tuple[slice, slice]:
        """Return the pixels (rows, columns) that may be within ``half`` mm of (x, y) after shift, turn and warp."""
        step, half = self.fov / matrix, half + REACH_MM
        c0 = (x + self.shift[0] + self.fov / 2 - half) / step
        r0 = (y + self.shift[1] + self.fov / 2 - half) / step
        low = [min(max(int(o), 0), matrix) for o in (r0, c0)]
        high = [min(max(int(o + 2 * half / step) + 1, 0), matrix) for o in (r0, c0)]
        return slice(low[0], high[0]), slice(low[1], high[1])

    def plane(self, s: float, matrix: int) -> Plane:
        """Return the coordinates at height s of matrix x matrix pixels."""
        px = ((np.arange(matrix, dtype=np.float32) + 0.5) / matrix - 0.5) * np.float32(self.fov)
        c, n = np.float32(np.cos(self.rot)), np.float32(np.sin(self.rot))
        dx, dy = px[None, :] - np.float32(self.shift[0]), px[:, None] - np.float32(self.shift[1])
        wx, wy = (np.float32(self.warp_mm) * w.at(s, matrix) for w in self.warp)
        x, y = c * dx + n * dy + wx, c * dy - n * dx + wy
        fx, fy = (np.float32(self.fine_mm) * f.at(s, matrix) for f in self.fine)
        return Plane(s, x, y, (x + fx) / np.float32(self.ac), (y + fy) / np.float32(self.bc), fx, fy)
