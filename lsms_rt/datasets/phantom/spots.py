"""Small structures painted over the organs: where they lie in 3-D, how they cover pixels, and their HU."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from .organs import Organ, Spot, Value
from .patient import Patient, Plane
from .shapes import Array, bump, oval

# The values of a map of decoys: outside or inside the liver.
OUTSIDE, INSIDE = 1, 2


@dataclass(frozen=True)
class Blob:
    """An ellipsoid that covers only the tissues named in ``on``.

    center, radii: (x, y, z) in mm in the patient's frame.  label: of its pixels.  rim, rim_mm: the value and width of
    an outer band, if it has one.  decoy: whether it merely looks like a lesion.
    """

    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    on: frozenset[Organ]
    label: Organ
    value: Value
    tilt: float = 0.0
    rim: Value | None = None
    rim_mm: float = 0.0
    decoy: bool = True


@cache
def allowed(on: frozenset[Organ]) -> Array:
    """Return a table over labels, bool (32,), to be indexed with a label map."""
    table = np.zeros(32, bool)
    table[list(on)] = True
    return table


class Canvas:
    """One slice's label map, uint8 (H, W), with the spots painted over it so far."""

    def __init__(self, p: Patient, plane: Plane, lab: Array) -> None:
        self.p, self.plane, self.lab = p, plane, lab
        self.z, self.pixel = plane.s * p.length_mm, p.fov / plane.matrix
        self.spots: list[Spot] = []
        self.decoys = np.zeros(lab.shape, np.uint8)

    def blob(self, blob: Blob) -> None:
        """Paint the section of a blob, if this plane cuts it."""
        (cx, cy, cz), (rx, ry, rz) = blob.center, blob.radii
        g = bump(self.z, cz, rz)
        if g < 0.1:
            return
        rx, ry = rx * g, ry * g
        box = self.p.box(self.plane.matrix, cx, cy, max(rx, ry))
        d = oval(self.plane.x[box], self.plane.y[box], cx, cy, rx, ry, blob.tilt)
        free = allowed(blob.on)[self.lab[box]]
        place = OUTSIDE if blob.decoy else 0
        outer = coverage(d, min(rx, ry), self.pixel) * free
        if blob.rim is None:
            self.cover(box, outer, blob.label, blob.value, place)
            return
        self.cover(box, outer, blob.label, blob.rim, place)
        self.cover(box, coverage(d, min(rx, ry), self.pixel, blob.rim_mm) * free, blob.label, blob.value, place)

    def cover(self, box: tuple[slice, slice], share: Array, label: Organ | None, value: Value, place: int = 0) -> None:
        """Cover a share, float32 (h, w), 0 to 1, of each pixel of ``box``; label those that are covered by half."""
        most = share > 0.5
        if label is not None:
            self.lab[box][most] = label
        if place:
            self.decoys[box][share > 0.1] = place
        rows, cols = np.nonzero(share > 0.02)
        if len(rows):
            self.spots.append(Spot(rows + box[0].start, cols + box[1].start, share[rows, cols], value))


def coverage(d: Array, radius: float, pixel: float, inset_mm: float = 0.0) -> Array:
    """Return the share of each pixel within the ellipse where d < 1, or within one narrower by ``inset_mm``.

    d: float32 (h, w), a normalized radius; radius and pixel in mm.
    """
    share: Array = np.clip(((1 - d) * np.float32(radius) - np.float32(inset_mm)) / np.float32(pixel) + 0.5, 0, 1)
    return share
