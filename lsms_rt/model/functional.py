"""The mathematics of the SVLA block as plain PyTorch operations: the reference implementation.

Every kernel, graph rewrite and engine is compared with these functions.  Shapes: maps are (B, C, H, W), keys and
values (B, T, C), the token mask (B, T) float with 1 for a token and 0 for padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5
STRIPS = (7, 11, 21)
# Finite, so that fp16 can hold it and a fully masked sentence gives no NaN.
MASKED = -1e4

# Weight (C, 1, kh, kw) or (C, C, 1, 1), bias (C,).
Filter = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SvlaWeights:
    """The parameters of one SVLA block.

    ``center`` is the depthwise 5x5; ``strips`` holds, for every length n in ``STRIPS``, the depthwise 1xn and nx1.
    ``query``, ``output`` and ``mix`` are 1x1 filters; ``hidden`` and ``gate`` (C, C, 1, 1) have no bias.
    """

    center: Filter
    strips: Sequence[tuple[Filter, Filter]]
    query: Filter
    output: Filter
    hidden: Tensor
    gate: Tensor
    mix: Filter


def multi_scale_depthwise(x: Tensor, center: Filter, strips: Sequence[tuple[Filter, Filter]]) -> tuple[Tensor, Tensor]:
    """Apply a depthwise 5x5, then three pairs of strips on its result (SegNeXt, arXiv 2209.08575, eq. 1).

    ``x`` (B, C, H, W); ``center`` is the 5x5 filter; ``strips`` holds, for every length n in ``STRIPS``, the 1xn and
    the nx1 filter.  Zero padding at both levels.  Returns ``a`` = 5x5(x) and ``s`` = a + sum of the strips on a.
    """
    channels = x.shape[1]
    a = F.conv2d(x, *center, padding=2, groups=channels)
    s = a
    for n, (row, column) in zip(STRIPS, strips, strict=True):
        strip = F.conv2d(a, *row, padding=(0, n // 2), groups=channels)
        s = s + F.conv2d(strip, *column, padding=(n // 2, 0), groups=channels)
    return a, s


def instance_norm(x: Tensor) -> Tensor:
    """Normalize every channel to zero mean and unit variance over the pixels; ``x`` is (B, C, H, W)."""
    return F.instance_norm(x, eps=EPS)


def text_attention(a: Tensor, keys: Tensor, values: Tensor, mask: Tensor, query: Filter, output: Filter) -> Tensor:
    """Let every pixel attend to the tokens of the sentence: IN(Wo softmax(IN(Wq a) k / sqrt(C)) v).

    ``a`` (B, C, H, W); ``keys``, ``values`` (B, T, C), zero at padding; ``mask`` (B, T).  ``query`` and ``output`` are
    1x1 filters (C, C, 1, 1).  One head, InstanceNorm over the pixels.  Returns (B, C, H, W).
    """
    batch, channels, height, width = a.shape
    q = instance_norm(F.conv2d(a, *query)).flatten(2)
    scores = torch.matmul(keys, q) * channels**-0.5 + ((mask - 1.0) * -MASKED).unsqueeze(2)
    attention = scores.softmax(dim=1)
    context = torch.matmul(values.transpose(1, 2), attention).reshape(batch, channels, height, width)
    return instance_norm(F.conv2d(context, *output))


def language_gate(context: Tensor, hidden: Tensor, gate: Tensor) -> Tensor:
    """Gate the context of every pixel: tanh(W2 relu(W1 c)) * c.  ``hidden``, ``gate``: (C, C, 1, 1)."""
    return torch.tanh(F.conv2d(F.relu(F.conv2d(context, hidden)), gate)) * context


def svla(x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
    """Compute the whole block by its definition: Wout(s + gated attention) * x.  ``x`` and the result (B, C, H, W)."""
    a, s = multi_scale_depthwise(x, weights.center, weights.strips)
    context = text_attention(a, keys, values, mask, weights.query, weights.output)
    return F.conv2d(s + language_gate(context, weights.hidden, weights.gate), *weights.mix) * x
