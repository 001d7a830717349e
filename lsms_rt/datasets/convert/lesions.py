"""From the masks of one slice to its lesions, with what can be measured of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.datasets.phantom.lesion import Lesion, density_of
from lsms_rt.errors import InputError

from .source import Volume

# Smaller pieces are the cut edge of a lesion: nobody would point at them, and nobody can measure them.
MIN_PIXELS = 8
# The organ's density is measured in a ring: not the blurred edge itself, and not the other end of the organ.
RING_MM = (2.0, 12.0)
MIN_RING_PIXELS = 50
# A lesion is in a lobe if it holds at least this share of what the masks of both lobes say about it.
LOBE_SHARE = 0.9
UNKNOWN = "unknown"


@dataclass(frozen=True)
class SliceLesions:
    """The lesions of one slice.

    Attributes:
        lesions: one per connected piece, the largest first.
        density_known: whether the density of every lesion was measured against its organ.
        lobes_known: whether every lesion is in one lobe.
        organ: the organ that all lesions are in, or "".
    """

    lesions: tuple[Lesion, ...]
    density_known: bool
    lobes_known: bool
    organ: str


def has_small_piece(volume: Volume, n: int) -> bool:
    """Return whether a lesion of slice ``n`` has a piece below ``MIN_PIXELS``."""
    return any(int(piece.sum()) < MIN_PIXELS for piece, _ in _pieces(volume, n))


def lesions_of(volume: Volume, n: int) -> SliceLesions:
    """Measure the lesions of slice ``n``.

    Pieces that touch, also at a corner, are one lesion, unless the source labels them as two; where labels overlap,
    they are one.  Two pieces of one slice are two lesions, even if they meet in another slice: the model sees one
    slice.
    """
    ct = volume.slices[n]
    union = np.any([np.zeros(ct.hu.shape, bool), *(one.mask[n] for one in volume.lesions)], axis=0)
    measured = [_measure(volume, n, ct, piece, kind, union) for piece, kind in _pieces(volume, n)]
    measured.sort(key=lambda pair: -pair[0].diameter_mm)
    lesions = tuple(replace(lesion, id=number) for number, (lesion, _) in enumerate(measured, 1))
    organs = {organ for _, organ in measured}
    return SliceLesions(
        lesions,
        density_known=all(lesion.hu_difference is not None for lesion in lesions),
        lobes_known=all(lesion.lobe for lesion in lesions) and {"left", "right"} <= set(volume.lobes),
        organ=organs.pop() if len(organs) == 1 else "",
    )


def _pieces(volume: Volume, n: int) -> Iterable[tuple[np.ndarray, str]]:
    """Yield (bool (H, W), type) for every connected piece of slice ``n``."""
    from scipy import ndimage

    masks = [(one.mask[n], one.type) for one in volume.lesions if one.mask[n].any()]
    if len(masks) > 1 and np.sum([mask for mask, _ in masks], axis=0).max() > 1:
        types = {kind for _, kind in masks}
        masks = [(np.any([mask for mask, _ in masks], axis=0), types.pop() if len(types) == 1 else "")]
    for mask, kind in masks:
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        yield from ((labels == number, kind) for number in range(1, count + 1))


def _measure(
    volume: Volume, n: int, ct: CtSlice, piece: np.ndarray, kind: str, union: np.ndarray
) -> tuple[Lesion, str]:
    """Return a lesion and the organ that surrounds it, or ""."""
    dy, dx = spacing_of(ct)
    rows, columns = np.nonzero(piece)
    box = _box(rows, columns, piece.shape, round(RING_MM[1] / dy) + 2, round(RING_MM[1] / dx) + 2)
    ring = _ring(piece[box], (dy, dx)) & ~union[box]
    around = {name: ring & mask[n][box] for name, mask in volume.organs.items()}
    organ = max(around, key=lambda name: int(around[name].sum()), default="")
    difference = None
    if organ and int(around[organ].sum()) >= MIN_RING_PIXELS:
        difference = float(ct.hu[piece].mean() - np.median(ct.hu[box][around[organ]]))
    else:
        organ = ""
    lesion = Lesion(
        id=0,
        type=kind,
        mask=piece,
        lobe=_lobe(volume, n, piece, box, ring),
        diameter_mm=float(2 * np.sqrt(piece.sum() * dy * dx / np.pi)),
        centroid_mm=(float(columns.mean() * dx), float(rows.mean() * dy)),
        density=UNKNOWN if difference is None else density_of(difference),
        enhancement=UNKNOWN,
        margin=UNKNOWN,
        hu_difference=difference,
    )
    return lesion, organ


def spacing_of(ct: CtSlice) -> tuple[float, float]:
    """Return (row, column) spacing in mm; InputError if the file has none."""
    if ct.spacing_mm is None:
        raise InputError("the images have no pixel spacing, so sizes in mm are unknown; export them with PixelSpacing")
    return ct.spacing_mm


def _box(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...], down: int, across: int) -> tuple[slice, slice]:
    """Return the bounding box of some pixels, wider by some pixels on each side."""
    return (
        slice(max(0, int(rows.min()) - down), min(shape[0], int(rows.max()) + down + 1)),
        slice(max(0, int(columns.min()) - across), min(shape[1], int(columns.max()) + across + 1)),
    )


def _ring(piece: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    from scipy import ndimage

    distance = ndimage.distance_transform_edt(~piece, sampling=spacing)
    return np.asarray((distance > RING_MM[0]) & (distance <= RING_MM[1]))


def _lobe(volume: Volume, n: int, piece: np.ndarray, box: tuple[slice, slice], ring: np.ndarray) -> str:
    """Return "left", "right", or "" where the masks of the lobes do not say."""
    inside = {name: int((mask[n] & piece).sum()) for name, mask in volume.lobes.items()}
    if not any(inside.values()):
        # The masks of the lobes leave out the lesions.
        inside = {name: int((mask[n][box] & ring).sum()) for name, mask in volume.lobes.items()}
    total = sum(inside.values())
    return next((name for name, count in inside.items() if total and count >= LOBE_SHARE * total), "")
