"""The 3-D geometry of one random upper abdomen, evaluated one axial slice at a time.

Organs are painted over each other, and later ones win; `patient` explains the frames.
"""

from __future__ import annotations

import numpy as np

from .chest import paint_chest, paint_layers
from .decoys import draw_decoys
from .liver import liver_outline, paint_liver
from .mimics import Mimics
from .organs import AnatomySlice, Organ, Value
from .patient import Patient, Plane
from .shapes import Array, bump, oval, ramp
from .skeleton import paint_outside, paint_spine
from .spots import Canvas
from .trunks import draw_adrenals, draw_trunks, paint_trunks
from .vessels import vessel_sections, vessel_trees
from .viscera import paint_gut, paint_retroperitoneum, paint_viscera

__all__ = ["Anatomy", "AnatomySlice", "Organ"]


class Anatomy:
    """The anatomy of one patient.  All random choices are made here; `at` is a pure function of s."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.patient = Patient(rng)
        self.fov, self.length_mm = self.patient.fov, self.patient.length_mm
        self.tubes = vessel_trees(self.patient, rng)
        self.trunks = draw_trunks(self.patient, rng)
        self.mimics = Mimics(self.patient, self.tubes, rng)
        self.blobs = draw_adrenals(self.patient, rng) + draw_decoys(self.patient, rng)

    def lobes_at(self, s: float, matrix: int) -> Array:
        """Return only the lobes of :meth:`at`, in half of its time."""
        return self._up_to_liver(s, matrix)[1]

    def _up_to_liver(self, s: float, matrix: int) -> tuple[Canvas, Array, Array, Array]:
        """Paint what is painted until the liver is complete; return the canvas, lobes, hilum, and normalized radius."""
        p, plane = self.patient, self.patient.plane(s, matrix)
        x, y = plane.x, plane.y
        lab = np.zeros((matrix, matrix), np.uint8)
        outer = (p.ac + p.wall, p.bc + p.wall)
        # More fat behind and at the flanks than in front, as is usual when supine.
        back = p.fat * (0.8 + 0.3 * np.clip(y / outer[1], -1, 1))
        body_r = np.sqrt((x / (outer[0] + p.fat)) ** 2 + (y / (outer[1] + back)) ** 2)
        lab[body_r < 1] = Organ.BODY
        wall_r = oval(x, y, 0, 0, *outer)
        lab[wall_r < 1] = Organ.MUSCLE
        room, abdomen = _paint_cavity(lab, p, plane)
        canvas = Canvas(p, plane, lab)
        paint_layers(canvas, wall_r)
        liver = liver_outline(p, plane, abdomen) & room
        paint_viscera(lab, p, plane, room & (abdomen < 0.97))
        lobes, hilum = paint_liver(lab, p, plane, liver)
        paint_retroperitoneum(lab, p, plane)
        paint_spine(canvas)
        liver_kept = (lab == Organ.LIVER_LEFT) | (lab == Organ.LIVER_RIGHT)
        lobes[~liver_kept] = 0
        return canvas, lobes, hilum, body_r

    def at(self, s: float, matrix: int) -> AnatomySlice:
        """Return the maps at height s, 0 at the top of the liver and 1 at its tip."""
        canvas, lobes, hilum, body_r = self._up_to_liver(s, matrix)
        p, plane, lab, liver_kept = self.patient, canvas.plane, canvas.lab, lobes > 0
        vessel, portal = vessel_sections(self.tubes, p, plane)
        portal &= liver_kept | (hilum & (lab == Organ.BODY))
        vessel &= liver_kept | portal
        lab[vessel] = Organ.VESSEL
        portal |= paint_trunks(lab, p, plane, self.trunks)
        _paint_fluid(canvas, p)
        self.mimics.paint(canvas, liver_kept)
        paint_chest(canvas, p)
        for blob in self.blobs:
            canvas.blob(blob)
        paint_outside(lab, p, plane, body_r)
        portal &= lab == Organ.VESSEL
        return AnatomySlice(lab, lobes, portal, body_r, tuple(canvas.spots), canvas.decoys)


def _paint_cavity(lab: Array, p: Patient, plane: Plane) -> tuple[Array, Array]:
    """Paint lung, diaphragm, bowel and heart; return the room that is left for the abdomen.

    Returns:
        The room, bool (H, W), and a normalized radius, float32 (H, W), that is 1 at the abdomen's edge: under the dome
        of the diaphragm the abdomen is smaller than the cavity.
    """
    u, v, s = plane.u, plane.v, plane.s
    inside = oval(u, v, 0, 0, 1, 1) < 1
    t = ramp(s / p.s_lung)
    # A recess thinner than a pixel would be a dotted line.
    t = 1.0 if t > 0.93 else t
    q = p.q0 + (1 - p.q0) * t
    # The dome is on the right and in front.
    abdomen = oval(u, v, -0.10 * (1 - t), -0.16 * (1 - t), q, q)
    lab[inside] = Organ.LUNG if t < 1 else Organ.BODY
    room = inside & (abdomen < 1)
    lab[room] = Organ.BODY
    # The diaphragm: a thin sheet between lung and abdomen.
    if t < 1:
        lab[inside & (abdomen >= 1) & (abdomen < 1.02)] = Organ.MUSCLE
    paint_gut(lab, p, plane, room & (abdomen < 0.95))
    hb = bump(s, 0.0, p.heart_half)
    if hb > 0.3:
        h = p.heart
        lab[inside & (oval(u, v, h.cx, h.cy, h.rx * hb, h.ry * hb) < 1)] = Organ.HEART
    return room, abdomen


def _paint_fluid(canvas: Canvas, p: Patient) -> None:
    """Paint pleural effusion, which sinks to the back, and ascites around the liver."""
    lab, plane = canvas.lab, canvas.plane
    whole = (slice(0, lab.shape[0]), slice(0, lab.shape[1]))
    for level, organ in ((p.effusion, Organ.LUNG), (p.ascites, Organ.BODY)):
        if level is not None:
            inside = oval(plane.u, plane.v, 0, 0, 1, 1) < 0.97
            fluid = inside & (lab == organ) & (plane.v > level)
            canvas.cover(whole, fluid.astype(np.float32), Organ.SOFT, Value(p.fluid))
