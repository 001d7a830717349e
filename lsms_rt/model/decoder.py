"""The Full-Scale Decoder: all scales seen at once, on the grid of the coarsest.

The abstract says that it models the multi-modal features of all scales globally and takes complementary information
between scales, at low cost; nothing more was published.  This form is our reconstruction: full attention over all
tokens of all scales would cost 187 GMAC at 480x480, so attention is split in two: inside every stride-32 cell, where
the scales of one place meet, and over one pooled token a scale and cell, where the whole image meets.
It is deterministic, unlike the matrix-decomposition head of the ancestors, which draws random bases.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LsmsConfig

FOLDS = (8, 4, 2, 1)  # tokens along a side of a cell, for strides 4, 8, 16 and 32
TOKENS = tuple(fold * fold for fold in FOLDS)  # 64 + 16 + 4 + 1 = 85 tokens a cell
HEAD = 32  # channels of an attention head


class SelfAttention(nn.Module):
    """Pre-norm multi-head self-attention over the tokens of (N, L, D), added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """``x`` (N, L, D); ``position`` (L, D) is added before the attention, not to the result."""
        length, width = x.shape[1], x.shape[2]
        qkv = self.qkv(self.norm(x) + position).reshape(-1, length, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return x + self.output(mixed.permute(0, 2, 1, 3).reshape(-1, length, width))


class FullScaleDecoder(nn.Module):
    """Four maps -> one logit a pixel at stride 4."""

    def __init__(self, config: LsmsConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.width = width
        self.project = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in config.dims)
        self.token_embedding = nn.Parameter(torch.randn(sum(TOKENS), width) * 0.02)  # place and scale inside a cell
        self.scale_embedding = nn.Parameter(torch.randn(len(FOLDS), width) * 0.02)
        self.inside = SelfAttention(width)
        self.across = SelfAttention(width)
        # A 1x1 after upsampling and concatenation equals the sum of one 1x1 a scale before upsampling: same
        # function, a quarter of the work.
        self.merge = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in FOLDS)
        self.fuse = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, width // 2, 3, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.GELU(),
        )
        self.predict = nn.Conv2d(width // 2, 1, 1)

    def features(self, maps: list[Tensor]) -> Tensor:
        """Four maps (B, C_i, H / stride, W / stride) -> (B, width / 2, H / 4, W / 4)."""
        rows, columns = maps[3].shape[2:]
        tokens = torch.cat(
            [_fold(project(x), fold) for project, x, fold in zip(self.project, maps, FOLDS, strict=True)],
            dim=2,
        )  # (B, rows * columns, 85, width)
        tokens = self.inside(tokens.reshape(-1, sum(TOKENS), self.width), self.token_embedding)
        tokens = tokens.reshape(-1, rows * columns, sum(TOKENS), self.width)
        parts = tokens.split(TOKENS, dim=2)
        pooled = torch.stack([part.mean(dim=2) for part in parts], dim=2)  # (B, cells, 4, width)
        position = sinusoids(rows, columns, self.width, pooled.device).to(pooled)[:, None] + self.scale_embedding
        cells = rows * columns * len(FOLDS)
        mixed = self.across(pooled.reshape(-1, cells, self.width), position.reshape(cells, self.width))
        change = (mixed - pooled.reshape(-1, cells, self.width)).reshape(-1, rows * columns, len(FOLDS), self.width)
        total: Tensor | None = None
        for index, (part, merge, fold) in enumerate(zip(parts, self.merge, FOLDS, strict=True)):
            x = merge(_unfold(part + change[:, :, index : index + 1], fold, rows, columns))
            if fold != FOLDS[0]:
                x = F.interpolate(x, scale_factor=float(FOLDS[0] // fold), mode="bilinear", align_corners=False)
            total = x if total is None else total + x
        fused: Tensor = self.fuse(total)
        return fused

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Four maps -> logits (B, 1, H / 4, W / 4)."""
        logits: Tensor = self.predict(self.features(maps))
        return logits


def sinusoids(rows: int, columns: int, width: int, device: torch.device | None = None) -> Tensor:
    """Fixed 2-D sine and cosine positions, float32 (rows * columns, width): half the channels a direction.

    Fixed, not learned, so that one checkpoint serves every image size.  Made on the device: a copy from the CPU could
    not be captured into a CUDA graph.
    """
    quarter = width // 4
    rate = torch.exp(-math.log(100.0) * torch.arange(quarter, device=device) / quarter)
    y = torch.arange(rows, device=device)[:, None] * rate
    x = torch.arange(columns, device=device)[:, None] * rate
    vertical = torch.cat([y.sin(), y.cos()], 1)[:, None].expand(rows, columns, 2 * quarter)
    horizontal = torch.cat([x.sin(), x.cos()], 1)[None].expand(rows, columns, 2 * quarter)
    return torch.cat([vertical, horizontal], 2).reshape(rows * columns, width)


def _fold(x: Tensor, fold: int) -> Tensor:
    """(B, D, rows * fold, columns * fold) -> (B, rows * columns, fold * fold, D)."""
    width, rows, columns = x.shape[1], x.shape[2] // fold, x.shape[3] // fold
    x = x.reshape(-1, width, rows, fold, columns, fold).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(-1, rows * columns, fold * fold, width)


def _unfold(x: Tensor, fold: int, rows: int, columns: int) -> Tensor:
    """The inverse of :func:`_fold`."""
    width = x.shape[3]
    x = x.reshape(-1, rows, columns, fold, fold, width).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(-1, width, rows * fold, columns * fold)
