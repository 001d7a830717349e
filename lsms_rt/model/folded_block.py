"""An encoder block around its SVLA, algebraically simplified: five steps without BatchNorm, scales and lone additions.

What is folded, and why the result is the same.  In inference, BatchNorm is z = g x + h for every channel, with
g = gamma / sqrt(variance + eps) and h = beta - g mean; it never stands before a zero padding here, so it may be moved:

1. The first 1x1 reads g1 x + h1: its weight is Wi diag(g1), its bias Wi h1 + bi.
2. The attention's own shortcut is the normalized map, and its sum with the block's shortcut is
   x + s1 (z + Wo y + bo) = (1 + s1 g1) x + (diag(s1) Wo) y + s1 (h1 + bo):
   one factor per channel for x, and the layer scale in the weight of the 1x1 after SVLA.
3. The 1x1 that widens reads the second BatchNorm: as step 1.  The 3x3 after it pads its result with zeros, as before.
4. The 1x1 that narrows has the second layer scale in its weight and bias; the shortcut's factor is one.

Weights are folded in float32 at least.  The Triton path computes this form (``lsms_rt.kernels.block``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from .folded import wide
from .functional import Filter


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A BatchNorm in inference: ``scale`` (gamma), ``shift`` (beta), ``mean``, ``variance``, all (C,), and ``eps``.

    ``steps``, a scalar, counts the training steps, each of which changed mean and variance.
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor
    eps: float
    steps: Tensor | None = None

    @classmethod
    def of(cls, norm: nn.Module) -> Norm:
        """Return the parameters and running statistics of a BatchNorm2d."""
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        return cls(
            scale=norm.weight,
            shift=norm.bias,
            mean=norm.running_mean,
            variance=norm.running_var,
            eps=norm.eps,
            steps=norm.num_batches_tracked,
        )

    def tensors(self) -> list[Tensor]:
        """Return all that tells whether the BatchNorm was changed (``packs.fingerprint``)."""
        steps = [] if self.steps is None else [self.steps]
        return [self.scale, self.shift, self.mean, self.variance, *steps]

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return g and h of z = g x + h, both (C,), in float32 at least."""
        g = wide(self.scale) * (wide(self.variance) + self.eps).rsqrt()
        return g, wide(self.shift) - g * wide(self.mean)


@dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """The parameters of a block around its SVLA: 1x1 filters, the depthwise 3x3, and layer scales (C, 1, 1)."""

    norm1: Norm
    inner: Filter
    outer: Filter
    scale1: Tensor
    norm2: Norm
    expand: Filter
    depthwise: Filter
    reduce: Filter
    scale2: Tensor


@dataclass(frozen=True, kw_only=True)
class FoldedBlock:
    """The same, folded: filters, and ``shortcut`` (C,), the factor of the block's input in step 2."""

    inner: Filter
    outer: Filter
    shortcut: Tensor
    expand: Filter
    depthwise: Filter
    reduce: Filter


def fold_norm(norm: Norm, after: Filter) -> Filter:
    """Fold a BatchNorm into the 1x1 that reads it (steps 1 and 3); the result is float32 at least."""
    g, h = norm.factors()
    weight, bias = wide(after[0]), wide(after[1])
    return weight * g[:, None, None], bias + weight.flatten(1) @ h


def fold_scale(scale: Tensor, before: Filter) -> Filter:
    """Fold a factor per channel, (C,), into the filter whose result it multiplies (steps 2 and 4)."""
    return wide(before[0]) * wide(scale)[:, None, None, None], wide(before[1]) * wide(scale)


def fold(weights: BlockWeights) -> FoldedBlock:
    """Fold the parameters of a block; the results are float32, or float64 if the parameters are."""
    scale1, scale2 = wide(weights.scale1).flatten(), wide(weights.scale2).flatten()
    g, h = weights.norm1.factors()
    outer, bias = fold_scale(scale1, weights.outer)
    return FoldedBlock(
        inner=fold_norm(weights.norm1, weights.inner),
        outer=(outer, bias + scale1 * h),
        shortcut=1 + scale1 * g,
        expand=fold_norm(weights.norm2, weights.expand),
        depthwise=(wide(weights.depthwise[0]), wide(weights.depthwise[1])),
        reduce=fold_scale(scale2, weights.reduce),
    )


def block(x: Tensor, svla: Callable[[Tensor], Tensor], folded: FoldedBlock) -> Tensor:
    """Compute a block: ``x`` (B, C, H, W), in the type of the folded weights; ``svla`` computes what is inside."""
    y = svla(F.gelu(F.conv2d(x, *folded.inner)))
    z = folded.shortcut[:, None, None] * x + F.conv2d(y, *folded.outer)
    between = F.conv2d(z, *folded.expand)
    middle = F.gelu(F.conv2d(between, *folded.depthwise, padding=1, groups=between.shape[1]))
    return z + F.conv2d(middle, *folded.reduce)
