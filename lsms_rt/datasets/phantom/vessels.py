"""The liver's vessels: two branching trees of tubes, and their cross-sections."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .patient import Patient, Plane
from .shapes import Array


@dataclass(frozen=True)
class Tube:
    """A straight piece of a vessel.

    start, end: float64 (3,) in mm (x, y, z); radius in mm; portal: of the portal vein, not of a hepatic vein.
    """

    start: Array
    end: Array
    radius: float
    portal: bool

    @cached_property
    def heights(self) -> tuple[float, float]:
        """The lowest and the highest z that it reaches, mm."""
        ends = float(self.start[2]), float(self.end[2])
        return min(ends) - self.radius, max(ends) + self.radius


def vessel_trees(p: Patient, rng: np.random.Generator) -> list[Tube]:
    """Draw the three hepatic veins, from the IVC, and four branches of the portal vein, from the hilum."""
    mm = np.array([p.ac, p.bc, p.length_mm])
    tubes: list[Tube] = []

    def grow(start: Array, aim: Array, length: float, radius: float, depth: int, portal: bool) -> None:
        aim = aim / np.linalg.norm(aim)
        bend = aim + rng.normal(0, 0.18, 3)
        mid = start + length / 2 * bend / np.linalg.norm(bend)
        end = mid + length / 2 * aim
        tubes.extend([Tube(start, mid, radius, portal), Tube(mid, end, radius * 0.9, portal)])
        # Thinner ones are not seen on CT.
        if depth == 0 or radius < 1.0:
            return
        for _ in range(2):
            grow(
                end,
                aim + rng.normal(0, 0.55, 3),
                length * rng.uniform(0.62, 0.88),
                # Murray's law gives 0.79 for two equal branches.
                radius * rng.uniform(0.64, 0.86),
                depth - 1,
                portal,
            )

    ivc = np.array([p.ivc.cx, p.ivc.cy, 0.2 * p.length_mm])
    fossa = np.array([p.fossa[0], p.fossa[1], 0.5]) * mm
    radius = rng.uniform(3.5, 6.0)
    for goal in (np.array([-0.75, 0.1, 0.5]) * mm, fossa, np.array([0.2, -0.5, 0.33]) * mm):
        grow(ivc, goal - ivc, float(np.linalg.norm(goal - ivc)) * 0.42, radius * rng.uniform(0.8, 1.1), 4, False)
    hilum = np.array([p.hilum[0], p.hilum[1], p.hilum_s]) * mm
    radius = rng.uniform(4, 7)
    for place in ((-0.6, 0.2, 0.5), (-0.55, -0.4, 0.6), (0.05, -0.5, 0.36), (-0.6, 0.0, 0.25)):
        goal = np.array(place) * mm
        grow(hilum, goal - hilum, float(np.linalg.norm(goal - hilum)) * 0.4, radius * rng.uniform(0.65, 1.0), 4, True)
    return tubes


def distance_to(tube: Tube, p: Patient, plane: Plane) -> tuple[tuple[slice, slice], Array] | None:
    """Return the pixels around a tube and their squared distance to its axis, mm^2, float32 (h, w); None off plane."""
    low, high = tube.heights
    z = plane.s * p.length_mm
    if not low <= z <= high:
        return None
    a, b, rad = tube.start, tube.end, tube.radius
    d = b - a
    # Only the part of the tube that is near this plane.
    t0, t1 = (
        sorted(np.clip([(z - rad - a[2]) / d[2], (z + rad - a[2]) / d[2]], 0, 1)) if abs(d[2]) > rad else (0.0, 1.0)
    )
    mx, my = a[:2] + d[:2] * (t0 + t1) / 2
    box = p.box(plane.matrix, mx, my, float(np.hypot(*d[:2]) * (t1 - t0) / 2 + rad))
    x, y = plane.x[box] + plane.fine_x[box], plane.y[box] + plane.fine_y[box]
    d = d.astype(np.float32)
    bx, by, bz = x - np.float32(a[0]), y - np.float32(a[1]), np.float32(z - a[2])
    t = np.clip((bx * d[0] + by * d[1] + bz * d[2]) / (d @ d + np.float32(1e-6)), 0, 1)
    squared: Array = (bx - t * d[0]) ** 2 + (by - t * d[1]) ** 2 + (bz - t * d[2]) ** 2
    return box, squared


def vessel_sections(tubes: list[Tube], p: Patient, plane: Plane) -> tuple[Array, Array]:
    """Return the cross-section of the vessel trees: (all, portal only), both bool (H, W)."""
    out, portal = np.zeros(plane.x.shape, bool), np.zeros(plane.x.shape, bool)
    for tube in tubes:
        found = distance_to(tube, p, plane)
        if found is None:
            continue
        box, squared = found
        hit = squared < tube.radius**2
        out[box] |= hit
        if tube.portal:
            portal[box] |= hit
    return out, portal
