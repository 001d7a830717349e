"""One synthetic CT case: anatomy, lesions and image, slice by slice.

`z_mm` grows caudally from the top of the liver; lesion masks lie inside the liver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .anatomy import Anatomy
from .exposure import Grid, Plane, expose
from .lesion import PHASES, Lesion, density_of
from .organs import Organ
from .placing import Placed, Placer, place_lesions
from .render import Scanner, Textures, Tissue, draw_scanner, draw_tissue, scan_noise, to_int16

__all__ = ["Case", "Lesion", "PhantomSlice", "generate_case"]
# Smaller sections are of the dome or the tip, where lesions do not fit.
_MIN_LIVER_MM2 = 2500.0
# The odds of PHASES: most CT of the abdomen is portal venous.
_PHASE_ODDS = (0.15, 0.25, 0.45, 0.15)
# The share of cases with thick slices, which blur what runs obliquely through them.
_THICK_SHARE = 1 / 3


@dataclass(frozen=True)
class PhantomSlice:
    """One slice: hu int16 (H, W); labels uint8 (H, W), see Organ; decoys uint8 (H, W), see AnatomySlice."""

    hu: np.ndarray
    labels: np.ndarray
    lesions: tuple[Lesion, ...]
    z_mm: float
    decoys: np.ndarray


@dataclass(frozen=True)
class Case:
    """One case: its slices, from cranial to caudal, and how they were scanned."""

    seed: int
    phase: str
    spacing_mm: float
    thickness_mm: float
    slices: tuple[PhantomSlice, ...]
    kvp: int = 120


def _liver_range(a: Anatomy) -> tuple[float, float]:
    """Return the heights s between which the liver's section is large enough."""
    grid = np.linspace(0.04, 0.96, 12)
    n = 40
    px = (a.fov / n) ** 2
    ok = [s for s in grid if (a.lobes_at(float(s), n) > 0).sum() * px > 1.15 * _MIN_LIVER_MM2]
    return (float(ok[0]), float(ok[-1])) if ok else (0.3, 0.6)


class _Camera:
    """The camera that images a case's slices: its anatomy, the lesions in it, and how its images look."""

    def __init__(
        self, a: Anatomy, placer: Placer, placed: list[Placed], look: tuple[Textures, Tissue, Scanner]
    ) -> None:
        self.a, self.placer, self.placed, self.look = a, placer, placed, look
        self.grid = Grid(placer.x, placer.y, placer.h)

    def slice(self, i: int, offsets: np.ndarray, rng: np.random.Generator) -> PhantomSlice:
        """Return slice ``i``, the average of the planes ``offsets`` mm away from it; the middle one is its own."""
        part, z, h = self.placer.parts[i], float(self.placer.zs[i]), self.placer.h
        planes = []
        for offset in offsets:
            s = (z + float(offset)) / self.a.length_mm
            planes.append(Plane(self.a.at(s, self.placer.n) if offset else part, z + float(offset), s))
        masks = {k: (placed, placed.masks[i]) for k, placed in enumerate(self.placed) if i in placed.masks}
        soft, means = expose(planes, self.placer.bulges[i], masks, self.grid, self.look)
        liver, labels = part.lobes > 0, part.labels.copy()
        cy, cx = (float(c) for c in ndimage.center_of_mass(liver)) if liver.any() else (self.placer.n / 2,) * 2
        lesions = []
        for k, mean in means.items():
            placed, m = masks[k]
            labels[m] = np.where(part.lobes[m] == 1, Organ.LIVER_LEFT, Organ.LIVER_RIGHT)
            rows, cols = np.nonzero(m)
            lesions.append(
                Lesion(
                    id=k,
                    type=placed.type,
                    mask=m,
                    lobe="left" if (part.lobes[m] == 1).mean() > 0.5 else "right",
                    diameter_mm=float(2 * np.sqrt(m.sum() / np.pi) * h),
                    centroid_mm=(float((cols.mean() - cx) * h), float((rows.mean() - cy) * h)),
                    density=density_of(mean),
                    enhancement=placed.look.enhancement,
                    margin=placed.look.margin,
                    hu_difference=mean,
                )
            )
        hu = to_int16(soft + scan_noise(rng, self.look[2], part.body_r))
        return PhantomSlice(hu, labels, tuple(lesions), z, part.decoys)


def _draw_offsets(rng: np.random.Generator, step: float) -> np.ndarray:
    """Draw the heights in mm, relative to a slice, of the planes that it averages: one, or three for a thick slice."""
    if rng.random() > _THICK_SHARE:
        return np.zeros(1)
    reach = min(max(step, 2.5), 5.0) * rng.uniform(0.2, 0.35)
    return np.array([-reach, 0.0, reach])


def generate_case(seed: int, n_slices: int, matrix: int = 256) -> Case:
    """Generate a case of n_slices slices over the part of the liver larger than 25 cm^2."""
    streams = [np.random.default_rng(c) for c in np.random.SeedSequence(seed).spawn(4)]
    a = Anatomy(streams[0])
    phase = str(streams[1].choice(PHASES, p=_PHASE_ODDS))
    scanner = draw_scanner(streams[1])
    look = Textures(streams[1]), draw_tissue(streams[1], phase, scanner.kvp), scanner
    lo, hi = (s * a.length_mm for s in _liver_range(a))
    step = float(np.clip((hi - lo) / max(n_slices - 1, 1), 2.5, 8.0))
    # Never leave the liver.
    step = min(step, (hi - lo) / max(n_slices - 1, 1))
    first = lo + streams[1].uniform(0, 1) * max((hi - lo) - step * (n_slices - 1), 0.0)
    zs = first + step * np.arange(n_slices)
    parts = [a.at(float(z / a.length_mm), matrix) for z in zs]
    spacing = a.fov / matrix
    placer = Placer(streams[2], parts, zs, spacing)
    camera = _Camera(a, placer, place_lesions(streams[2], placer, phase, look[1], scanner), look)
    offsets = _draw_offsets(streams[1], step)
    noise = np.random.SeedSequence(seed).spawn(5)[4].spawn(n_slices)
    out = [camera.slice(i, offsets, np.random.default_rng(noise[i])) for i in range(n_slices)]
    return Case(seed, phase, spacing, max(step, 1.0), tuple(out), scanner.kvp)
