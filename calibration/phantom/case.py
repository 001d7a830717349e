"""One synthetic CT case: anatomy, lesions and image, slice by slice.

`z_mm` grows caudally from the top of the liver; lesion masks lie inside the liver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .anatomy import Anatomy, AnatomySlice, Organ
from .lesions import (
    MIN_DIAMETER_MM,
    MIN_PIXELS,
    TYPES,
    Look,
    Shape,
    contrast_needed,
    draw_look,
    draw_shape,
    paint,
)
from .render import PHASES, Scanner, Textures, Tissue, blur, draw_scanner, draw_tissue, scan_noise, to_int16

_MIN_LIVER_MM2 = 2500.0
_GAP_MM = 3.0
_MAX_PER_SLICE = 6
# Wanted lesions per slice, 0 to 6: a tenth none, a quarter one, the rest several. Placing
# falls short of the wish, so the wish is set higher than the result it is to give.
_WISH = (0.10, 0.07, 0.12, 0.20, 0.23, 0.18, 0.10)
_PHASE_ODDS = (0.15, 0.25, 0.45, 0.15)


@dataclass(frozen=True)
class Lesion:
    """A lesion as seen in ONE slice."""

    id: int  # the 3-D lesion's number in its case
    type: str
    mask: np.ndarray  # bool (H, W), its cross-section
    lobe: str  # "left" | "right" of the patient
    diameter_mm: float  # 2 sqrt(area / pi)
    centroid_mm: tuple[float, float]  # (to patient left, to posterior) of the liver's centroid
    density: str  # "low" | "iso" | "high", measured against the surrounding liver
    enhancement: str  # "none" | "rim" | "nodular" | "homogeneous" | "heterogeneous"
    margin: str  # "sharp" | "ill-defined"


@dataclass(frozen=True)
class PhantomSlice:
    """hu int16 (H, W); labels uint8 (H, W), see Organ."""

    hu: np.ndarray
    labels: np.ndarray
    lesions: tuple[Lesion, ...]
    z_mm: float


@dataclass(frozen=True)
class Case:
    """Slices from cranial to caudal."""

    seed: int
    phase: str
    spacing_mm: float
    thickness_mm: float
    slices: tuple[PhantomSlice, ...]


@dataclass(frozen=True)
class _Placed:
    shape: Shape
    look: Look
    type: str
    masks: dict[int, np.ndarray]  # by slice, bool (H, W)


def _liver_range(a: Anatomy) -> tuple[float, float]:
    """The heights s between which the liver's section is large enough."""
    grid = np.linspace(0.04, 0.96, 12)
    n = 40
    px = (a.fov / n) ** 2
    ok = [s for s in grid if (a.at(float(s), n).lobes > 0).sum() * px > 1.15 * _MIN_LIVER_MM2]
    return (float(ok[0]), float(ok[-1])) if ok else (0.3, 0.6)


def _box(shape: Shape, spacing: float, n: int, margin: float = 12.0) -> tuple[slice, slice]:
    r = float(shape.radii[:2].max()) * 1.35 + margin
    c = (shape.centre[:2] / spacing) + n / 2
    lo, hi = np.clip(c - r / spacing, 0, n).astype(int), np.clip(c + r / spacing + 1, 0, n).astype(int)
    return slice(lo[1], hi[1]), slice(lo[0], hi[0])


class _Placer:
    """Puts 3-D lesions where every cross-section lies in the liver and in one lobe."""

    def __init__(self, rng: np.random.Generator, parts: list[AnatomySlice], zs: np.ndarray, spacing: float) -> None:
        self.rng, self.parts, self.zs, self.h = rng, parts, zs, spacing
        self.n = parts[0].labels.shape[0]
        axis = (np.arange(self.n) + 0.5 - self.n / 2) * spacing
        self.x, self.y = np.meshgrid(axis, axis)
        self.taken = [np.zeros((self.n, self.n), bool) for _ in parts]
        knots = max(int(np.ptp(zs) / 35) + 1, 1)
        wish = rng.choice(7, size=knots, p=_WISH)
        self.wish = wish[np.minimum((np.arange(len(zs)) * knots) // len(zs), knots - 1)]
        self.count = np.zeros(len(zs), int)
        self.side = {1: 0, 2: 0}
        self._depth: dict[tuple[int, int], np.ndarray] = {}

    def depth(self, i: int, lobe: int) -> np.ndarray:
        """Distance in mm to the edge of the lobe, float (H, W)."""
        if (i, lobe) not in self._depth:
            m = self.parts[i].lobes == lobe
            self._depth[i, lobe] = ndimage.distance_transform_edt(m) * self.h
        return self._depth[i, lobe]

    def propose(self, type_: str) -> Shape | None:
        """A shape around a slice that still wants lesions."""
        rng, lack = self.rng, np.maximum(self.wish - self.count, 0)
        i = int(rng.choice(len(lack), p=lack / lack.sum()))
        lobe = 1 if self.side[1] <= self.side[2] else 2
        if rng.random() < 0.3:
            lobe = 3 - lobe
        small, large = (3.5, 15) if type_ == "calcification" else (6, 52)
        if rng.random() < 0.06:
            small, large = 3.2, 7
        d = float(np.exp(rng.uniform(np.log(small), np.log(large))))
        depth = np.where(self.taken[i], 0, self.depth(i, lobe))
        if depth.max() < 2.5:
            return None
        d = min(d, 1.75 * float(depth.max()))
        if type_ == "calcification" and d < 3.2:
            return None
        rows, cols = np.nonzero(depth >= min(0.56 * d + 0.5, float(depth.max())))
        k = int(rng.integers(len(rows)))
        z = self.zs[i] + rng.uniform(-0.25, 0.25) * d
        return draw_shape(rng, np.array([self.x[rows[k], cols[k]], self.y[rows[k], cols[k]], z]), d, type_)

    def sections(self, shape: Shape) -> dict[int, np.ndarray] | None:
        """Masks by slice, or None where the shape does not fit."""
        out: dict[int, np.ndarray] = {}
        box = _box(shape, self.h, self.n, 6.0)
        reach = 1.35 * shape.radii[2]
        for i in np.flatnonzero(np.abs(self.zs - shape.centre[2]) < reach):
            m = shape.local(self.x[box], self.y[box], self.zs[i])[0] < 1
            lobes = self.parts[i].lobes[box]
            if not m.any():
                continue
            inside = m & (lobes > 0)
            near = self.taken[i][box] & m
            if inside.sum() < 0.97 * m.sum() or near.any() or self.wish[i] == 0:
                return None
            area = int(inside.sum())
            left = int((inside & (lobes == 1)).sum())
            if area < MIN_PIXELS or 2 * np.sqrt(area / np.pi) * self.h < MIN_DIAMETER_MM:
                continue
            if max(left, area - left) < 0.85 * area or self.count[i] >= min(self.wish[i] + 2, _MAX_PER_SLICE):
                return None
            full = np.zeros((self.n, self.n), bool)
            full[box] = inside
            out[int(i)] = full
        return out or None

    def accept(self, masks: dict[int, np.ndarray]) -> None:
        """Books the space and the counts."""
        steps = int(np.ceil(_GAP_MM / self.h)) + 1
        for i, m in masks.items():
            self.taken[i] |= ndimage.binary_dilation(m, iterations=steps)
            self.count[i] += 1
        i = next(iter(masks))
        lobes = self.parts[i].lobes[masks[i]]
        self.side[1 if (lobes == 1).mean() > 0.5 else 2] += 1


def _place(rng: np.random.Generator, placer: _Placer, phase: str, t: Tissue, sc: Scanner) -> list[_Placed]:
    odds = rng.dirichlet([1.0, 1.3, 1.3, 0.8, 0.9, 0.6])
    placed: list[_Placed] = []
    # The number a slice matters, not the number a case, so a long stack gets more than 9.
    limit = max(9, int(1.4 * len(placer.zs)))
    for _ in range(40 + 12 * limit):
        if len(placed) >= limit or not (placer.wish > placer.count).any():
            break
        type_ = str(rng.choice(TYPES, p=odds))
        if placed and placed[-1].type == type_ and rng.random() < 0.6:
            continue
        shape = placer.propose(type_)
        masks = placer.sections(shape) if shape is not None else None
        if not masks:
            continue
        d = max(2 * np.sqrt(m.sum() / np.pi) * placer.h for m in masks.values())
        look = draw_look(rng, type_, phase, t, sc, d)
        if look is None:
            continue
        placer.accept(masks)
        placed.append(_Placed(shape, look, type_, masks))
    return placed


def _contrasts(hu: np.ndarray, mask: np.ndarray, liver: np.ndarray) -> tuple[float, float]:
    """HU of (mean, rim) minus the surrounding liver's median; boxes (h, w)."""
    ref = float(np.median(hu[liver])) if liver.sum() > 8 else float("nan")
    inner = ndimage.binary_erosion(mask, iterations=2)
    rim = mask & ~inner
    return float(hu[mask].mean()) - ref, float(hu[rim].mean()) - ref


def _slice(
    i: int,
    placer: _Placer,
    placed: list[_Placed],
    tex: Textures,
    t: Tissue,
    sc: Scanner,
    rng: np.random.Generator,
    s: float,
) -> PhantomSlice:
    part, h, n = placer.parts[i], placer.h, placer.n
    clean, labels = tex.compose(part, t, s), part.labels.copy()
    liver = part.lobes > 0
    todo = [(k, p, p.masks[i], _box(p.shape, h, n)) for k, p in enumerate(placed) if i in p.masks]
    free = liver & (labels != Organ.VESSEL)
    for *_, m, _b in todo:
        free &= ~m
    gains = {k: 1.0 for k, *_ in todo}
    found: dict[int, tuple[float, float]] = {}
    for attempt in range(3):
        trial = clean.copy()
        for k, p, m, b in todo:
            if gains[k]:
                paint(trial[b], p.shape, p.look, placer.x[b], placer.y[b], placer.zs[i], liver[b], gains[k])
        soft = blur(trial, sc)
        weak = False
        for k, p, m, b in todo:
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
                density="low" if mean < -12 else "high" if mean > 12 else "iso",
                enhancement=p.look.enhancement,
                margin=p.look.margin,
            )
        )
    hu = to_int16(soft + scan_noise(rng, sc, part.body_r))
    return PhantomSlice(hu, labels, tuple(lesions), float(placer.zs[i]))


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
    placer = _Placer(streams[2], parts, zs, spacing)
    placed = _place(streams[2], placer, phase, t, sc)
    noise = np.random.SeedSequence(seed).spawn(5)[4].spawn(n_slices)
    out = [
        _slice(i, placer, placed, tex, t, sc, np.random.default_rng(noise[i]), float(zs[i] / a.length_mm))
        for i in range(n_slices)
    ]
    return Case(seed, phase, spacing, max(step, 1.0), tuple(out))
