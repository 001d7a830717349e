"""The losses of one training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lsms_rt.model import LSMS
from lsms_rt.model.decoder import FullScaleDecoder
from lsms_rt.model.encoder import TextFeatures

from .batches import FURTHER, Batch
from .heads import TrainingHeads

TEMPERATURE = 0.1
# This many predicted pixels at 128x128 are half of the greatest Dice loss where nothing is meant.
EMPTY_PIXELS = 30.0
# The background is judged on its worst pixels: vessels, ribs, bowel.
HARD_PIXELS = 64


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What each loss counts.

    BCE counts ten times, since lesions are about a hundredth of the pixels.  Losses of what only some data sets know
    (``pixels``, ``looks``, ``sentence``) are left out where it is unknown.
    """

    bce: float = 10.0
    dice: float = 1.0
    select: float = 1.0
    hard: float = 0.3
    presence: float = 1.0
    contrast: float = 0.2
    pixels: float = 0.5
    looks: float = 0.15
    sentence: float = 0.4
    # What ``pixels`` and ``looks`` count in a batch without sentences.
    pixels_dense: float = 1.0
    looks_dense: float = 0.5


def null_sentence(model: LSMS, batch: int, device: torch.device | None = None) -> TextFeatures:
    """The sentence that says nothing: zero values make every language branch add exactly zero."""
    config = model.config
    zeros = tuple(
        torch.zeros(batch, depth, 1, width, device=device)
        for depth, width in zip(config.depths, config.dims, strict=True)
    )
    return TextFeatures(zeros, zeros, torch.ones(batch, 1, device=device), model.encoder.folds)


def step_loss(
    model: LSMS, heads: TrainingHeads, batch: Batch, tokens: tuple[Tensor, Tensor] | None, weights: Weights
) -> tuple[Tensor, dict[str, float]]:
    """One forward pass.

    Args:
        model: in training mode, its decoder not folded.
        heads: auxiliary heads.
        batch: examples, on the model's device.
        tokens: ids int64 (B, T) and mask float (B, T) of the sentences; None: every region is meant.
        weights: of the losses.

    Returns:
        The weighted sum, and its parts and some figures for the log.
    """
    decoder = model.decoder
    # a folded one is not trained
    assert isinstance(decoder, FullScaleDecoder)
    if tokens is None:
        hidden, text = None, null_sentence(model, len(batch.image), batch.image.device)
    else:
        hidden = model.text_encoder(*tokens)
        text = model.encoder.project_text(hidden, tokens[1])
    features = decoder.features(model.encoder(batch.image, text), batch.origin)
    small = decoder.logits(features)
    logits = F.interpolate(small, size=batch.image.shape[2:], mode="bilinear", align_corners=False)
    meant = batch.target.flatten(1).sum(1) > 0
    dice = dice_loss(logits, batch.target)
    selection, selected = selection_loss(logits, batch)
    parts = {
        "bce": weights.bce * F.binary_cross_entropy_with_logits(logits, batch.target),
        # An empty target's Dice saturates and pulls little: selection, hard pixels and presence do that work.
        "dice": weights.dice * torch.where(meant, dice, 0.25 * dice).mean(),
        "select": weights.select * selection,
        "hard": weights.hard * hard_background(logits, batch.index),
    }
    figures = {"selection accuracy": selected}
    pixels = heads.pixel_loss(features, batch)
    if pixels is not None:
        parts["pixels"] = (weights.pixels_dense if tokens is None else weights.pixels) * pixels
    looks = heads.look_loss(features, batch)
    if looks is not None:
        parts["looks"] = (weights.looks_dense if tokens is None else weights.looks) * looks[0]
        figures["type accuracy"] = looks[1]
    if tokens is not None and hidden is not None:
        if model.presence is not None:
            presence = model.presence(features, small).flatten()
            parts["presence"] = weights.presence * F.binary_cross_entropy_with_logits(presence, meant.float())
        parts["contrast"] = weights.contrast * contrastive_loss(model, features, hidden, tokens[1], batch.target)
        said = heads.sentence_loss(hidden, batch.sentences)
        if said is not None:
            parts["sentence"] = weights.sentence * said
    return torch.stack(list(parts.values())).sum(), {n: float(v.detach()) for n, v in parts.items()} | figures


def selection_loss(logits: Tensor, batch: Batch) -> tuple[Tensor, float]:
    """BCE of every region's mean logit: is it meant?  One vote per region, whatever its area.

    Returns the loss and the share of regions on the right side of zero.
    """
    count = len(logits)
    size = FURTHER + 1
    place = (batch.index + torch.arange(count, device=logits.device)[:, None, None] * size).flatten()
    zeros = torch.zeros(count * size, device=logits.device)
    area = zeros.index_add(0, place, torch.ones_like(place, dtype=zeros.dtype))
    mean = zeros.index_add(0, place, logits.flatten().float()) / area.clamp(min=1)
    # without the background and further regions
    votes = slice(1, FURTHER)
    mean, seen, wanted = mean.view(count, size)[:, votes], area.view(count, size)[:, votes] > 0, batch.wanted[:, votes]
    loss = (F.binary_cross_entropy_with_logits(mean, wanted, reduction="none") * seen).sum()
    total = seen.sum().clamp(min=1)
    right = (((mean > 0) == (wanted > 0)) & seen).sum()
    return loss / total, float(right / total)


def hard_background(logits: Tensor, index: Tensor) -> Tensor:
    """BCE to zero of the highest logits outside all regions."""
    outside = logits[:, 0].masked_fill(index > 0, -30.0).flatten(1)
    return F.softplus(outside.topk(HARD_PIXELS, 1).values).mean()


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss of every example, (B,); where the target is empty, how much was predicted."""
    p, t = logits.sigmoid().flatten(1), target.flatten(1)
    predicted, meant = p.sum(1), t.sum(1)
    loss = 1 - (2 * (p * t).sum(1) + 1) / (predicted + meant + 1)
    scale = EMPTY_PIXELS * p.shape[1] / 128**2
    return torch.where(meant > 0, loss, predicted / (predicted + scale))


def contrastive_loss(model: LSMS, features: Tensor, hidden: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    """Pixel-text contrast (LSMS v3, abstract): pixels of the named lesion are close to its sentence, others far.

    Every stride-4 pixel and its own sentence are projected to one space; the cosine over a temperature is the logit
    of "this pixel is meant".  The two classes weigh the same; an example without a target has only the second.
    """
    pixels = F.normalize(model.pixel_projection(features), dim=1)
    sentence = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    sentence = F.normalize(model.text_projection(sentence), dim=1)
    similarity = (pixels * sentence[:, :, None, None]).sum(1) / TEMPERATURE
    meant = F.avg_pool2d(target, 4)[:, 0]
    loss = F.binary_cross_entropy_with_logits(similarity, meant, reduction="none")
    inside = (loss * meant).sum((1, 2)) / meant.sum((1, 2)).clamp(min=1)
    outside = (loss * (1 - meant)).sum((1, 2)) / (1 - meant).sum((1, 2)).clamp(min=1)
    return (inside + outside).mean()
