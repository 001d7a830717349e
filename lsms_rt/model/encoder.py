"""The image encoder: MSCAN (SegNeXt) with attention to the sentence in every block (SVLA)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import folded
from . import functional as lsms_f
from .config import LsmsConfig
from .folded_block import BlockWeights, Norm
from .forms import TRITON, SvlaForm, block_form, check_inference, norm_form, svla_form
from .functional import EPS


@dataclass(frozen=True)
class TextFeatures:
    """The features of a sentence for the image encoder; they depend on the sentence only.

    Attributes:
        keys: one tensor (B, depth_i, T, C_i) for each stage i, one row per block; zero at padding tokens.
        values: the same shapes.
        mask: (B, T), 1 for a token and 0 for padding.
        folded: whether they come from ``folded.fold_sentence``, which only a model that folds can use.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    folded: bool = True


class TextProjection(nn.Module):
    """Keys and values of one block: k = Wk l, v = Wv l.

    Source: the language branch of SLViT (IJCAI 2023), LSMS's ancestor by the same author.  It lives in the block's
    state but runs in the text graph, since it does not depend on the image.
    """

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__()
        self.key = nn.Linear(text_width, channels)
        self.value = nn.Linear(text_width, channels)

    def forward(self, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """``text`` (B, T, D), ``mask`` (B, T) -> keys, values, both (B, T, C), zero at padding."""
        keep = mask.unsqueeze(-1)
        return self.key(text) * keep, self.value(text) * keep


class LanguageBranch(nn.Module):
    """The language part of SVLA: attention to the tokens and a gate.

    Choices: one head, scale C^-0.5, InstanceNorm on the query and on the output (SLViT's form); the ancestor's unused
    projection is left out.  Biases of Wq and Wo cancel in the InstanceNorms, but exist for checkpoints that have
    them.
    """

    def __init__(self, channels: int, text_width: int) -> None:
        super().__init__()
        self.text = TextProjection(channels, text_width)
        self.query = nn.Conv2d(channels, channels, 1)
        self.output = nn.Conv2d(channels, channels, 1)
        self.hidden = nn.Conv2d(channels, channels, 1, bias=False)
        self.gate = nn.Conv2d(channels, channels, 1, bias=False)

    def project_text(self, text: Tensor, mask: Tensor, fold: bool) -> tuple[Tensor, Tensor]:
        """Return keys and values of the block, (B, T, C); folded for a form that folds."""
        keys, values = self.text(text, mask)
        return folded.fold_sentence(keys, values, mask, _filter(self.output)) if fold else (keys, values)


class Svla(nn.Module):
    """Scale-aware Vision-Language Attention: convolutions of four sizes beside the alignment with the sentence.

    According to the abstract (v2), diverse kernels extract visual knowledge *in parallel with* the alignment; so the
    language branch reads the same map ``a`` as the strips do, and all are added before the mixing 1x1 (reconstruction).
    This module holds the parameters; ``form`` computes.
    """

    def __init__(self, channels: int, text_width: int, form: SvlaForm) -> None:
        super().__init__()
        self.form = form
        self.center = _depthwise(channels, 5, 5)
        self.rows = nn.ModuleList(_depthwise(channels, 1, n) for n in lsms_f.STRIPS)
        self.columns = nn.ModuleList(_depthwise(channels, n, 1) for n in lsms_f.STRIPS)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.language = LanguageBranch(channels, text_width)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        return self.form(x, keys, values, mask, self.weights())

    def weights(self) -> lsms_f.SvlaWeights:
        """Return the block's parameters, named as in ``functional``."""
        language = self.language
        return lsms_f.SvlaWeights(
            center=_filter(self.center),
            strips=[(_filter(row), _filter(column)) for row, column in zip(self.rows, self.columns, strict=True)],
            query=_filter(language.query),
            output=_filter(language.output),
            hidden=language.hidden.weight,
            gate=language.gate.weight,
            mix=_filter(self.mix),
        )


class Attention(nn.Module):
    """1x1 -> GELU -> SVLA -> 1x1, plus the shortcut (SegNeXt's spatial attention)."""

    def __init__(self, channels: int, text_width: int, form: SvlaForm) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 1)
        self.svla = Svla(channels, text_width, form)
        self.outer = nn.Conv2d(channels, channels, 1)
        self.activation = nn.GELU()

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        return x + self.outer(self.svla(self.activation(self.inner(x)), keys, values, mask))


class Mlp(nn.Module):
    """1x1 -> depthwise 3x3 -> GELU -> 1x1 (SegNeXt)."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, channels * ratio, 1)
        self.depthwise = _depthwise(channels * ratio, 3, 3)
        self.activation = nn.GELU()
        self.reduce = nn.Conv2d(channels * ratio, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(self.activation(self.depthwise(self.expand(x))))


class Block(nn.Module):
    """BN -> attention -> layer scale -> residual; BN -> MLP -> layer scale -> residual (SegNeXt, scale 1e-2)."""

    def __init__(self, channels: int, mlp_ratio: int, text_width: int, kernels: str) -> None:
        super().__init__()
        self.form = block_form(kernels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.attention = Attention(channels, text_width, svla_form(kernels))
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = Mlp(channels, mlp_ratio)
        self.scale1 = nn.Parameter(torch.full((channels, 1, 1), 1e-2))
        self.scale2 = nn.Parameter(torch.full((channels, 1, 1), 1e-2))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        if self.form is not None:
            check_inference(self.norm1, self.norm2)
            return self.form(x, lambda v: self.attention.svla(v, keys, values, mask), self.weights())
        x = x + self.scale1 * self.attention(self.norm1(x), keys, values, mask)
        return x + self.scale2 * self.mlp(self.norm2(x))

    def weights(self) -> BlockWeights:
        """Return the parameters around SVLA, named as in ``folded_block``."""
        return BlockWeights(
            norm1=Norm.of(self.norm1),
            inner=_filter(self.attention.inner),
            outer=_filter(self.attention.outer),
            scale1=self.scale1,
            norm2=Norm.of(self.norm2),
            expand=_filter(self.mlp.expand),
            depthwise=_filter(self.mlp.depthwise),
            reduce=_filter(self.mlp.reduce),
            scale2=self.scale2,
        )


class Stage(nn.Module):
    """Downsampling, blocks, LayerNorm over the channels."""

    def __init__(self, embed: nn.Module, blocks: Sequence[Block], channels: int, kernels: str) -> None:
        super().__init__()
        self.form = norm_form(kernels)
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(channels, eps=EPS)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """``keys``, ``values`` (B, depth, T, C)."""
        x = self.embed(x)
        for index, block in enumerate(self.blocks):
            x = block(x, keys[:, index], values[:, index], mask)
        if self.form is not None:
            return self.form(x.contiguous(), self.norm.weight, self.norm.bias)
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def project_text(self, text: Tensor, mask: Tensor, fold: bool) -> tuple[Tensor, Tensor]:
        """Return keys and values of all blocks of the stage, (B, depth, T, C)."""
        branches = [module for module in self.blocks.modules() if isinstance(module, LanguageBranch)]
        pairs = [branch.project_text(text, mask, fold) for branch in branches]
        return torch.stack([k for k, _ in pairs], 1), torch.stack([v for _, v in pairs], 1)


class Encoder(nn.Module):
    """Four stages at strides 4, 8, 16 and 32.

    The stem is two 3x3 stride-2 convolutions with BN and a GELU between; later stages begin with one 3x3 stride-2
    convolution and BN (SegNeXt).  CT has one channel, so the stem's first convolution reads ``in_channels`` = 1; with
    3 the parameters equal SegNeXt's published sizes.
    """

    def __init__(self, config: LsmsConfig, kernels: str = "stock") -> None:
        super().__init__()
        width, stages, previous = config.text.hidden_size, [], config.in_channels
        for index, channels in enumerate(config.dims):
            embed = _stem(previous, channels) if index == 0 else _downsample(previous, channels)
            ratio, depth = config.mlp_ratios[index], config.depths[index]
            blocks = [Block(channels, ratio, width, kernels) for _ in range(depth)]
            stages.append(Stage(embed, blocks, channels, kernels))
            previous = channels
        self.stages = nn.ModuleList(stages)
        self.folds = kernels != "reference"
        self.channels_first = kernels in TRITON

    def forward(self, image: Tensor, text: TextFeatures) -> list[Tensor]:
        """``image`` (B, in_channels, H, W) in [-1, 1] -> four maps (B, C_i, H / stride, W / stride)."""
        if text.folded != self.folds:
            actual, needed = ("folded" if f else "plain" for f in (text.folded, self.folds))
            raise ValueError(
                f"the sentence's features are {actual}, but this model needs {needed} ones; encode the sentence with "
                "this model"
            )
        # The stem and the downsampling contain BatchNorms too.
        if self.channels_first:
            check_inference(self)
        maps, x = [], image
        for stage, keys, values in zip(self.stages, text.keys, text.values, strict=True):
            x = stage(x, keys, values, text.mask)
            # A LayerNorm leaves channels last, and every block of the next stage would copy the map.
            if self.channels_first:
                x = x.contiguous()
            maps.append(x)
        return maps

    def project_text(self, text: Tensor, mask: Tensor) -> TextFeatures:
        """``text`` (B, T, D) from the text encoder, ``mask`` (B, T) -> the sentence's features for all blocks."""
        pairs = [s.project_text(text, mask, self.folds) for s in self.stages if isinstance(s, Stage)]
        return TextFeatures(tuple(k for k, _ in pairs), tuple(v for _, v in pairs), mask, self.folds)


def _stem(source: int, target: int) -> nn.Sequential:
    half = target // 2
    return nn.Sequential(
        nn.Conv2d(source, half, 3, stride=2, padding=1),
        nn.BatchNorm2d(half),
        nn.GELU(),
        nn.Conv2d(half, target, 3, stride=2, padding=1),
        nn.BatchNorm2d(target),
    )


def _downsample(source: int, target: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(source, target, 3, stride=2, padding=1), nn.BatchNorm2d(target))


def _depthwise(channels: int, height: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, (height, width), padding=(height // 2, width // 2), groups=channels)


def _filter(conv: nn.Module) -> lsms_f.Filter:
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    return conv.weight, conv.bias
