"""Place lesions: 3-D shapes of which every cross-section lies in one lobe of the liver, apart from the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .lesion_types import LESION_TYPES, TYPES
from .lesions import MIN_DIAMETER_MM, MIN_PIXELS, Shape, draw_shape
from .looks import Look, draw_look
from .organs import AnatomySlice, Organ
from .render import Scanner, Tissue

# The gap between most lesions: two that touch would be seen as one.
_GAP_MM = 3.0
# The share of lesions to which another may come nearer, leaving a pixel of liver between the masks.
_CLOSE_SHARE = 0.2
# The share of proposals at the liver's surface; half of those bulge out of it.
_SURFACE_SHARE = 0.35
# More than this are hard to distinguish in words.
_MAX_PER_SLICE = 6
# Shares of 0 to 6 wanted lesions per slice.  Not all can be placed, so these ask for more than is intended: a tenth of
# the slices without lesions, a quarter with one, the rest with several.
_WISH = (0.10, 0.07, 0.12, 0.20, 0.23, 0.18, 0.10)
# Diameters are drawn uniformly in their logarithm, so that 10 to 20 mm are as frequent as 20 to 40 mm: most lesions in
# reports are of that size.  A few are as small as can be distinguished from noise.
_TINY_MM = (3.2, 8.0)
_TINY_SHARE = 0.06
# A section narrower than this share of its lesion is a cap: a blur in a thick slice that nobody outlines.
_CAP = 0.4


@dataclass(frozen=True)
class Placed:
    """A lesion in its place."""

    shape: Shape
    look: Look
    type: str
    # By slice, bool (H, W)
    masks: dict[int, np.ndarray]


@dataclass(frozen=True)
class Proposal:
    """A shape and how it may lie in the liver.

    inside: the least share of each section that must be in the liver; the rest is cut off.  bulging: whether the rest
    instead pushes the liver's surface outward where it borders on fat.
    """

    shape: Shape
    inside: float
    bulging: bool


def section_box(shape: Shape, spacing: float, n: int, margin: float = 12.0) -> tuple[slice, slice]:
    """Return the pixels (rows, columns) around a shape; the margin, mm, holds its halo and liver to compare with."""
    r = float(shape.radii[:2].max()) * 1.35 + margin
    c = (shape.center[:2] / spacing) + n / 2
    lo, hi = np.clip(c - r / spacing, 0, n).astype(int), np.clip(c + r / spacing + 1, 0, n).astype(int)
    return slice(lo[1], hi[1]), slice(lo[0], hi[0])


class Placer:
    """A placer of 3-D lesions: every cross-section lies in the liver and in one lobe."""

    def __init__(self, rng: np.random.Generator, parts: list[AnatomySlice], zs: np.ndarray, spacing: float) -> None:
        self.rng, self.parts, self.zs, self.h = rng, parts, zs, spacing
        self.n = parts[0].labels.shape[0]
        axis = (np.arange(self.n) + 0.5 - self.n / 2) * spacing
        self.x, self.y = np.meshgrid(axis, axis)
        self.taken = [part.decoys > 0 for part in parts]
        # Where lesions bulge out of the anatomy's liver, bool (H, W).
        self.bulges = [np.zeros((self.n, self.n), bool) for _ in parts]
        knots = max(int(np.ptp(zs) / 35) + 1, 1)
        wish = rng.choice(7, size=knots, p=_WISH)
        self.wish = wish[np.minimum((np.arange(len(zs)) * knots) // len(zs), knots - 1)]
        self.count = np.zeros(len(zs), int)
        self.side = {1: 0, 2: 0}
        self._depth: dict[tuple[int, int], np.ndarray] = {}

    def depth(self, i: int, lobe: int) -> np.ndarray:
        """Return the distance in mm to the edge of the lobe, float (H, W)."""
        if (i, lobe) not in self._depth:
            m = self.parts[i].lobes == lobe
            self._depth[i, lobe] = np.zeros(m.shape)
            box = _bounds(m)
            self._depth[i, lobe][box] = ndimage.distance_transform_edt(np.pad(m[box], 1))[1:-1, 1:-1] * self.h
        return self._depth[i, lobe]

    def propose(self, type_: str) -> Proposal | None:
        """Draw a shape around a slice that still lacks lesions; None if there is no room."""
        rng, lack = self.rng, np.maximum(self.wish - self.count, 0)
        i = int(rng.choice(len(lack), p=lack / lack.sum()))
        lobe = 1 if self.side[1] <= self.side[2] else 2
        if rng.random() < 0.3:
            lobe = 3 - lobe
        small, large = _TINY_MM if rng.random() < _TINY_SHARE else LESION_TYPES[type_].sizes_mm
        d = float(np.exp(rng.uniform(np.log(small), np.log(large))))
        depth = np.where(self.taken[i], 0, self.depth(i, lobe))
        if depth.max() < 2.5:
            return None
        d = min(d, 1.75 * float(depth.max()))
        if type_ == "calcification" and d < 3.2:
            return None
        surface = rng.random() < _SURFACE_SHARE
        where = depth >= min(0.56 * d + 0.5, float(depth.max()))
        if surface:
            where = (depth > 0.08 * d) & (depth < 0.42 * d)
        rows, cols = np.nonzero(where)
        if not len(rows):
            return None
        k = int(rng.integers(len(rows)))
        z = self.zs[i] + rng.uniform(-0.25, 0.25) * d
        shape = draw_shape(rng, np.array([self.x[rows[k], cols[k]], self.y[rows[k], cols[k]], z]), d, type_)
        return Proposal(shape, 0.55 if surface else 0.97, surface and rng.random() < 0.5)

    def sections(self, proposal: Proposal) -> dict[int, np.ndarray] | None:
        """Return the masks by slice; None if the shape does not fit."""
        out: dict[int, np.ndarray] = {}
        shape = proposal.shape
        box = section_box(shape, self.h, self.n, 6.0)
        reach = 1.35 * shape.radii[2]
        for i in np.flatnonzero(np.abs(self.zs - shape.center[2]) < reach):
            m = shape.local(self.x[box], self.y[box], self.zs[i])[0] < 1
            lobes = self.parts[i].lobes[box]
            if not m.any():
                continue
            inside = m & (lobes > 0)
            near = self.taken[i][box] & m
            if inside.sum() < proposal.inside * m.sum() or near.any() or self.wish[i] == 0:
                return None
            left, within = int((inside & (lobes == 1)).sum()), int(inside.sum())
            visible = inside
            if proposal.bulging:
                visible = _largest(inside | (m & (self.parts[i].labels[box] == Organ.BODY)))
            elif proposal.inside < 0.97:
                visible = _largest(inside)
            area = int(visible.sum())
            least = max(MIN_DIAMETER_MM, _CAP * 2 * float(np.sqrt(shape.radii[0] * shape.radii[1])))
            if area < MIN_PIXELS or 2 * np.sqrt(area / np.pi) * self.h < least:
                continue
            if max(left, within - left) < 0.85 * within or self.count[i] >= min(self.wish[i] + 2, _MAX_PER_SLICE):
                return None
            full = np.zeros((self.n, self.n), bool)
            full[box] = visible
            out[int(i)] = full
        return out or None

    def accept(self, masks: dict[int, np.ndarray]) -> None:
        """Reserve the space, count the lesion, and extend the liver where the lesion bulges out of it."""
        steps = 1 if self.rng.random() < _CLOSE_SHARE else int(np.ceil(_GAP_MM / self.h)) + 1
        for i, m in masks.items():
            box = _bounds(m, steps)
            self.taken[i][box] |= ndimage.binary_dilation(m[box], iterations=steps)
            self.count[i] += 1
            part = self.parts[i]
            outside = m & (part.lobes == 0)
            if outside.any():
                left = bool((part.lobes[m & ~outside] == 1).mean() > 0.5)
                part.lobes[outside] = 1 if left else 2
                part.labels[outside] = Organ.LIVER_LEFT if left else Organ.LIVER_RIGHT
                self.bulges[i] |= outside
        i = next(iter(masks))
        lobes = self.parts[i].lobes[masks[i]]
        self.side[1 if (lobes == 1).mean() > 0.5 else 2] += 1


def _bounds(mask: np.ndarray, margin: int = 0) -> tuple[slice, slice]:
    """Return the rows and columns that hold a mask, with a margin in pixels, clipped to the image."""
    out = []
    for axis in (1, 0):
        found = np.flatnonzero(mask.any(axis))
        low, high = (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)
        out.append(slice(max(low - margin, 0), high + margin))
    return out[0], out[1]


def _largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a mask."""
    parts, count = ndimage.label(mask)
    return mask if count < 2 else parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))


def place_lesions(rng: np.random.Generator, placer: Placer, phase: str, t: Tissue, sc: Scanner) -> list[Placed]:
    """Place lesions until every slice has as many as it wants, or no more fit."""
    odds = rng.dirichlet([one.odds for one in LESION_TYPES.values()])
    placed: list[Placed] = []
    # The number per slice matters, not the number per case, so a long stack gets more than 9.
    limit = max(9, int(1.4 * len(placer.zs)))
    for _ in range(40 + 12 * limit):
        if len(placed) >= limit or not (placer.wish > placer.count).any():
            break
        type_ = str(rng.choice(TYPES, p=odds))
        if placed and placed[-1].type == type_ and rng.random() < 0.6:
            continue
        proposal = placer.propose(type_)
        if proposal is None:
            continue
        masks = placer.sections(proposal)
        if not masks:
            continue
        d = max(2 * np.sqrt(m.sum() / np.pi) * placer.h for m in masks.values())
        look = draw_look(rng, type_, phase, t, sc, d)
        if look is None:
            continue
        placer.accept(masks)
        placed.append(Placed(proposal.shape, look, type_, masks))
    return placed
