"""Training batches: crops of slices, each with two sentences that have different answers, or with none at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lsms_rt.body import body_box
from lsms_rt.ct_slice import HU_MIN
from lsms_rt.datasets.phantom.lesion import Lesion
from lsms_rt.datasets.phantom.organs import Organ

from .augment import augment
from .sentences import Mix, Spoken, draw_pair
from .shrink import resized, sampled
from .slices import SliceRecord, Slices

# Regions that the losses look at one by one.  The few slices with more have all others numbered FURTHER: they count in
# the target, but have no vote of their own.
REGIONS = 15
FURTHER = REGIONS + 1
# Crops are resized by a factor from this range around the scale at which the network will see a whole slice.
SCALES = (0.85, 1.18)
MARGIN_PX = 6
LIVER = (Organ.LIVER_LEFT, Organ.LIVER_RIGHT)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B examples at S x S pixels.

    Attributes:
        image: float32 (B, 1, S, S) in [-1, 1].
        index: int64 (B, S, S), the region of every pixel, 0 to ``FURTHER``.
        wanted: float32 (B, FURTHER + 1), 1 for the regions that the sentence means; the entries of the background and
            of further regions are 0.
        target: float32 (B, 1, S, S), 1 in all regions that the sentence means.
        origin: float32 (B, 2), where the crop begins in its slice, in stride-32 cells.
        organs: int64 (B, S / 4, S / 4), or None where the data set has no organs.
        lesions: attributes of every example's regions; None where the data set has none.
        sentences: B sentences; empty for a batch that means every region without a word.
    """

    image: Tensor
    index: Tensor
    wanted: Tensor
    target: Tensor
    origin: Tensor
    organs: Tensor | None
    lesions: list[tuple[Lesion, ...]] | None
    sentences: list[Spoken]

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on ``device``."""
        moved: dict[str, Any] = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a batch looks like: ``slices`` pictures at ``size`` pixels, whole ones where ``whole``."""

    slices: int
    size: int
    whole: bool


@dataclass(frozen=True)
class Crop:
    """A square of a slice that may reach beyond its edges, in pixels, and its origin in stride-32 cells."""

    top: int
    left: int
    edge: int
    origin: tuple[float, float]


class Sampler:
    """Draws batches; one seed gives one sequence of batches.

    Args:
        parts: folders of slices, all on one grid.
        image_size: side of the network's input for a whole slice, pixels.
        window: (lower, upper) HU, mapped to -1 and 1.
        seed: of the random numbers.
        crop_body: whether a whole slice means the square around the body (config field ``crop``).
        augmented: whether scanner differences are imitated.
    """

    def __init__(
        self,
        parts: Sequence[Slices],
        *,
        image_size: int,
        window: tuple[float, float],
        seed: int,
        crop_body: bool,
        augmented: bool = True,
    ) -> None:
        self.parts, self.image_size, self.window = list(parts), image_size, window
        self.crop_body, self.augmented = crop_body, augmented
        self.rng = np.random.default_rng(seed)
        self.places = [(part, number) for part, slices in enumerate(parts) for number in range(len(slices))]
        counts = np.array([self.record(place).regions for place in self.places])
        # Slices with several lesions teach which one is meant; empty ones teach only silence.
        weight = np.choose(np.minimum(counts, 3), (0.5, 0.7, 1.0, 1.2))
        self.weight = weight / weight.sum()

    def reseed(self, seed: int) -> None:
        """Draw other batches: a resumed run must not see the same ones again."""
        self.rng = np.random.default_rng(seed)

    def record(self, place: tuple[int, int]) -> SliceRecord:
        """What is known of a slice; ``place`` is its part and its number there."""
        return self.parts[place[0]].records[place[1]]

    def batch(self, shape: Shape, mix: Mix | None) -> Batch:
        """Draw a batch: two sentences per slice, or, without a ``mix``, twice as many slices and no sentence."""
        rows: list[_Example] = []
        count = min(shape.slices * (1 if mix else 2), len(self.places))
        for chosen in self.rng.choice(len(self.places), count, replace=False, p=self.weight):
            place = self.places[int(chosen)]
            record = self.record(place)
            spoken: Sequence[Spoken | None] = (None,)
            if mix:
                pair = draw_pair(record, mix, self.rng)
                if pair is None:
                    continue
                spoken = pair
            rows += self.examples(place, spoken, shape)
        # A data set may have slices without a sentence.
        return collate(rows) if rows else self.batch(shape, mix)

    def examples(self, place: tuple[int, int], spoken: Sequence[Spoken | None], shape: Shape) -> list[_Example]:
        """One crop of a slice as one example per sentence; None is the sentence that means every region."""
        part, number = self.parts[place[0]], place[1]
        record = self.record(place)
        crop = self._crop(part, number, shape)
        hu = torch.from_numpy(_cut(part.hu[number], crop, HU_MIN).astype(np.float32))
        index = torch.from_numpy(resized(_cut(part.index[number], crop, 0), shape.size)).long()
        organs = None
        if part.organs is not None:
            organs = torch.from_numpy(sampled(_cut(part.organs[number], crop, 0), shape.size)).long()
        if crop.edge != shape.size:
            hu = F.interpolate(
                hu[None, None],
                size=(shape.size, shape.size),
                mode="bilinear",
                antialias=crop.edge > shape.size,
                align_corners=False,
            )[0, 0]
        if self.augmented:
            hu = augment(hu, self.rng)
        lower, upper = self.window
        image = ((hu - lower) / (upper - lower)).clamp(0, 1) * 2 - 1
        small = None if organs is None else organs[2::4, 2::4]
        seen = index.clamp(max=FURTHER)
        rows = []
        for sentence in spoken:
            regions = range(1, record.regions + 1) if sentence is None else sentence.regions
            target = torch.isin(index, torch.tensor(list(regions), dtype=index.dtype)).float()
            rows.append(_Example(image, seen, target, regions, crop.origin, small, record.lesions, sentence))
        return rows

    def _crop(self, part: Slices, number: int, shape: Shape) -> Crop:
        top, left, edge = self._whole(part.hu[number])
        scale = self.image_size / edge
        if shape.whole:
            return Crop(top, left, edge, (0.0, 0.0))
        # A crop holds every region, so that each sentence keeps its truth, at the scale of a whole slice.
        points = np.argwhere(np.asarray(part.index[number]) > 0)
        if not len(points):
            points = self._anywhere(part, number, (top, left, edge))
        margin = max(1, round(MARGIN_PX / scale))
        low, high = points.min(0) - margin, points.max(0) + 1 + margin
        wide = int(max(shape.size / scale * self.rng.uniform(*SCALES), (high - low).max()))
        starts = [
            self._start(int(lo), int(hi), wide, start, edge)
            for lo, hi, start in zip(low, high, (top, left), strict=True)
        ]
        cells = [
            ((start + wide / 2) - (first + edge / 2)) * scale / 32 + (self.image_size - shape.size) / 64
            for start, first in zip(starts, (top, left), strict=True)
        ]
        return Crop(starts[0], starts[1], wide, (cells[0], cells[1]))

    def _whole(self, hu: np.ndarray) -> tuple[int, int, int]:
        """The square that the network sees of a slice: (top, left, edge)."""
        if not self.crop_body:
            return 0, 0, hu.shape[0]
        top, left, bottom, right = body_box(np.asarray(hu))
        edge = max(bottom - top, right - left)
        return (top + bottom - edge) // 2, (left + right - edge) // 2, edge

    def _anywhere(self, part: Slices, number: int, whole: tuple[int, int, int]) -> np.ndarray:
        """One pixel for a crop of a slice without regions: in the liver where it is known."""
        if part.organs is not None:
            liver = np.argwhere(np.isin(part.organs[number], LIVER))
            if len(liver):
                return liver[int(self.rng.integers(len(liver)))][None]
        top, left, edge = whole
        return np.array([[top, left]]) + self.rng.integers(edge // 4, max(edge // 4 + 1, 3 * edge // 4), (1, 2))

    def _start(self, low: int, high: int, wide: int, first: int, edge: int) -> int:
        """Where a crop of ``wide`` pixels may begin so that it holds [low, high) and stays in the whole square."""
        earliest, latest = max(first, high - wide), min(low, first + edge - wide)
        if earliest > latest:
            return (low + high - wide) // 2
        return int(self.rng.integers(earliest, latest + 1))


@dataclass(frozen=True)
class _Example:
    image: Tensor
    index: Tensor
    target: Tensor
    regions: Sequence[int]
    origin: tuple[float, float]
    organs: Tensor | None
    lesions: tuple[Lesion, ...] | None
    sentence: Spoken | None


def collate(rows: Sequence[_Example]) -> Batch:
    """Examples of one size as a batch."""
    wanted = torch.zeros(len(rows), FURTHER + 1)
    for number, row in enumerate(rows):
        wanted[number, [region for region in row.regions if region <= REGIONS]] = 1
    organs = [row.organs for row in rows if row.organs is not None]
    lesions = [row.lesions for row in rows if row.lesions is not None]
    return Batch(
        image=torch.stack([row.image for row in rows])[:, None],
        index=torch.stack([row.index for row in rows]),
        wanted=wanted,
        target=torch.stack([row.target for row in rows])[:, None],
        origin=torch.tensor([row.origin for row in rows]),
        organs=torch.stack(organs) if len(organs) == len(rows) else None,
        lesions=lesions if len(lesions) == len(rows) else None,
        sentences=[row.sentence for row in rows if row.sentence is not None],
    )


def _cut(pixels: np.ndarray, crop: Crop, fill: float) -> np.ndarray:
    """The pixels of a crop, (edge, edge), ``fill`` where it reaches beyond the slice."""
    height, width = pixels.shape
    out = np.full((crop.edge, crop.edge), fill, pixels.dtype)
    top, left = max(crop.top, 0), max(crop.left, 0)
    bottom, right = min(crop.top + crop.edge, height), min(crop.left + crop.edge, width)
    out[top - crop.top : bottom - crop.top, left - crop.left : right - crop.left] = pixels[top:bottom, left:right]
    return out
