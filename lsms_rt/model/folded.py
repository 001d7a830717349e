"""The SVLA block with its algebra done: the function of ``functional.svla``, in fewer and better conditioned steps.

What is folded, and why it may be:

1. A per-channel offset of ``a`` cancels in the InstanceNorm of the query, and so does the query's bias.  So ``a`` is
   kept less its mean: half precision then holds the variation of a map and not its mean.
2. scores = keys . IN(Wq a) = ((keys / sigma) Wq) . a: the query is needed for one number a channel only, and folded
   keys meet ``a`` directly.
3. Wo (values p) = (Wo values) p: the output projection meets T tokens, once a sentence, instead of every pixel.  Its
   bias cancels in the InstanceNorm.
4. IN(V p) = (V / sigma') (p - mean p), and sigma' needs only the T x T second moments of p.  W1 of that is
   (W1 V / sigma') (p - mean p): the first gate layer has rank T.
5. p is kept less its mean over the pixels: nearly even attention then keeps its digits in half precision.
6. A pixel's weights sum to one, so what all tokens' values have in common is a constant, which 4's norm takes out.  The
   values are kept without it: the variance is then a sum of small numbers, not a difference of large ones.

Of the five C x C products a pixel three are left.  This is the form that is exported for every engine, and the form
that the Triton kernels compute, in other steps (``lsms_rt.kernels``).  Shapes as in ``functional``; P = H * W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .functional import EPS, MASKED, Filter, SvlaWeights, multi_scale_depthwise


def fold_sentence(keys: Tensor, values: Tensor, mask: Tensor, output: Filter) -> tuple[Tensor, Tensor]:
    """All of the block that depends on the sentence alone: keys / sqrt(C), and Wo values less their mean (steps 3, 6).

    ``keys``, ``values`` (B, T, C), zero at padding; ``mask`` (B, T).  Returns two of the same shape, zero at padding.
    """
    keep = mask[:, :, None]
    values = F.linear(values, output[0].flatten(1))
    count = F.relu(keep.sum(1, keepdim=True) - 1.0) + 1.0  # at least 1; a clamp has an upper end, which fp16 lacks
    mean = values.sum(1, keepdim=True) / count
    return keys * keys.shape[2] ** -0.5, (values - mean) * keep


def centred(a: Tensor) -> Tensor:
    """``a`` (B, C, H, W) less its mean over the pixels (step 1); subtracted in fp32, so that no rest of it is left."""
    return (wide(a) - wide(a).mean((2, 3), keepdim=True)).to(a.dtype)


def text_weights(a: Tensor, keys: Tensor, mask: Tensor, query: Tensor) -> Tensor:
    """Every pixel's softmax over the tokens, less its mean over the pixels (steps 1, 2 and 5).

    ``a`` (B, C, H, W) of zero mean; ``keys`` (B, T, C) from :func:`fold_sentence`; ``query`` (C, C, 1, 1).
    Returns (B, P, T), zero at padding.
    """
    deviation = (wide(F.conv2d(a, query)).square().mean((2, 3)) + EPS).sqrt()
    folded = torch.matmul((keys / deviation[:, None]).to(keys.dtype), query.flatten(1))
    scores = wide(torch.matmul(a.flatten(2).transpose(1, 2), folded.transpose(1, 2)))
    p = (scores + ((wide(mask) - 1.0) * -MASKED)[:, None]).softmax(2)
    return (p - p.mean(1, keepdim=True)).to(a.dtype)


def fold_values(p: Tensor, values: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Values with the output's InstanceNorm folded in, and the first gate layer of them (step 4).

    ``p`` (B, P, T) from :func:`text_weights`, ``values`` (B, T, C) from :func:`fold_sentence`, ``hidden`` (C, C, 1, 1).
    Returns two (B, T, C): context = first^T p, hidden layer = second^T p before its ReLU.
    """
    second_moments = torch.matmul(wide(p).transpose(1, 2), wide(p)) / p.shape[1]  # (B, T, T)
    variance = (torch.matmul(second_moments, wide(values)) * values).sum(1)
    normal = (values / (variance + EPS).sqrt()[:, None]).to(values.dtype)
    return normal, F.linear(normal, hidden.flatten(1))


def svla(x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
    """The whole block.  ``x`` (B, C, H, W); ``keys``, ``values`` (B, T, C) from :func:`fold_sentence`."""
    a, s = multi_scale_depthwise(x, weights.center, weights.strips)
    p = text_weights(centred(a), keys, mask, weights.query[0])
    values, first = fold_values(p, values, weights.hidden)
    by_pixel = p.transpose(1, 2)
    context = torch.matmul(values.transpose(1, 2), by_pixel).reshape(x.shape)
    hidden = F.relu(torch.matmul(first.transpose(1, 2), by_pixel).reshape(x.shape))
    return F.conv2d(s + torch.tanh(F.conv2d(hidden, weights.gate)) * context, *weights.mix) * x


def wide(x: Tensor) -> Tensor:
    """float32 for half precision, since statistics overflow and cancel there; other types as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
