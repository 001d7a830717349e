"""The Full-Scale Decoder: attention over all scales at once, on the grid of the coarsest one.

According to the abstract, it models the multi-modal features of all scales globally and takes complementary information
between scales, at low cost; nothing more was published.  This form is our reconstruction: full attention over all
tokens of all scales would cost 187 GMAC at 480x480, so attention is split in two: inside every stride-32 cell, for the
scales of one position, and over one pooled token per scale and cell, for the whole image.
It is deterministic, unlike the matrix-decomposition head of the ancestors, which draws random bases.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import LsmsConfig
from .folded_block import Norm
from .forms import ScalesForm, check_inference, scales_form

# Tokens along one side of a cell, for strides 4, 8, 16 and 32.
FOLDS = (8, 4, 2, 1)
# 64 + 16 + 4 + 1 = 85 tokens per cell.
TOKENS = tuple(fold * fold for fold in FOLDS)
# Channels of an attention head.
HEAD = 32


class SelfAttention(nn.Module):
    """Pre-norm multi-head self-attention over the tokens of (N, L, D), added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """``x`` (N, L, D); ``position`` (L, D) or (N, L, D) is added before the attention, not to the result."""
        length, width = x.shape[1], x.shape[2]
        qkv = self.qkv(self.norm(x) + position).reshape(-1, length, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        # unbind, not indices: the gradient of an index is a tensor of zeros as large as all three.
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0))
        return x + self.output(mixed.permute(0, 2, 1, 3).reshape(-1, length, width))


class FullScaleDecoder(nn.Module):
    """Four maps -> ``subpixel`` x ``subpixel`` logits for every stride-4 cell."""

    def __init__(self, config: LsmsConfig, kernels: str = "stock") -> None:
        super().__init__()
        width = config.decoder_width
        self.form = scales_form(kernels)
        self.width = width
        self.project = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in config.dims)
        # Position and scale inside a cell.
        self.token_embedding = nn.Parameter(torch.randn(sum(TOKENS), width) * 0.02)
        self.scale_embedding = nn.Parameter(torch.randn(len(FOLDS), width) * 0.02)
        self.inside = SelfAttention(width)
        self.across = SelfAttention(width)
        # A 1x1 after upsampling and concatenation equals the sum of one 1x1 per scale before upsampling: same
        # function, a quarter of the work.
        self.merge = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in FOLDS)
        self.fuse = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, width // 2, 3, padding=1, bias=False),
            nn.BatchNorm2d(width // 2),
            nn.GELU(),
        )
        self.subpixel = config.subpixel
        self.predict = nn.Conv2d(width // 2, config.subpixel**2, 1)

    def features(self, maps: list[Tensor], origin: Tensor | None = None) -> Tensor:
        """Four maps (B, C_i, H / stride, W / stride) -> (B, width / 2, H / 4, W / 4).

        ``origin`` (B, 2) is the position of a training crop in its slice, (row, column) in stride-32 cells; None if the
        input is the whole slice.
        """
        rows, columns = maps[3].shape[2:]
        # (B, rows * columns, 85, width).
        tokens = torch.cat(
            [_fold(project(x), fold) for project, x, fold in zip(self.project, maps, FOLDS, strict=True)], dim=2
        )
        tokens = self.inside(tokens.reshape(-1, sum(TOKENS), self.width), self.token_embedding)
        tokens = tokens.reshape(-1, rows * columns, sum(TOKENS), self.width)
        parts = tokens.split(TOKENS, dim=2)
        # (B, cells, 4, width).
        pooled = torch.stack([part.mean(dim=2) for part in parts], dim=2)
        place = sinusoids(rows, columns, self.width, pooled.device, origin).to(pooled)
        position = (place[..., None, :] + self.scale_embedding).flatten(-3, -2)
        cells = rows * columns * len(FOLDS)
        mixed = self.across(pooled.reshape(-1, cells, self.width), position)
        change = (mixed - pooled.reshape(-1, cells, self.width)).reshape(-1, rows * columns, len(FOLDS), self.width)
        merged = [
            merge(_unfold(part + change[:, :, index : index + 1], fold, rows, columns))
            for index, (part, merge, fold) in enumerate(zip(parts, self.merge, FOLDS, strict=True))
        ]
        return fused_scales(merged, self.fuse, self.form)

    def logits(self, features: Tensor) -> Tensor:
        """``features`` (B, width / 2, H / 4, W / 4) -> logits (B, 1, n H / 4, n W / 4), n = ``subpixel``."""
        return pixel_shuffle(self.predict(features), self.subpixel)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Four maps -> logits (B, 1, n H / 4, n W / 4), n = ``subpixel``."""
        return self.logits(self.features(maps))


def fused_scales(maps: list[Tensor], fuse: nn.Sequential, form: ScalesForm | None) -> Tensor:
    """Add four maps, upsampled to the finest, and apply the decoder's head ``fuse``."""
    if form is not None:
        check_inference(fuse[0])
        # BatchNorm and GELU come first.
        head: Tensor = fuse[2:](form(maps, Norm.of(fuse[0])))
        return head
    total, *smaller = maps
    for x, fold in zip(smaller, FOLDS[1:], strict=True):
        total = total + F.interpolate(x, scale_factor=float(FOLDS[0] // fold), mode="bilinear", align_corners=False)
    fused: Tensor = fuse(total)
    return fused


def pixel_shuffle(x: Tensor, scale: int) -> Tensor:
    """(B, scale^2, h, w) -> (B, 1, scale h, scale w); no operation, and no node in a graph, if scale is 1."""
    return F.pixel_shuffle(x, scale) if scale > 1 else x


def sinusoids(
    rows: int, columns: int, width: int, device: torch.device | None = None, origin: Tensor | None = None
) -> Tensor:
    """Fixed 2-D sine and cosine positions, float32: half of the channels for each direction.

    (rows * columns, width); with ``origin`` (B, 2), the first cell's row and column, (B, rows * columns, width).

    Fixed, not learned, so that one checkpoint serves every image size.  Computed on the device: a copy from the
    CPU could not be captured into a CUDA graph.
    """
    quarter = width // 4
    rate = torch.exp(-math.log(100.0) * torch.arange(quarter, device=device) / quarter)
    y, x = torch.arange(rows, device=device), torch.arange(columns, device=device)
    if origin is not None:
        y, x = origin[:, :1] + y, origin[:, 1:] + x
    y, x = y[..., None] * rate, x[..., None] * rate
    shape = (*y.shape[:-2], rows, columns, 2 * quarter)
    vertical = torch.cat([y.sin(), y.cos()], -1)[..., :, None, :].expand(shape)
    horizontal = torch.cat([x.sin(), x.cos()], -1)[..., None, :, :].expand(shape)
    return torch.cat([vertical, horizontal], -1).flatten(-3, -2)


def _fold(x: Tensor, fold: int) -> Tensor:
    """(B, D, rows * fold, columns * fold) -> (B, rows * columns, fold * fold, D)."""
    width, rows, columns = x.shape[1], x.shape[2] // fold, x.shape[3] // fold
    x = x.reshape(-1, width, rows, fold, columns, fold).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(-1, rows * columns, fold * fold, width)


def _unfold(x: Tensor, fold: int, rows: int, columns: int) -> Tensor:
    """Undo :func:`_fold`."""
    width = x.shape[3]
    x = x.reshape(-1, rows, columns, fold, fold, width).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(-1, width, rows * fold, columns * fold)
