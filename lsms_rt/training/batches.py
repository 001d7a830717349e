"""Training batches: random crops of phantom slices, each asked by two sentences with different answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lsms_rt.calibration.phantom.anatomy import Organ
from lsms_rt.calibration.phantom.lesion import ENHANCEMENTS, Lesion
from lsms_rt.calibration.phantom.lesion_types import TYPES
from lsms_rt.calibration.phantom.queries import Query
from lsms_rt.calibration.phantom.sentences import Sentence, false_sentence, true_sentence
from lsms_rt.text import Tokenizer

from .corpus import Corpus

FALSE_SHARE = 0.22  # more than the data set's one in six: silence is what a network learns last
# What the text's auxiliary heads predict, and how many classes each has (0 is "not said").
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "type": TYPES,
    "density": ("low", "high"),
    "enhancement": ENHANCEMENTS,
    "lobe": ("left", "right"),
    "size": ("small", "large"),
    "order": ("largest", "smallest", "most anterior", "most posterior"),
    "relation": ("closest to", "anterior to", "posterior to"),
}
ORGANS = len(Organ)  # the lesion types follow as further classes of the auxiliary map


@dataclass(frozen=True)
class Batch:
    """``image`` (B, 1, S, S) in [-1, 1]; ``tokens`` (B, T) int64; ``mask`` (B, T); ``target`` (B, 1, S, S) 0 or 1;
    ``classes`` (B, S, S) int64, organ or lesion type of every pixel; ``attributes`` (B, len(ATTRIBUTES)) int64."""

    image: Tensor
    tokens: Tensor
    mask: Tensor
    target: Tensor
    classes: Tensor
    attributes: Tensor


def attribute_classes(query: Query) -> list[int]:
    """The classes of a query for the text's auxiliary heads."""
    values = [getattr(query, name) for name in ATTRIBUTES]
    return [0 if v is None else 1 + ATTRIBUTES[n].index(v) for n, v in zip(ATTRIBUTES, values, strict=True)]


class Sampler:
    """Draws batches from a corpus; one seed gives one sequence of batches."""

    def __init__(
        self, corpus: Corpus, tokenizer: Tokenizer, window: tuple[float, float], seed: int, augment: bool = True
    ) -> None:
        self.corpus, self.tokenizer, self.window = corpus, tokenizer, window
        self.augment = augment
        self.rng = np.random.default_rng(seed)
        counts = np.array([len(lesions) for lesions in corpus.lesions], float)
        weight = np.choose(np.minimum(counts, 3).astype(int), (0.5, 0.7, 1.0, 1.2))
        self.weight = weight / weight.sum()

    def sentences(self, index: int) -> tuple[Sentence, Sentence]:
        """Two sentences about slice ``index``, true of different lesions where that can be had."""
        lesions, phase = self.corpus.lesions[index], self.corpus.phases[index]
        first = self._sentence(lesions, phase)
        for _ in range(4):
            second = self._sentence(lesions, phase)
            if {lesion.id for lesion in second.targets} != {lesion.id for lesion in first.targets}:
                break
        return first, second

    def _sentence(self, lesions: tuple[Lesion, ...], phase: str) -> Sentence:
        true = None if self.rng.random() < FALSE_SHARE else true_sentence(lesions, phase, self.rng)
        return true or false_sentence(lesions, phase, self.rng)

    def batch(self, slices: int, size: int, full: float) -> Batch:
        """2 * ``slices`` examples at ``size`` pixels; a share ``full`` of them shows the whole slice uncropped."""
        slices = min(slices, len(self.corpus))
        chosen = self.rng.choice(len(self.corpus), slices, replace=False, p=self.weight)
        images, targets, classes, sentences = [], [], [], []
        for index in chosen:
            hu, labels, places = self._crop(int(index), size, self.rng.random() < full)
            image = self._tensor(hu)
            lesions = self.corpus.lesions[index]
            shown = _classes(labels, places, lesions)
            for sentence in self.sentences(int(index)):
                wanted = [lesions.index(lesion) + 1 for lesion in sentence.targets]
                images.append(image)
                targets.append(torch.isin(places, torch.tensor(wanted, dtype=places.dtype)).float())
                classes.append(shown)
                sentences.append(sentence)
        tokens = [self.tokenizer(sentence.text) for sentence in sentences]
        longest = max(int(t.mask.sum()) for t in tokens)
        return Batch(
            image=torch.stack(images)[:, None],
            tokens=torch.from_numpy(np.concatenate([t.ids for t in tokens])[:, :longest]),
            mask=torch.from_numpy(np.concatenate([t.mask for t in tokens])[:, :longest]),
            target=torch.stack(targets)[:, None],
            classes=torch.stack(classes),
            attributes=torch.tensor([attribute_classes(sentence.query) for sentence in sentences]),
        )

    def _crop(self, index: int, size: int, full: bool) -> tuple[Tensor, Tensor, Tensor]:
        """A square that holds the liver (the whole slice where ``full``), resized to ``size``."""
        labels = self.corpus.labels[index]
        side = labels.shape[0]
        liver = np.argwhere(
            (labels == Organ.LIVER_LEFT) | (labels == Organ.LIVER_RIGHT) | (self.corpus.index[index] > 0)
        )
        top = left = 0
        edge = side
        if not full and len(liver):
            low, high = liver.min(0), liver.max(0) + 1
            least = int(min(side, max((high - low).max() * 1.06, side / 3)))
            # Squared: most crops are close, where small lesions are still several pixels wide.
            edge = int(least + (side - least) * self.rng.random() ** 2)
            top, left = (self._start(int(lo), int(hi), edge, side) for lo, hi in zip(low, high, strict=True))
        window = (slice(top, top + edge), slice(left, left + edge))
        hu = torch.from_numpy(self.corpus.hu[index][window].astype(np.float32))
        nearest = [torch.from_numpy(np.array(a[index][window])) for a in (self.corpus.labels, self.corpus.index)]
        if edge == size:
            return hu, nearest[0], nearest[1]
        hu = F.interpolate(
            hu[None, None], size=(size, size), mode="bilinear", antialias=edge > size, align_corners=False
        )[0, 0]
        grid = ((torch.arange(size) + 0.5) * edge / size).long()
        return hu, nearest[0][grid][:, grid], nearest[1][grid][:, grid]

    def _start(self, low: int, high: int, edge: int, side: int) -> int:
        """Where a crop of ``edge`` pixels may begin so that it holds [low, high) and stays inside ``side``."""
        first, last = max(0, high - edge), min(low, side - edge)
        return int(self.rng.integers(first, last + 1)) if first <= last else min(max(first, 0), side - edge)

    def _tensor(self, hu: Tensor) -> Tensor:
        """HU -> [-1, 1] through the model's window, with a little of what differs between scanners."""
        rng = self.rng
        shift, gain = (rng.normal(0, 8), 1 + rng.normal(0, 0.04)) if self.augment else (0.0, 1.0)
        if self.augment and rng.random() < 0.3:
            hu = hu + torch.from_numpy(rng.normal(0, rng.uniform(2, 12), hu.shape).astype(np.float32))
        low, high = self.window
        return ((hu * gain + shift - low) / (high - low)).clamp(0, 1) * 2 - 1


def _classes(labels: Tensor, places: Tensor, lesions: tuple[Lesion, ...]) -> Tensor:
    table = torch.zeros(len(lesions) + 1, dtype=torch.long)
    for place, lesion in enumerate(lesions):
        table[place + 1] = ORGANS + ATTRIBUTES["type"].index(lesion.type)
    return torch.where(places > 0, table[places.long()], labels.long())
