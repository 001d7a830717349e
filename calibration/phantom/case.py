"""One synthetic CT case: anatomy, lesions and image, slice by slice.

`z_mm` grows caudally from the top of the liver; lesion masks lie inside the liver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .anatomy import Anatomy
from .lesion import Lesion, density_of
from .lesions import paint
from .looks import contrast_needed
from .organs import Organ
from .placing import Placed, Placer, place_lesions, section_box
from .render import PHASES, Scanner, Textures, Tissue, blur, draw_scanner, draw_tissue, scan_noise, to_int16

__all__ = ["Case", "Lesion", "PhantomSlice", "generate_case"]
_MIN_LIVER_MM2 = 2500.0  # smaller sections are the dome or the tip, with no room for lesions
_PHASE_ODDS = (0.15, 0.25, 0.45, 0.15)  # of PHASES: most CT of the abdomen is portal venous


@dataclass(frozen=True)
class PhantomSlice:
    """hu int16 (H, W); labels uint8 (H, W), see Organ; decoys uint8 (H, W), see AnatomySlice."""

    hu: np.ndarray
    labels: np.ndarray
    lesions: tuple[Lesion, ...]
    z_mm: float
    decoys: np.ndarray


@dataclass(frozen=True)
class Case:
    """Slices from cranial to caudal."""

    seed: int
    phase: str
    spacing_mm: float
    thickness_mm: float
    slices: tuple[PhantomSlice, ...]


def _liver_range(a: Anatomy) -> tuple[float, float]:
    """The heights s between which the liver's section is large enough."""
    grid = np.linspace(0.04, 0.96, 12)
    n = 40
    px = (a.fov / n) ** 2
    ok = [s for s in grid if (a.at(float(s), n).lobes > 0).sum() * px > 1.15 * _MIN_LIVER_MM2]
    return (float(ok[0]), float(ok[-1])) if ok else (0.3, 0.6)


def _contrasts(hu: np.ndarray, mask: np.ndarray, liver: np.ndarray) -> tuple[float, float]:
    """HU of (mean, rim) minus the surrounding liver's median; boxes (h, w)."""
    ref = float(np.median(hu[liver])) if liver.sum() > 8 else float("nan")
    inner = ndimage.binary_erosion(mask, iterations=2)
    rim = mask & ~inner
    return float(hu[mask].mean()) - ref, float(hu[rim].mean()) - ref


def _slice(
    i: int,
    placer: Placer,
    placed: list[Placed],
    tex: Textures,
    t: Tissue,
    sc: Scanner,
    rng: np.random.Generator,
    s: float,
) -> PhantomSlice:
    part, h, n = placer.parts[i], placer.h, placer.n
    clean, labels = tex.compose(part, t, s), part.labels.copy()
    liver = part.lobes > 0
    todo = [(k, p, p.masks[i], section_box(p.shape, h, n)) for k, p in enumerate(placed) if i in p.masks]
    free = liver & (labels != Organ.VESSEL)
    for *_, m, _b in todo:
        free &= ~m
    gains = {k: 1.0 for k, *_ in todo}
    found: dict[int, tuple[float, float]] = {}
    for attempt in range(3):
        trial = clean.copy()
        for k, p, _m, b in todo:
            if gains[k]:
                paint(trial[b], p.shape, p.look, placer.x[b], placer.y[b], placer.zs[i], liver[b], gains[k])
        soft = blur(trial, sc)
        weak = False
        for k, _p, m, b in todo:
            if not gains[k]:
                continue
            found[k] = _contrasts(soft[b], m[b], free[b])
            need = contrast_needed(sc, 2 * np.sqrt(m.sum() / np.pi) * h)
            got = max(abs(found[k][0]), abs(found[k][1]))
            if not got >= need:
                # Twice louder, then not at all: an invisible lesion would be a false truth.
                gains[k] = 0.0 if attempt or not got > 0.35 * need else 1.15 * need / got
                weak = True
        if not weak:
            break
    cy, cx = (float(c) for c in ndimage.center_of_mass(liver)) if liver.any() else (n / 2, n / 2)
    lesions = []
    for k, p, m, _b in todo:
        if not gains[k]:
            continue
        labels[m] = np.where(part.lobes[m] == 1, Organ.LIVER_LEFT, Organ.LIVER_RIGHT)
        rows, cols = np.nonzero(m)
        mean = found[k][0]
        lesions.append(
            Lesion(
                id=k,
                type=p.type,
                mask=m,
                lobe="left" if (part.lobes[m] == 1).mean() > 0.5 else "right",
                diameter_mm=float(2 * np.sqrt(m.sum() / np.pi) * h),
                centroid_mm=(float((cols.mean() - cx) * h), float((rows.mean() - cy) * h)),
                density=density_of(mean),
                enhancement=p.look.enhancement,
                margin=p.look.margin,
                hu_difference=round(mean, 2),
            )
        )
    hu = to_int16(soft + scan_noise(rng, sc, part.body_r))
    return PhantomSlice(hu, labels, tuple(lesions), float(placer.zs[i]), part.decoys)


def generate_case(seed: int, n_slices: int, matrix: int = 256) -> Case:
    """A case of n_slices slices over the part of the liver larger than 25 cm^2."""
    streams = [np.random.default_rng(c) for c in np.random.SeedSequence(seed).spawn(4)]
    a = Anatomy(streams[0])
    phase = str(streams[1].choice(PHASES, p=_PHASE_ODDS))
    t, sc, tex = draw_tissue(streams[1], phase), draw_scanner(streams[1]), Textures(streams[1])
    lo, hi = (s * a.length_mm for s in _liver_range(a))
    step = float(np.clip((hi - lo) / max(n_slices - 1, 1), 2.5, 8.0))
    step = min(step, (hi - lo) / max(n_slices - 1, 1))  # never leave the liver
    first = lo + streams[1].uniform(0, 1) * max((hi - lo) - step * (n_slices - 1), 0.0)
    zs = first + step * np.arange(n_slices)
    parts = [a.at(float(z / a.length_mm), matrix) for z in zs]
    spacing = a.fov / matrix
    placer = Placer(streams[2], parts, zs, spacing)
    placed = place_lesions(streams[2], placer, phase, t, sc)
    noise = np.random.SeedSequence(seed).spawn(5)[4].spawn(n_slices)
    out = [
        _slice(i, placer, placed, tex, t, sc, np.random.default_rng(noise[i]), float(zs[i] / a.length_mm))
        for i in range(n_slices)
    ]
    return Case(seed, phase, spacing, max(step, 1.0), tuple(out))
