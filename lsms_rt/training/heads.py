"""Heads that exist in training only: they ask the text and the features for what a good answer has to know.

What a data set does not know is not asked: without attributes of lesions or organs a head stays untrained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lsms_rt.datasets.phantom.lesion import DENSITIES, ENHANCEMENTS, LOBES, MARGINS, Lesion, enhancement_class
from lsms_rt.datasets.phantom.lesion_types import TYPES
from lsms_rt.datasets.phantom.organs import Organ
from lsms_rt.datasets.phantom.queries import ORDERS, RELATIONS, Query
from lsms_rt.model import LsmsConfig

from .batches import FURTHER, REGIONS, Batch
from .sentences import Spoken

ORGANS = len(Organ)
# The typical lesion: sizes are regressed as the logarithm of their ratio to it.
TYPICAL_MM = 12.0
# The class of what is not asked.
UNKNOWN = -100

# What the sentence's heads predict.  Class 0 is "not said".
SAID: dict[str, tuple[Callable[[Query], object], tuple[object, ...]]] = {
    "type": (lambda q: q.type, TYPES),
    "density": (lambda q: q.density, ("low", "high")),
    "enhancement": (lambda q: q.enhancement, ENHANCEMENTS),
    "lobe": (lambda q: q.lobe, LOBES),
    "size": (lambda q: q.size, ("small", "large")),
    "order": (lambda q: q.order, ORDERS),
    "relation": (lambda q: q.relation, RELATIONS),
    "rank": (lambda q: None if q.rank == 1 else q.rank, (2, 3)),
    "anchor type": (lambda q: q.anchor and q.anchor.type, TYPES),
    "anchor density": (lambda q: q.anchor and q.anchor.density, ("low", "high")),
    "anchor lobe": (lambda q: q.anchor and q.anchor.lobe, LOBES),
}

# What the lesions' heads predict from the features pooled over a lesion, and the weight of each.
LOOKS: dict[str, tuple[Callable[[Lesion], str], tuple[str, ...], float]] = {
    "type": (lambda x: x.type, TYPES, 2.0),
    "density": (lambda x: x.density, DENSITIES, 1.0),
    "enhancement": (enhancement_class, ENHANCEMENTS, 1.0),
    "lobe": (lambda x: x.lobe, LOBES, 1.0),
    "margin": (lambda x: x.margin, MARGINS, 1.0),
}


class TrainingHeads(nn.Module):
    """Attributes of the sentence, of every pixel and of every lesion."""

    def __init__(self, config: LsmsConfig) -> None:
        super().__init__()
        width, text = config.decoder_width // 2, config.text.hidden_size
        self.said = nn.ModuleDict({_key(name): nn.Linear(text, 1 + len(values)) for name, (_, values) in SAID.items()})
        self.looks = nn.ModuleDict({f"{name}_of": nn.Linear(width, len(v)) for name, (_, v, _) in LOOKS.items()})
        self.size = nn.Linear(width, 1)
        self.pixels = nn.Conv2d(width, ORGANS + len(TYPES), 1)

    def sentence_loss(self, hidden: Tensor, sentences: Sequence[Spoken]) -> Tensor | None:
        """Mean cross-entropy of what the sentences say, read from the first token; None where no meaning is known.

        Args:
            hidden: (B, T, D), the text encoder's output.
            sentences: B sentences.
        """
        rows = [row for row, sentence in enumerate(sentences) if sentence.query is not None]
        if not rows:
            return None
        queries = [sentence.query for sentence in sentences if sentence.query is not None]
        first = hidden[rows, 0]
        losses = []
        for name, (value, values) in SAID.items():
            classes = [0 if (v := value(query)) is None else 1 + values.index(v) for query in queries]
            losses.append(F.cross_entropy(self.said[_key(name)](first), torch.tensor(classes, device=hidden.device)))
        return torch.stack(losses).mean()

    def pixel_loss(self, features: Tensor, batch: Batch) -> Tensor | None:
        """Cross-entropy of organ or lesion type at stride 4; None without organs.

        Args:
            features: (B, D, S / 4, S / 4).
            batch: where its lesions' types are unknown, nothing is asked of lesions.
        """
        if batch.organs is None:
            return None
        # A cell with any pixel of a lesion is the lesion's: small ones would be lost by sampling.
        regions = F.max_pool2d(batch.index[:, None].float(), 4)[:, 0].long()
        types = torch.full((len(regions), FURTHER + 1), UNKNOWN)
        for row, lesions in enumerate(batch.lesions or ()):
            for number, lesion in enumerate(lesions[:REGIONS], 1):
                types[row, number] = ORGANS + TYPES.index(lesion.type)
        types = types.to(regions.device)
        named = (regions > 0) & (regions < FURTHER)
        classes = torch.where(named, types.gather(1, regions.flatten(1)).view(regions.shape), batch.organs)
        weight = torch.ones(ORGANS + len(TYPES), device=features.device)
        weight[ORGANS:] = 3.0
        return F.cross_entropy(self.pixels(features), classes, weight=weight, ignore_index=UNKNOWN)

    def look_loss(self, features: Tensor, batch: Batch) -> tuple[Tensor, float] | None:
        """Weighted loss of the lesions' attributes, and the share of types that are right; None without attributes."""
        if batch.lesions is None:
            return None
        share = F.one_hot(batch.index, FURTHER + 1).permute(0, 3, 1, 2).float()[:, 1:FURTHER]
        share = F.avg_pool2d(share, 4).flatten(2)
        area = share.sum(2)
        pooled = (share @ features.flatten(2).transpose(1, 2)) / area.clamp(min=1e-3)[..., None]
        seen = [
            (row, number, lesion)
            for row, lesions in enumerate(batch.lesions)
            for number, lesion in enumerate(lesions[:REGIONS])
            if area[row, number] > 0
        ]
        if not seen:
            return None
        x = pooled[[row for row, _, _ in seen], [number for _, number, _ in seen]]
        lesions = [lesion for _, _, lesion in seen]
        sizes = torch.tensor([math.log(lesion.diameter_mm / TYPICAL_MM) for lesion in lesions], device=x.device)
        total = F.smooth_l1_loss(self.size(x)[:, 0], sizes)
        right = 0.0
        for name, (value, values, weight) in LOOKS.items():
            classes = torch.tensor([values.index(value(lesion)) for lesion in lesions], device=x.device)
            logits = self.looks[f"{name}_of"](x)
            total = total + weight * F.cross_entropy(logits, classes)
            if name == "type":
                right = float((logits.argmax(1) == classes).float().mean())
        return total, right


def _key(name: str) -> str:
    """A name that a ModuleDict takes; it refuses those of its own methods, such as "type"."""
    return f"{name.replace(' ', '_')}_said"
