"""The Full-Scale Decoder, algebraically simplified: equivalent to ``decoder.FullScaleDecoder``, with less work.

What is folded, and why the result is the same:

1. A token x = P t + b is ``dims[i]`` numbers t (32 at stride 4, where most tokens are), seen through the projection to
   the decoder's width (128).  LayerNorm(x) is gamma (C x) / sigma + beta, with C the centering: linear in t except for
   sigma.  So queries, keys and values are made from t / sigma directly, by (W gamma C P), and no token is ever widened.
2. sigma^2 = |C (P t + b)|^2 / width = |R t|^2 with R from the QR decomposition of C [P b]: as many numbers as t has.
3. What the token's position and beta add to queries, keys and values depends only on its position in the cell: one
   table.
4. A bias of the keys adds the same to all scores of a query, which a softmax does not see: dropped.  A bias of the
   values is added to every result, since weights sum to one: moved after the output's product.
5. The output's product, the merging 1x1 and the projection are linear: they are multiplied once, in advance.
6. Tokens are cut out of maps and put back with whole rows of channels last, before they are widened.

Engines are made of it (``export.build``); training and checkpoints use the plain decoder only.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoder import FOLDS, HEAD, TOKENS, FullScaleDecoder, SelfAttention, fused_scales, pixel_shuffle, sinusoids
from .folded import wide

# Columns of ones after t, for b: one would do, but matrix units need widths in multiples of eight.
ONES = 8


class FoldedDecoder(nn.Module):
    """A decoder equivalent to ``decoder``, made from its weights.

    For inference only: its parameters are products of the decoder's, computed in float64, not those of a checkpoint.
    """

    query_place: Tensor
    key_place: Tensor
    value_place: Tensor
    scale_embedding: Tensor

    def __init__(self, decoder: FullScaleDecoder) -> None:
        super().__init__()
        inside, across = decoder.inside, decoder.across
        self.width, self.heads, self.eps = decoder.width, inside.heads, inside.norm.eps
        queries, keys, values, inner_bias = _attention(inside)
        place = inside.norm.bias.double() + decoder.token_embedding.double()
        self.spread, self.query, self.key, self.value = (nn.ModuleList() for _ in range(4))
        for project in decoder.project:
            tokens = _with_ones(_matrix(project), _bias(project))
            tokens = tokens - tokens.mean(0)
            self.spread.append(_linear(_root(tokens)))
            for layers, (weight, _) in ((self.query, queries), (self.key, keys), (self.value, values)):
                layers.append(_linear(weight @ (inside.norm.weight.double()[:, None] * tokens)))
        for name, (weight, bias) in (("query", queries), ("key", keys), ("value", values)):
            self.register_buffer(f"{name}_place", (place @ weight.T + bias).float())
        inner = inside.output.weight.double()
        self.pool = nn.ModuleList(_linear(_matrix(p), _bias(p) + inner_bias) for p in decoder.project)
        self.pool_change = _linear(inner)

        self.norm = copy.deepcopy(across.norm)
        self.register_buffer("scale_embedding", decoder.scale_embedding.detach().clone())
        *projections, outer_bias = _attention(across)
        self.across_query, self.across_key, self.across_value = (_linear(w, b) for w, b in projections)
        outer = across.output.weight.double()

        self.merge_map, self.merge_tokens, self.merge_change = (nn.ModuleList() for _ in range(3))
        for project, merge in zip(decoder.project, decoder.merge, strict=True):
            mix = _matrix(merge)
            self.merge_map.append(_conv(mix @ _matrix(project), mix @ (_bias(project) + inner_bias + outer_bias)))
            self.merge_tokens.append(_conv(mix @ inner))
            self.merge_change.append(_conv(mix @ outer))
        self.fuse, self.predict = copy.deepcopy(decoder.fuse), copy.deepcopy(decoder.predict)
        self.subpixel, self.form = decoder.subpixel, decoder.form
        self.requires_grad_(False)

    def features(self, maps: list[Tensor]) -> Tensor:
        """Four maps (B, C_i, H / stride, W / stride) -> (B, width / 2, H / 4, W / 4)."""
        rows, columns = maps[3].shape[2:]
        cells = [_cells(x.permute(0, 2, 3, 1), fold) for x, fold in zip(maps, FOLDS, strict=True)]
        mixed = torch.split(self._inside(cells), list(TOKENS), dim=1)
        change = self._across(cells, mixed, rows, columns)
        merged = []
        for index, (x, part, fold) in enumerate(zip(maps, mixed, FOLDS, strict=True)):
            part = _uncells(part, fold, rows, columns).permute(0, 3, 1, 2)
            small = self.merge_change[index](change[index])
            if fold != 1:
                small = F.interpolate(small, scale_factor=float(fold), mode="nearest")
            merged.append(self.merge_map[index](x) + self.merge_tokens[index](part) + small)
        return fused_scales(merged, self.fuse, self.form)

    def logits(self, features: Tensor) -> Tensor:
        """Compute the same as ``FullScaleDecoder.logits``."""
        return pixel_shuffle(self.predict(features), self.subpixel)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Compute the same as ``FullScaleDecoder.forward``."""
        return self.logits(self.features(maps))

    def _inside(self, cells: list[Tensor]) -> Tensor:
        """Return the attention inside every cell, before its output product: (B * cells, 85, width)."""
        scaled = []
        for t, spread in zip(cells, self.spread, strict=True):
            t = F.pad(t, (0, ONES), value=1.0)
            sigma = (wide(spread(t)).square().sum(2, keepdim=True) + self.eps).sqrt()
            scaled.append((wide(t) / sigma).to(t.dtype))
        q, k, v = (
            torch.cat([layer(t) for layer, t in zip(layers, scaled, strict=True)], 1) + place
            for layers, place in (
                (self.query, self.query_place),
                (self.key, self.key_place),
                (self.value, self.value_place),
            )
        )
        return self._attend(q, k, v)

    def _across(self, cells: list[Tensor], mixed: tuple[Tensor, ...], rows: int, columns: int) -> Tensor:
        """Attend over one pooled token per scale and cell: (4, B, width, rows, columns), before its output."""
        pooled = torch.stack([pool(t.mean(1)) for pool, t in zip(self.pool, cells, strict=True)], 1)
        pooled = pooled + self.pool_change(torch.stack([part.mean(1) for part in mixed], 1))
        position = sinusoids(rows, columns, self.width, pooled.device).to(pooled)[:, None] + self.scale_embedding
        count = rows * columns * len(FOLDS)
        x = self.norm(pooled.reshape(-1, count, self.width)) + position.reshape(count, self.width)
        x = self._attend(self.across_query(x), self.across_key(x), self.across_value(x))
        return x.reshape(-1, rows, columns, len(FOLDS), self.width).permute(3, 0, 4, 1, 2)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Apply multi-head attention to (N, L, width); queries are scaled already."""
        length = q.shape[1]
        q, k, v = (x.reshape(-1, length, self.heads, HEAD).permute(0, 2, 1, 3) for x in (q, k, v))
        weights = torch.matmul(q, k.transpose(2, 3)).softmax(3)
        return torch.matmul(weights, v).permute(0, 2, 1, 3).reshape(-1, length, self.width)


def _attention(
    attention: SelfAttention,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """Return (weight, bias) of scaled queries, of keys and of values (step 4), and the bias of the output."""
    q, k, v = attention.qkv.weight.double().chunk(3)
    q_bias, _, v_bias = attention.qkv.bias.double().chunk(3)
    scale, none = HEAD**-0.5, torch.zeros_like(q_bias)
    bias = attention.output.weight.double() @ v_bias + attention.output.bias.double()
    return (q * scale, q_bias * scale), (k, none), (v, none), bias


def _with_ones(weight: Tensor, bias: Tensor) -> Tensor:
    """Return [P b 0 ...], which maps t followed by ``ONES`` ones to P t + b."""
    return torch.cat([weight, bias[:, None], weight.new_zeros(len(weight), ONES - 1)], 1)


def _root(tokens: Tensor) -> Tensor:
    """Return R with |R t|^2 = |tokens t|^2 / rows, and no more rows than columns (step 2)."""
    width = tokens.shape[1]
    if len(tokens) <= width:
        return tokens / len(tokens) ** 0.5
    root: Tensor = torch.linalg.qr(tokens / len(tokens) ** 0.5, mode="r").R
    return root


def _matrix(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.double().flatten(1)


def _bias(layer: nn.Module) -> Tensor:
    bias = layer.bias
    assert isinstance(bias, Tensor)
    return bias.double()


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    biased = bias is not None and bool(bias.any())
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=biased)
    layer.weight.data = weight.float()
    if biased:
        assert bias is not None
        layer.bias.data = bias.float()
    return layer


def _conv(weight: Tensor, bias: Tensor | None = None) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    layer.weight.data = weight.float()[:, :, None, None]
    if bias is not None:
        assert layer.bias is not None
        layer.bias.data = bias.float()
    return layer


def _cells(x: Tensor, fold: int) -> Tensor:
    """(B, rows * fold, columns * fold, C) -> (B * rows * columns, fold * fold, C); a cell's rows stay together."""
    columns, width = x.shape[2] // fold, x.shape[3]
    x = x.reshape(-1, fold, columns, fold * width).permute(0, 2, 1, 3)
    return x.reshape(-1, fold * fold, width)


def _uncells(x: Tensor, fold: int, rows: int, columns: int) -> Tensor:
    """Undo :func:`_cells`."""
    width = x.shape[2]
    x = x.reshape(-1, columns, fold, fold * width).permute(0, 2, 1, 3)
    return x.reshape(-1, rows * fold, columns * fold, width)
