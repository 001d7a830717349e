"""The SVLA block as a chain of kernels: five launches for up to 128 channels, seven for more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lsms_rt.model.config import MAX_TOKENS
from lsms_rt.model.functional import SvlaWeights

from .bands import pack_bands, pack_row_bias
from .depthwise import multi_scale_depthwise
from .depthwise_direct import depthwise_direct
from .fold_keys import fold_keys
from .fold_values import fold_values
from .gate import gate
from .gate_mix import fits, gate_mix
from .launch import shape_of
from .mix import mix
from .query_statistics import query_statistics
from .shape import TOKEN_COUNTS
from .token_attention import token_attention


@dataclass(frozen=True)
class PackedWeights:
    """A block's parameters as the kernels read them.

    Attributes:
        bands: (C, 11, 8, 32), the depthwise filters as tables.
        bias: (C,) float32 (float64 for float64 parameters), of the 5x5.
        row_bias: (C, H), type as ``bias``: the sum of the strips' biases for every row.
        query: (C, C), the query's projection.
        hidden: (C, C), the first layer of the gate.
        gate: (C, C), the second layer of the gate.
        mix: (C, C), the last 1x1.
        mix_bias: (C,), type as ``bias``.
    """

    bands: Tensor
    bias: Tensor
    row_bias: Tensor
    query: Tensor
    hidden: Tensor
    gate: Tensor
    mix: Tensor
    mix_bias: Tensor


def pack(weights: SvlaWeights, height: int) -> PackedWeights:
    """Pack the parameters of a block for maps of ``height`` rows."""
    dtype = weights.center[0].dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    query, hidden, second, last = (
        w.flatten(1).contiguous() for w in (weights.query[0], weights.hidden, weights.gate, weights.mix[0])
    )
    return PackedWeights(
        bands=pack_bands(weights, dtype),
        bias=weights.center[1].to(wide),
        row_bias=pack_row_bias(weights, height, wide),
        query=query,
        hidden=hidden,
        gate=second,
        mix=last,
        mix_bias=weights.mix[1].to(wide),
    )


def svla(x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, packed: PackedWeights) -> Tensor:
    """Compute the SVLA block, by the kernels on CUDA and by their plain twins on the CPU.

    Args:
        x: maps (B, C, H, W), contiguous; float16, float32, or (on the CPU) float64.
        keys: (B, T, C) from ``fold_sentence``, T at most MAX_TOKENS.
        values: the same.
        mask: (B, T), 1 for a token and 0 for padding.
        packed: the parameters.

    Returns:
        (B, C, H, W), type as ``x``.

    Raises:
        ValueError: the kernels do not support the sizes or types.
    """
    pixels = x.shape[2] * x.shape[3]
    keys, values, mask = pad_tokens(keys, values, mask.to(packed.bias.dtype))
    depthwise = multi_scale_depthwise if x.dtype == torch.float16 else depthwise_direct
    a, s = depthwise(x, packed.bands, packed.bias, packed.row_bias)
    folded, offset = fold_keys(query_statistics(a, packed.query), packed.query, keys, mask, pixels)
    p, moments = token_attention(a, folded, offset, values, mask)
    if x.dtype == torch.float64 or not fits(shape_of(x)):
        u = gate(s, p, *fold_values(moments, values, packed.hidden, pixels), packed.gate)
        return mix(u, x, packed.mix, packed.mix_bias)
    return gate_mix(x, s, p, moments, values, packed.hidden, packed.gate, packed.mix, packed.mix_bias)


def pad_tokens(keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pad sentences to one of TOKEN_COUNTS, which the kernels support; padding is masked, so it changes nothing."""
    tokens = keys.shape[1]
    if tokens > MAX_TOKENS:
        raise ValueError(f"the sentence has {tokens} tokens; the kernels support up to {MAX_TOKENS}: shorten it")
    more = next(count for count in TOKEN_COUNTS if count >= tokens) - tokens
    if more:
        keys, values, mask = F.pad(keys, (0, 0, 0, more)), F.pad(values, (0, 0, 0, more)), F.pad(mask, (0, more))
    return keys.contiguous(), values.contiguous(), mask.contiguous()


class TritonSvla:
    """The block's form that runs the kernels (``lsms_rt.model.forms``), with packed weights for every image height.

    They are packed again if a parameter was changed, moved or replaced.  Those for other heights stay, because a CUDA
    graph that was captured with them reads their memory.
    """

    folds = True

    def __init__(self) -> None:
        self._packed: dict[int, tuple[object, PackedWeights]] = {}

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
        return svla(x.contiguous(), keys, values, mask, self._pack(weights, x.shape[2]))

    def _pack(self, weights: SvlaWeights, height: int) -> PackedWeights:
        if torch.compiler.is_compiling() and height in self._packed:
            # A traced graph has no addresses to compare; the weights were packed by a run before it.
            return self._packed[height][1]
        key = tuple((t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype) for t in _parameters(weights))
        if height not in self._packed or self._packed[height][0] != key:
            self._packed[height] = key, pack(weights, height)
        return self._packed[height][1]


def _parameters(weights: SvlaWeights) -> list[Tensor]:
    filters = [weights.center, weights.query, weights.mix, *(f for pair in weights.strips for f in pair)]
    return [weights.hidden, weights.gate, *(tensor for f in filters for tensor in f)]
