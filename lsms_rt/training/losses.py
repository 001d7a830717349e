"""The losses of the demo training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lsms_rt.model import LSMS
from lsms_rt.model.decoder import FullScaleDecoder

from .batches import ATTRIBUTES, ORGANS, Batch

EMPTY_PIXELS = 30.0  # this many painted pixels at 128x128 are half of the greatest loss where nothing is to be painted
TEMPERATURE = 0.1


class Auxiliary(nn.Module):
    """Heads that exist in training only: they make the text and the features tell what they know.

    Attributes of the sentence from its [CLS] token; organ and lesion type of every pixel from the decoder's features.
    """

    def __init__(self, model: LSMS) -> None:
        super().__init__()
        width = model.config.text.hidden_size
        self.attributes = nn.ModuleList(nn.Linear(width, 1 + len(values)) for values in ATTRIBUTES.values())
        self.classes = nn.Conv2d(model.config.decoder_width // 2, ORGANS + len(ATTRIBUTES["type"]), 1)

    def sentence_loss(self, hidden: Tensor, attributes: Tensor) -> Tensor:
        """``hidden`` (B, T, D), ``attributes`` (B, A) int64 -> mean cross-entropy."""
        losses = [F.cross_entropy(head(hidden[:, 0]), attributes[:, i]) for i, head in enumerate(self.attributes)]
        return torch.stack(losses).mean()

    def class_loss(self, features: Tensor, classes: Tensor) -> Tensor:
        """``features`` (B, D, S / 4, S / 4), ``classes`` (B, S, S) -> cross-entropy, lesions weighted up."""
        logits = self.classes(features)
        weight = torch.ones(logits.shape[1])
        weight[ORGANS:] = 3.0
        return F.cross_entropy(logits, classes[:, 2::4, 2::4], weight=weight)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice of every example, (B,); where the target is empty, how much was painted."""
    p, t = logits.sigmoid().flatten(1), target.flatten(1)
    painted, wanted = p.sum(1), t.sum(1)
    loss = 1 - (2 * (p * t).sum(1) + 1) / (painted + wanted + 1)
    scale = EMPTY_PIXELS * p.shape[1] / 128**2
    return torch.where(wanted > 0, loss, painted / (painted + scale))


def contrastive_loss(model: LSMS, features: Tensor, hidden: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    """Pixel-text contrast (abstract of LSMS v3): pixels of the named lesion close to its sentence, others far.

    Every stride-4 pixel and its own sentence are projected to one space; the cosine over a temperature is the logit
    of "this pixel is meant".  The two classes weigh the same; an example without a target has only the second.
    """
    pixels = F.normalize(model.pixel_projection(features), dim=1)
    sentence = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    sentence = F.normalize(model.text_projection(sentence), dim=1)
    similarity = (pixels * sentence[:, :, None, None]).sum(1) / TEMPERATURE
    wanted = F.avg_pool2d(target, 4)[:, 0]
    loss = F.binary_cross_entropy_with_logits(similarity, wanted, reduction="none")
    inside = (loss * wanted).sum((1, 2)) / wanted.sum((1, 2)).clamp(min=1)
    outside = (loss * (1 - wanted)).sum((1, 2)) / (1 - wanted).sum((1, 2))
    return (inside + outside).mean()


def total_loss(model: LSMS, auxiliary: Auxiliary, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """One forward pass and the weighted sum of all losses, with its parts for the log."""
    hidden = model.text_encoder(batch.tokens, batch.mask)
    maps = model.encoder(batch.image, model.encoder.project_text(hidden, batch.mask))
    decoder = model.decoder
    assert isinstance(decoder, FullScaleDecoder)  # a folded one is not trained
    features = decoder.features(maps)
    small = decoder.predict(features)
    logits = F.interpolate(small, size=batch.image.shape[2:], mode="bilinear", align_corners=False)
    parts = {
        # Ten times: lesions are about a hundredth of the pixels, so the mean over pixels is small.
        "bce": 10 * F.binary_cross_entropy_with_logits(logits, batch.target),
        "dice": dice_loss(logits, batch.target).mean(),
        "contrast": 0.1 * contrastive_loss(model, features, hidden, batch.mask, batch.target),
        "class": 0.5 * auxiliary.class_loss(features, batch.classes),
        "sentence": 0.2 * auxiliary.sentence_loss(hidden, batch.attributes),
    }
    return torch.stack(list(parts.values())).sum(), {name: float(value.detach()) for name, value in parts.items()}
