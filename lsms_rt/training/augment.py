"""Differences between scanners, drawn at random: calibration, sharpness, noise.

No flips: the liver is on the right, and sentences say left and right.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def augment(hu: Tensor, rng: np.random.Generator) -> Tensor:
    """``hu`` (S, S) float32 -> the same slice as another scanner might show it."""
    hu = hu * (1 + rng.normal(0, 0.04)) + rng.normal(0, 8)
    if rng.random() < 0.3:
        # Reconstruction kernels: below zero is smoother, above is sharper.
        smooth = F.avg_pool2d(hu[None, None], 3, 1, 1, count_include_pad=False)[0, 0]
        hu = hu + rng.uniform(-0.7, 0.6) * (hu - smooth)
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(2, 12), tuple(hu.shape)).astype(np.float32)
        hu = hu + torch.from_numpy(noise)
    return hu
