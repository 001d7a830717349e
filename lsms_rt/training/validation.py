"""What a network in training is worth: the same sentences every time, so that two calls compare pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from lsms_rt.datasets.matching import FOUND_DICE
from lsms_rt.datasets.phantom.sentences import slice_sentences
from lsms_rt.model import LSMS
from lsms_rt.tokenizer import Tokenizer

from .batches import Sampler, Shape, collate
from .losses import null_sentence
from .sentences import Spoken, spoken_as, spoken_of
from .slices import SliceRecord, Slices

# At least this many sentences, if there are so many, and at least two per slice: from 300 different slices, if there
# are so many.
SENTENCES, PER_SLICE = 600, 2
BATCH = 8
SPECIFICITIES = (0.9, 0.92, 0.95)
THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
DIAMETERS_MM = (0, 8, 15, 30)
# A lesion counts as seen where more than this share of it is predicted.
SEEN = 0.3


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One row per sentence of a validation set, float64 (N,) unless stated.

    Attributes:
        dice: (N, len(THRESHOLDS)), with the mask that the pixels alone give; 0 where nothing is meant.
        pixel: the highest mask logit.
        presence: the presence logit; where the model has none, the same as ``pixel``.
        meant: bool, whether the sentence is true of anything.
    """

    dice: np.ndarray
    pixel: np.ndarray
    presence: np.ndarray
    meant: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """What ``confidence`` is compared with: the highest logit of the answer."""
        return np.minimum(self.pixel, self.presence)


class Validation:
    """A fixed set of sentences about held-out slices.

    Args:
        parts: folders of slices.
        tokenizer: of the model.
        sampler: draws whole slices; made with ``augmented=False``.
        slices: at most this many, evenly spread.
        per_slice: sentences per slice, chosen at random; None for all.
        seed: chooses the sentences.
    """

    def __init__(
        self,
        parts: Sequence[Slices],
        tokenizer: Tokenizer,
        sampler: Sampler,
        slices: int = 300,
        seed: int = 77,
        per_slice: int | None = PER_SLICE,
    ) -> None:
        self.sampler, self.tokenizer = sampler, tokenizer
        places = sampler.places
        chosen = np.unique(np.linspace(0, len(places) - 1, min(slices, len(places))).round().astype(int))
        self.places = [places[int(number)] for number in chosen]
        self.asked: list[tuple[tuple[int, int], Spoken]] = []
        for number, place in zip(chosen, self.places, strict=True):
            count = None if per_slice is None else max(per_slice, -(-SENTENCES // len(self.places)))
            said = _sentences(sampler.record(place), np.random.default_rng([seed, int(number)]))[:count]
            self.asked += [(place, sentence) for sentence in said]

    @torch.no_grad()
    def scores(self, model: LSMS) -> Scores:
        """Ask every sentence."""
        shape = Shape(slices=BATCH, size=self.sampler.image_size, whole=True)
        dice: list[list[float]] = []
        pixel: list[float] = []
        presence: list[float] = []
        meant: list[bool] = []
        for start in range(0, len(self.asked), BATCH):
            rows = self.asked[start : start + BATCH]
            batch = collate([e for place, said in rows for e in self.sampler.examples(place, (said,), shape)])
            tokens = tokenize(self.tokenizer, [said.text for _, said in rows])
            features = model.decoder.features(model.encoder(batch.image, model.encode_text(*tokens)))
            small = model.decoder.logits(features)
            logits = F.interpolate(small, size=batch.image.shape[2:], mode="bilinear", align_corners=False)
            top = logits.flatten(1).max(1).values
            pixel += top.tolist()
            presence += (top if model.presence is None else model.presence(features, small).flatten()).tolist()
            meant += (batch.target.flatten(1).sum(1) > 0).tolist()
            probability, target = logits.sigmoid(), batch.target > 0
            dice += torch.stack([_dice(probability > t, target) for t in THRESHOLDS], 1).tolist()
        answers = np.array(dice), np.array(pixel), np.array(presence), np.array(meant)
        return Scores(dice=answers[0], pixel=answers[1], presence=answers[2], meant=answers[3])

    @torch.no_grad()
    def sight(self, model: LSMS) -> dict[str, Any]:
        """Dice of all regions without a sentence, and the share of regions seen, by diameter where it is known."""
        shape = Shape(slices=BATCH, size=self.sampler.image_size, whole=True)
        dice, seen = [], []
        for start in range(0, len(self.places), BATCH):
            places = self.places[start : start + BATCH]
            batch = collate([e for place in places for e in self.sampler.examples(place, (None,), shape)])
            small = model.decoder(model.encoder(batch.image, null_sentence(model, len(places))))
            masks = F.interpolate(small, size=batch.image.shape[2:], mode="bilinear", align_corners=False)[:, 0] > 0
            for place, mask, index in zip(places, masks, batch.index, strict=True):
                if (index > 0).any():
                    dice.append(float(2 * (mask & (index > 0)).sum() / (mask.sum() + (index > 0).sum())))
                for number, lesion in enumerate(self.sampler.record(place).lesions or (), 1):
                    region = index == number
                    if region.any():
                        seen.append((lesion.diameter_mm, float(mask[region].float().mean()) > SEEN))
        edges = [*DIAMETERS_MM, np.inf]
        by_size = {f"from {low} mm": [hit for mm, hit in seen if low <= mm < high] for low, high in pairwise(edges)}
        return {
            "dice_all_regions": _mean(dice),
            "seen": {name: _mean(hits) for name, hits in by_size.items() if hits},
        }


def figures(scores: Scores) -> dict[str, Any]:
    """Dice and missed share at fixed specificities, and how well presence is told (area under the ROC curve)."""
    meant, score = scores.meant, scores.score
    best = int(scores.dice[meant].mean(0).argmax()) if meant.any() else 0
    record: dict[str, Any] = {
        "sentences": len(meant),
        "false_sentences": int((~meant).sum()),
        "threshold": THRESHOLDS[best],
        "dice_gate_open": _mean(scores.dice[meant, best]),
    }
    if meant.any() and (~meant).any():
        record["presence_auc"] = float((score[meant][:, None] > score[~meant][None]).mean())
        for wanted in SPECIFICITIES:
            limit = np.quantile(score[~meant], wanted)
            record[f"at_{wanted}"] = {
                "dice": _mean(scores.dice[meant, best] * (score[meant] > limit)),
                "missed": float((score[meant] <= limit).mean()),
            }
    return record


def choose_operating_point(scores: Scores, specificity: float) -> dict[str, Any]:
    """Threshold and confidence: silence on false sentences first, then the best Dice.

    A sum of both would trade one for the other.  ``confidence`` is a logit, since probabilities near 1 are all alike.

    Args:
        scores: of validation sentences, some of them true of nothing.
        specificity: the share of false sentences that must get an empty mask.

    Returns:
        ``threshold`` (probability), ``confidence_logit``, and what they give on these sentences.
    """
    meant, score = scores.meant, scores.score
    best = int(scores.dice[meant].mean(0).argmax()) if meant.any() else 0
    limit = float(np.quantile(score[~meant], specificity, method="inverted_cdf")) if (~meant).any() else float("-inf")
    floor = float(np.log(THRESHOLDS[best] / (1 - THRESHOLDS[best])))
    # A mask is empty anyway where no pixel reaches the threshold.
    limit = max(limit, floor)
    return {
        "threshold": THRESHOLDS[best],
        "confidence_logit": limit,
        "dice": _mean(scores.dice[meant, best] * (score[meant] > limit)),
        "missed": _mean(score[meant] <= limit),
        "hit_rate": _mean((scores.dice[meant, best] >= FOUND_DICE) & (score[meant] > limit)),
        "specificity": float((score[~meant] <= limit).mean()) if (~meant).any() else None,
        "sentences": len(meant),
    }


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids int64 (B, T) and mask float32 (B, T), cut to the longest sentence."""
    rows = [tokenizer(text) for text in texts]
    longest = max(int(row.mask.sum()) for row in rows)
    ids, mask = (np.concatenate([getattr(row, name) for row in rows])[:, :longest] for name in ("ids", "mask"))
    return torch.from_numpy(ids), torch.from_numpy(mask)


def _sentences(record: SliceRecord, rng: np.random.Generator) -> list[Spoken]:
    if record.lesions is not None and not record.asked:
        said = [spoken_of(s, record.lesions) for s in slice_sentences(record.lesions, record.phase, rng)]
    else:
        said = [spoken_as(row) for row in record.asked]
    return [said[int(k)] for k in rng.permutation(len(said))]


def _dice(mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    both = (mask & target).flatten(1).sum(1)
    return 2 * both / (mask.flatten(1).sum(1) + target.flatten(1).sum(1)).clamp(min=1)


def _mean(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None
