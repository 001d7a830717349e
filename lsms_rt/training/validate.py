"""Quick figures during training: Dice of single targets, and silence where nothing is meant."""

from __future__ import annotations

import numpy as np
import torch

from lsms_rt.model import LSMS
from lsms_rt.tokenizer import Tokenizer

from .batches import Sampler
from .corpus import Corpus


@torch.no_grad()
def validate(model: LSMS, corpus: Corpus, tokenizer: Tokenizer, size: int, count: int) -> dict[str, float]:
    """Mean Dice of true sentences and share of empty masks of false ones, on ``count`` slices (two sentences each).

    The same seed every time, so that two calls can be compared.
    """
    model.eval()
    sampler = Sampler(corpus, tokenizer, model.config.hu_window, seed=1, augment=False)
    dice, silent = [], []
    for _ in range(max(1, count // 10)):
        batch = sampler.batch(10, size, full=1.0)
        masks = model(batch.image, batch.tokens, batch.mask) > 0
        for mask, target in zip(masks, batch.target > 0, strict=True):
            if target.any():
                dice.append(float(2 * (mask & target).sum() / (mask.sum() + target.sum())))
            else:
                silent.append(float(not mask.any()))
    return {"dice": float(np.mean(dice)), "silent": float(np.mean(silent)), "n": len(dice) + len(silent)}
