"""What a liver contains besides lesions: geographic fat, perfusion differences and wide bile ducts.

No sentence means them, and no lesion is placed on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .organs import Organ, Value
from .patient import Patient
from .shapes import Array, bump, oval
from .spots import INSIDE, Canvas, allowed, coverage
from .vessels import Tube, distance_to

_LIVER = frozenset((Organ.LIVER_LEFT, Organ.LIVER_RIGHT))


@dataclass(frozen=True)
class Patch:
    """An area with an irregular outline and no mass, beside a fissure or the gallbladder.

    center and radii (u, v) in the cavity frame; s, half: its height and half extent.  ragged: how far noise moves its
    edge; soft: how gently it fades.
    """

    center: tuple[float, float]
    radii: tuple[float, float]
    s: float
    half: float
    ragged: float
    soft: float
    value: Value


@dataclass(frozen=True)
class Wedge:
    """A sector of the liver with another blood supply, with straight edges from its apex (u, v) to the surface."""

    apex: tuple[float, float]
    direction: float
    spread: float
    s: float
    half: float
    value: Value


class Mimics:
    """The mimics in one patient's liver."""

    def __init__(self, p: Patient, tubes: list[Tube], rng: np.random.Generator) -> None:
        u = rng.uniform
        places = ((p.notch.x, -0.55), (p.fossa[0], p.fossa[1] + 0.2), (p.hilum[0], p.hilum[1] - 0.15))
        self.patches = []
        for _ in range(int(rng.choice(3, p=(0.72, 0.2, 0.08)))):
            offset = u(-28, -10) if rng.random() < 0.7 else u(12, 28)
            value = Value(offset, ((Organ.LIVER_LEFT, 1.0),))
            place = places[int(rng.integers(3))]
            size = (u(0.05, 0.18), u(0.08, 0.25))
            self.patches.append(Patch(place, size, u(0.3, 0.6), u(0.08, 0.2), u(0.2, 0.45), u(0.15, 0.6), value))
        self.wedge = None
        if rng.random() < 0.12:
            # Brighter where the artery makes up for a portal branch; nothing to see without contrast medium.
            value = Value(-4.0, ((Organ.LIVER_LEFT, 1.0), (Organ.AORTA, u(0.06, 0.16))))
            self.wedge = Wedge(
                (u(-0.6, -0.3), u(-0.3, 0.3)), u(0, 2 * np.pi), u(0.15, 0.45), u(0.2, 0.7), u(0.06, 0.2), value
            )
        self.ducts: list[Tube] = []
        self.duct_value = Value(0.0, ((Organ.GALLBLADDER, 1.0),))
        if rng.random() < 0.12:
            self._draw_ducts(tubes, rng)

    def _draw_ducts(self, tubes: list[Tube], rng: np.random.Generator) -> None:
        """Draw wide bile ducts beside the portal vein's branches; a few hold gas, as after a stent."""
        if rng.random() < 0.2:
            self.duct_value = Value(rng.uniform(-600, -150))
        angle, wide = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.1)
        for tube in tubes:
            radius = min(wide * tube.radius, 5.0)
            if tube.portal and radius > 0.9:
                away = (tube.radius + radius) * np.array([np.cos(angle), np.sin(angle), 0.0])
                self.ducts.append(Tube(tube.start + away, tube.end + away, radius, False))

    def paint(self, canvas: Canvas, liver: Array) -> None:
        """Paint their sections in this plane within ``liver``, bool (H, W), which includes its vessels."""
        plane, p = canvas.plane, canvas.p
        for patch in self.patches:
            g = bump(plane.s, patch.s, patch.half)
            if g > 0.2:
                d = oval(plane.u, plane.v, *patch.center, patch.radii[0] * g, patch.radii[1] * g)
                d += np.float32(patch.ragged) * p.layer.at(plane.s, plane.matrix)
                self._cover(canvas, np.clip((1 - d) / np.float32(patch.soft), 0, 1), patch.value)
        if self.wedge is not None:
            g = bump(plane.s, self.wedge.s, self.wedge.half)
            if g > 0.2:
                du, dv = plane.u - self.wedge.apex[0], plane.v - self.wedge.apex[1]
                c, s = np.cos(self.wedge.direction), np.sin(self.wedge.direction)
                along, across = c * du + s * dv, c * dv - s * du
                sector = (np.tan(self.wedge.spread) * g * along - np.abs(across)) * np.float32(p.ac / canvas.pixel)
                self._cover(canvas, np.clip(sector, 0, 1), self.wedge.value)
        free = allowed(_LIVER | {Organ.VESSEL})
        for tube in self.ducts:
            found = distance_to(tube, p, plane)
            if found is not None:
                box, squared = found
                d = np.sqrt(squared) / np.float32(tube.radius)
                share = coverage(d, tube.radius, canvas.pixel) * (free[canvas.lab[box]] & liver[box])
                canvas.cover(box, share, Organ.GALLBLADDER, self.duct_value, INSIDE)

    def _cover(self, canvas: Canvas, share: Array, value: Value) -> None:
        whole = (slice(0, share.shape[0]), slice(0, share.shape[1]))
        canvas.cover(whole, share.astype(np.float32) * allowed(_LIVER)[canvas.lab], None, value, INSIDE)
