"""Random blocks with all intermediate tensors: the data for verifying, timing and tuning the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lsms_rt.model.folded import fold_sentence
from lsms_rt.model.folded_block import BlockWeights, Norm, fold
from lsms_rt.model.functional import EPS, STRIPS, Filter, SvlaWeights

from . import (
    block,
    depthwise_direct,
    fold_attention,
    gate_mix,
    merge_scales,
    mix,
    registry,
)  # fmt: skip
from .launch import DTYPES
from .shape import DecoderShape, RestShape, Shape
from .svla import pack
from .tensors import dtype_of, size_of


def random_weights(channels: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> SvlaWeights:
    """Draw filters of about unit gain, so that every step's output is of order one."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, gain: float) -> Tensor:
        return (torch.randn(*shape, generator=g, dtype=torch.float64) * gain).to(dtype)

    def strip(height: int, width: int) -> Filter:
        return draw(channels, 1, height, width, gain=(height * width) ** -0.5), draw(channels, gain=0.3)

    def pointwise() -> Filter:
        return draw(channels, channels, 1, 1, gain=channels**-0.5), draw(channels, gain=0.3)

    return SvlaWeights(
        center=strip(5, 5),
        strips=[(strip(1, n), strip(n, 1)) for n in STRIPS],
        query=pointwise(),
        output=pointwise(),
        hidden=pointwise()[0],
        gate=pointwise()[0],
        mix=pointwise(),
    )


def random_inputs(
    batch: int, channels: int, height: int, width: int, tokens: int, valid: list[int] | None = None, seed: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw ``x`` (B, C, H, W), keys and values (B, T, C) before folding, and the mask (B, T), all float64.

    ``valid`` is the number of tokens of every sentence (default: T, T - 3, T - 6 ...).
    """
    g = torch.Generator().manual_seed(seed)
    x, keys, values = (
        torch.randn(*shape, generator=g, dtype=torch.float64)
        for shape in ((batch, channels, height, width), (batch, tokens, channels), (batch, tokens, channels))
    )
    counts = valid or [max(1, tokens - 3 * row) for row in range(batch)]
    mask = (torch.arange(tokens)[None] < torch.tensor(counts)[:, None]).double()
    return x, keys * mask[..., None], values * mask[..., None], mask


def random_rest(channels: int, ratio: int, seed: int = 0) -> BlockWeights:
    """Draw the parameters of a block around its SVLA, float64, of about unit gain; layer scales are about one."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, gain: float, mean: float = 0.0) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64) * gain + mean

    def pointwise(targets: int, sources: int) -> Filter:
        return draw(targets, sources, 1, 1, gain=sources**-0.5), draw(targets, gain=0.3)

    def norm() -> Norm:
        size = (channels,)
        return Norm(
            scale=draw(*size, gain=0.2, mean=1.0), shift=draw(*size, gain=0.3), mean=draw(*size, gain=0.5),
            variance=torch.rand(*size, generator=g, dtype=torch.float64) + 0.5, eps=EPS,
        )  # fmt: skip

    wide = channels * ratio
    return BlockWeights(
        norm1=norm(),
        inner=pointwise(channels, channels),
        outer=pointwise(channels, channels),
        scale1=draw(channels, 1, 1, gain=0.2, mean=1.0),
        norm2=norm(),
        expand=pointwise(wide, channels),
        depthwise=(draw(wide, 1, 3, 3, gain=1 / 3), draw(wide, gain=0.3)),
        reduce=pointwise(channels, wide),
        scale2=draw(channels, 1, 1, gain=0.2, mean=1.0),
    )


def typed(name: str, tensor: Tensor, shape: Shape) -> Tensor:
    """Convert a tensor to the type in which kernels read it (``tensors.TENSORS``), contiguous."""
    return tensor.to(DTYPES[dtype_of(name, shape)]).contiguous()


def block_tensors(
    shape: Shape, batch: int, valid: list[int] | None = None, seed: int = 0, device: str = "cpu"
) -> dict[str, Tensor]:
    """Compute every tensor of a random block, by its name in ``tensors.TENSORS``, in float64.

    The plain twins compute them, and each is rounded to the type in which a kernel would write it.  So a kernel and its
    twin read exactly the same numbers, and the difference of their results is due to the kernel alone.

    At a RestShape, those around the block's SVLA, whose result y is random; at a DecoderShape, those of the decoder.
    """
    if isinstance(shape, RestShape):
        return _rest_tensors(shape, batch, seed, device)
    if isinstance(shape, DecoderShape):
        return _decoder_tensors(shape, batch, seed, device)
    weights = random_weights(shape.channels, seed)
    x, keys, values, mask = random_inputs(
        batch, shape.channels, shape.height, shape.width, shape.tokens, valid, seed + 1
    )
    keys, values = fold_sentence(keys, values, mask, weights.output)
    packed = pack(weights, shape.height)
    tensors = {"x": x, "keys": keys, "values": values, "mask": mask} | vars(packed)
    tensors = {name: _rounded(name, tensor.to(device), shape) for name, tensor in tensors.items()}
    # Others write the tensors of depthwise and of token_attention; mix and gate_mix write the block's output.
    skipped = (depthwise_direct, fold_attention, mix, gate_mix)
    for module in registry.MODULES:
        if module not in skipped:
            written = registry.twin(module, shape, tensors)
            tensors |= {name: _rounded(name, tensor, shape) for name, tensor in written.items()}
    return tensors


def _rest_tensors(shape: RestShape, batch: int, seed: int, device: str) -> dict[str, Tensor]:
    x, y = (random_inputs(batch, shape.channels, shape.height, shape.width, 1, seed=seed + n)[0] for n in (1, 2))
    packed = block.pack(fold(random_rest(shape.channels, shape.ratio, seed)), torch.float64)
    tensors = {"x": x, "y": y} | vars(packed)
    tensors |= {"stage_scale": packed.shortcut, "stage_shift": packed.reduce_bias}
    tensors = {name: _rounded(name, tensor.to(device), shape) for name, tensor in tensors.items()}
    for module in registry.REST:
        written = registry.twin(module, shape, tensors)
        tensors |= {name: _rounded(name, tensor, shape) for name, tensor in written.items()}
    return tensors


def _decoder_tensors(shape: DecoderShape, batch: int, seed: int, device: str) -> dict[str, Tensor]:
    names = registry.signature(merge_scales, shape)[0]
    g = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(size_of(name, shape, batch), generator=g, dtype=torch.float64) for name in names}
    tensors = {name: _rounded(name, tensor.to(device), shape) for name, tensor in drawn.items()}
    return tensors | registry.twin(merge_scales, shape, tensors)


def _rounded(name: str, tensor: Tensor, shape: Shape) -> Tensor:
    return typed(name, tensor, shape).double()


def weights_on(weights: SvlaWeights, device: str, dtype: torch.dtype) -> SvlaWeights:
    """Copy the parameters to a device, in a type."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, dtype)
        return type(value)(move(item) for item in value)

    return SvlaWeights(**{name: move(value) for name, value in vars(weights).items()})
