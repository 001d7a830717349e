"""The noise-free image of one slice, made of anatomy and lesions with enough contrast to be seen."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
from scipy import ndimage

from .lesions import paint
from .looks import contrast_needed
from .organs import AnatomySlice, Organ
from .placing import Placed, section_box
from .render import Scanner, Textures, Tissue, blur


@dataclass(frozen=True)
class Plane:
    """One of the thin planes that a slice averages: its anatomy, and its height as z in mm and as s, 0 to 1."""

    part: AnatomySlice
    z: float
    s: float


@dataclass(frozen=True)
class Grid:
    """The pixels of a case: x, y float64 (H, W), mm in the image frame, and their spacing in mm."""

    x: np.ndarray
    y: np.ndarray
    spacing: float


def expose(
    planes: list[Plane],
    bulge: np.ndarray,
    masks: dict[int, tuple[Placed, np.ndarray]],
    grid: Grid,
    look: tuple[Textures, Tissue, Scanner],
) -> tuple[np.ndarray, dict[int, float]]:
    """Return the image before noise, and the lesions that can be seen in it.

    Args:
        planes: the planes that the slice averages; the middle one is the slice's own.
        bulge: bool (H, W), where lesions push the liver's surface out.
        masks: lesions by number, with their masks, bool (H, W), in this slice.
        grid: the pixels of the case.
        look: texture, tissue values and scanner of the case.

    Returns:
        The image, float32 (H, W) in HU, and by the lesions' numbers their HU minus the liver's.  A lesion that stays
        too faint is neither in the image nor among the numbers.
    """
    (tex, t, sc), middle = look, planes[len(planes) // 2].part
    for plane in planes:
        # The same lesions bulge out of the planes beside the slice's own.
        grown = bulge & (plane.part.labels == Organ.BODY)
        plane.part.lobes[grown] = middle.lobes[grown]
        plane.part.labels[grown] = middle.labels[grown]
    clean = [tex.compose(plane.part, t, plane.s) for plane in planes]
    livers = [plane.part.lobes > 0 for plane in planes]
    boxes = {k: section_box(placed.shape, grid.spacing, len(bulge)) for k, (placed, _) in masks.items()}
    free = (middle.lobes > 0) & (middle.labels != Organ.VESSEL) & (middle.decoys == 0)
    for _, mask in masks.values():
        free &= ~mask
    gains = dict.fromkeys(masks, 1.0)
    means: dict[int, float] = {}
    # Repeat until the image holds only lesions that can be seen; from the second attempt on, faint ones are removed.
    for attempt in count():
        trials = [hu.copy() for hu in clean]
        for k, gain in gains.items():
            b, placed = boxes[k], masks[k][0]
            for plane, trial, liver in zip(planes, trials, livers, strict=True):
                paint(trial[b], placed.shape, placed.look, grid.x[b], grid.y[b], plane.z, liver[b], gain)
        soft = blur(trials[0] if len(trials) == 1 else np.mean(trials, axis=0), sc)
        weak = False
        for k, (_, mask) in masks.items():
            if k not in gains:
                continue
            b = boxes[k]
            means[k], rim = _contrasts(soft[b], mask[b], free[b])
            need = contrast_needed(sc, 2 * np.sqrt(mask.sum() / np.pi) * grid.spacing)
            got = max(abs(means[k]), abs(rim))
            if not got >= need:
                # Raise its contrast once, then remove it: an invisible lesion would be a false truth.
                weak = True
                if attempt or not got > 0.35 * need:
                    del gains[k]
                else:
                    gains[k] = 1.15 * need / got
        if not weak:
            break
    return soft, {k: means[k] for k in gains}


def _contrasts(hu: np.ndarray, mask: np.ndarray, liver: np.ndarray) -> tuple[float, float]:
    """Return the HU of (mean, rim) minus the surrounding liver's median; boxes (h, w)."""
    ref = float(np.median(hu[liver])) if liver.sum() > 8 else float("nan")
    inner = ndimage.binary_erosion(mask, iterations=2)
    rim = mask & ~inner
    return float(hu[mask].mean()) - ref, float(hu[rim].mean()) - ref
