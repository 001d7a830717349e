"""The SVLA block, algebraically simplified: equivalent to ``functional.svla``, in fewer, better conditioned steps.

What is folded, and why the result is the same:

1. A per-channel offset of ``a`` cancels in the InstanceNorm of the query, and so does the query's bias.  So the
   mean of ``a`` is subtracted: half precision then holds the variation of a map and not its mean.
2. scores = keys . IN(Wq a) = ((keys / sigma) Wq) . a: the query is needed for one number per channel only, and
   folded keys are multiplied with ``a`` directly.
3. Wo (values p) = (Wo values) p: the output projection is applied to T tokens, once per sentence, instead of to every
   pixel.  Its bias cancels in the InstanceNorm.
4. IN(V p) = (V / sigma') (p - mean p), and sigma' needs only the T x T second moments of p.  W1 of that is
   (W1 V / sigma') (p - mean p): the first gate layer has rank T.
5. The mean of p over the pixels is subtracted: nearly uniform attention then keeps its digits in half precision.
6. A pixel's weights sum to one, so the common part of all tokens' values is a constant, which the norm of 4 removes.
   The values are stored without it: the variance is then a sum of small numbers, not a difference of large ones.

Of the five C x C products per pixel, three remain.  This form is exported for every engine, and the Triton kernels
compute it, in different steps (``lsms_rt.kernels``).  Shapes as in ``functional``; P = H * W pixels.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from .functional import EPS, MASKED, Filter, SvlaWeights, multi_scale_depthwise


def fold_sentence(keys: Tensor, values: Tensor, mask: Tensor, output: Filter) -> tuple[Tensor, Tensor]:
    """Compute what depends only on the sentence: keys / sqrt(C), and Wo values minus their mean (steps 3, 6).

    ``keys``, ``values`` (B, T, C), zero at padding; ``mask`` (B, T).  Returns two of the same shape, zero at padding.
    """
    keep = mask[:, :, None]
    values = F.linear(values, output[0].flatten(1))
    # At least 1.  A clamp has an upper limit, which float16 cannot hold.
    count = F.relu(keep.sum(1, keepdim=True) - 1.0) + 1.0
    mean = values.sum(1, keepdim=True) / count
    return keys * keys.shape[2] ** -0.5, (values - mean) * keep


def centered(a: Tensor) -> Tensor:
    """Subtract from ``a`` (B, C, H, W) its mean over the pixels (step 1), in fp32, so that no remainder is left."""
    return (wide(a) - wide(a).mean((2, 3), keepdim=True)).to(a.dtype)


def text_weights(a: Tensor, keys: Tensor, mask: Tensor, query: Tensor) -> Tensor:
    """Compute every pixel's softmax over the tokens, minus its mean over the pixels (steps 1, 2 and 5).

    ``a`` (B, C, H, W) of zero mean; ``keys`` (B, T, C) from :func:`fold_sentence`; ``query`` (C, C, 1, 1).
    Returns (B, P, T), zero at padding.
    """
    deviation = (wide(F.conv2d(a, query)).square().mean((2, 3)) + EPS).sqrt()
    folded = torch.matmul((keys / deviation[:, None]).to(keys.dtype), query.flatten(1))
    scores = wide(torch.matmul(a.flatten(2).transpose(1, 2), folded.transpose(1, 2)))
    p = (scores + ((wide(mask) - 1.0) * -MASKED)[:, None]).softmax(2)
    return (p - p.mean(1, keepdim=True)).to(a.dtype)


def fold_values(p: Tensor, values: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Fold the output's InstanceNorm into the values, and apply the first gate layer to them (step 4).

    ``p`` (B, P, T) from :func:`text_weights`, ``values`` (B, T, C) from :func:`fold_sentence`, ``hidden`` (C, C, 1, 1).
    Returns two (B, T, C): context = first^T p, hidden layer = second^T p before its ReLU.
    """
    with no_autocast(p.device):
        # (B, T, T).
        second_moments = torch.matmul(wide(p).transpose(1, 2), wide(p)) / p.shape[1]
        variance = (torch.matmul(second_moments, wide(values)) * values).sum(1)
    normal = (values / (variance + EPS).sqrt()[:, None]).to(values.dtype)
    return normal, F.linear(normal, hidden.flatten(1))


def svla(x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
    """Compute the whole block.  ``x`` (B, C, H, W); ``keys``, ``values`` (B, T, C) from :func:`fold_sentence`."""
    a, s = multi_scale_depthwise(x, weights.center, weights.strips)
    p = text_weights(centered(a), keys, mask, weights.query[0])
    values, first = fold_values(p, values, weights.hidden)
    by_pixel = p.transpose(1, 2)
    context = torch.matmul(values.transpose(1, 2), by_pixel).reshape(x.shape)
    hidden = F.relu(torch.matmul(first.transpose(1, 2), by_pixel).reshape(x.shape))
    return F.conv2d(s + torch.tanh(F.conv2d(hidden, weights.gate)) * context, *weights.mix) * x


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Compute in the types of the tensors: autocast (training on a GPU) rounds what :func:`wide` gives to a product.

    A variance from such sums may be negative.  Without autocast this is nothing, so that no exported graph has it.
    """
    kind = device.type
    # Tensors of shapes only (``meta``) know no autocast.
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if on else nullcontext()


def wide(x: Tensor) -> Tensor:
    """Convert half precision to float32, since statistics overflow and cancel there; leave other types."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
