"""Presence head: decide if anything in the slice matches the sentence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .folded import wide

HIDDEN = 64
# A softmax of half the logits focuses on the most likely lesion, and a little on its competitors.
SHARPNESS = 0.5


class PresenceHead(nn.Module):
    """One logit per sentence: whether the mask should hold anything.

    A mask's highest pixel cannot answer this: one saturated pixel decides, and SVLA's InstanceNorms erase how strongly
    the sentence matches.  So the logit is computed from the decoder's features, pooled twice: where the mask logits are
    highest, and over the whole slice.  ``LSMS.segment`` takes the minimum of this logit and every mask logit, so that a
    sentence that matches nothing gets an empty mask and the graphs keep their inputs and outputs.

    Source: presence token of SAM 3 and no-target head of ReLA (arXiv 2306.00968), in our reconstruction.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(width, HIDDEN, 1)
        self.hidden = nn.Linear(2 * HIDDEN + 1, HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)
        nn.init.zeros_(self.output.weight)
        # Most sentences match something: an untrained head must not empty the masks.
        nn.init.constant_(self.output.bias, 3.0)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """``features`` (B, width, h, w) and mask ``logits`` (B, 1, n h, n w), n >= 1 -> (B, 1, 1, 1)."""
        scale = logits.shape[2] // features.shape[2]
        cells = F.max_pool2d(logits, scale) if scale > 1 else logits
        # (B, 1, P)
        cells = wide(cells).flatten(2)
        embedded = F.gelu(self.embed(features)).flatten(2)
        where = (cells * SHARPNESS).softmax(2).to(embedded.dtype)
        focus = torch.matmul(embedded, where.transpose(1, 2))[:, :, 0]
        # A soft maximum of the logits, log(sum(exp(2 m))) / 2, scaled by 1/5.
        peak = torch.logsumexp(2 * cells, 2) / 10
        pooled = torch.cat([focus, embedded.mean(2), peak.to(embedded.dtype)], 1)
        answer: Tensor = self.output(F.gelu(self.hidden(pooled)))
        return answer[:, :, None, None]
