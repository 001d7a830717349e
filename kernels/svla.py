"""The SVLA block as a chain of kernels: five launches for up to 128 channels (four if merged), seven for more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lsms_rt.model.config import MAX_TOKENS
from lsms_rt.model.functional import SvlaWeights
from lsms_rt.model.packs import Packs

from .bands import pack_bands, pack_row_bias
from .depthwise import multi_scale_depthwise
from .depthwise_direct import depthwise_direct
from .fold_attention import fits as fold_attention_fits
from .fold_attention import fold_attention
from .fold_keys import fold_keys
from .fold_values import fold_values
from .gate import gate
from .gate_mix import fits, gate_mix
from .launch import shape_of
from .mix import mix
from .query_statistics import query_statistics
from .registry import chain_name
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


def svla(
    x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, packed: PackedWeights, chain: str = "separate"
) -> Tensor:
    """Compute the SVLA block, by the kernels on CUDA and by their plain twins on the CPU.

    Args:
        x: maps (B, C, H, W), contiguous; float16, float32, or (on the CPU) float64.
        keys: (B, T, C) from ``fold_sentence``, T at most MAX_TOKENS.
        values: the same.
        mask: (B, T), 1 for a token and 0 for padding.
        packed: the parameters.
        chain: one of ``registry.CHAINS``; "merged" is "separate" where not all channels fit.

    Returns:
        (B, C, H, W), type as ``x``.

    Raises:
        ValueError: the kernels do not support the sizes or types.
    """
    pixels = x.shape[2] * x.shape[3]
    keys, values, mask = pad_tokens(keys, values, mask.to(packed.bias.dtype))
    depthwise = multi_scale_depthwise if x.dtype == torch.float16 else depthwise_direct
    a, s = depthwise(x, packed.bands, packed.bias, packed.row_bias)
    statistics = query_statistics(a, packed.query)
    if chain == "merged" and x.dtype != torch.float64 and fold_attention_fits(shape_of(x)):
        p, moments = fold_attention(a, statistics, packed.query, keys, values, mask)
    else:
        folded, offset = fold_keys(statistics, packed.query, keys, mask, pixels)
        p, moments = token_attention(a, folded, offset, values, mask)
    if not _fits(x):
        u = gate(s, p, *fold_values(moments, values, packed.hidden, pixels), packed.gate)
        return mix(u, x, packed.mix, packed.mix_bias)
    return gate_mix(x, s, p, moments, values, packed.hidden, packed.gate, packed.mix, packed.mix_bias)


def _fits(x: Tensor) -> bool:
    return x.dtype != torch.float64 and fits(shape_of(x))


def pad_tokens(keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pad sentences to one of TOKEN_COUNTS, which the kernels support; padding is masked, so it changes nothing."""
    more = padded_tokens(keys.shape[1]) - keys.shape[1]
    if more:
        keys, values, mask = F.pad(keys, (0, 0, 0, more)), F.pad(values, (0, 0, 0, more)), F.pad(mask, (0, more))
    return keys.contiguous(), values.contiguous(), mask.contiguous()


def padded_tokens(tokens: int) -> int:
    """Return the smallest of TOKEN_COUNTS that is at least ``tokens``; raises ValueError if they are too many."""
    if tokens > MAX_TOKENS:
        raise ValueError(f"the sentence has {tokens} tokens; the kernels support up to {MAX_TOKENS}: shorten it")
    return next(count for count in TOKEN_COUNTS if count >= tokens)


class TritonSvla:
    """The block's form that runs the kernels (``lsms_rt.model.forms``), with packed weights for every image height.

    They are packed again if a parameter was changed, moved or replaced.  Those for other heights stay, because a CUDA
    graph that was captured with them reads their memory.  ``chain`` is one of ``registry.CHAINS``, or None for the one
    that was tuned for this GPU at a shape.
    """

    folds = True

    def __init__(self, chain: str | None = None) -> None:
        self.chain = chain
        self.packs: Packs[PackedWeights] = Packs()
        # Looked up once per shape: in a file, which torch.compile cannot trace.
        self._chains: dict[tuple[object, ...], str] = {}

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
        packed = self._pack(weights, x.shape[2])
        return svla(x.contiguous(), keys, values, mask, packed, self._chain_at(x, keys.shape[1]))

    def _pack(self, weights: SvlaWeights, height: int) -> PackedWeights:
        return self.packs.get(height, _parameters(weights), lambda: pack(weights, height))

    def _chain_at(self, x: Tensor, tokens: int) -> str:
        count = padded_tokens(tokens)
        size = (*x.shape[1:], count, x.dtype, x.device)
        if size not in self._chains:
            at = shape_of(x, count) if _fits(x) else None
            self._chains[size] = "separate" if at is None else chain_name(at, self.chain)
        return self._chains[size]


def _parameters(weights: SvlaWeights) -> list[Tensor]:
    strips = [tensor for row, column in weights.strips for tensor in (*row, *column)]
    return [weights.hidden, weights.gate, *weights.center, *weights.query, *weights.mix, *strips]
