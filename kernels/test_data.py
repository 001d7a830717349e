"""Random blocks, and all tensors that their kernels hand on: what is verified, timed and tuned with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lsms_rt.model.folded import fold_sentence
from lsms_rt.model.functional import STRIPS, Filter, SvlaWeights

from . import depthwise_direct, gate_mix, mix, registry
from .launch import DTYPES
from .shape import Shape
from .svla import pack

WIDE = {"bias", "row_bias", "mix_bias", "mask", "statistics", "offset", "attended", "context_offset", "layer_offset"}


def random_weights(channels: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> SvlaWeights:
    """Filters of about unit gain, so that every step's output is of order one."""
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
    """``x`` (B, C, H, W), plain keys and values (B, T, C), mask (B, T), float64.

    ``valid`` counts the tokens of every sentence (default: T, T - 3, T - 6 ...).
    """
    g = torch.Generator().manual_seed(seed)
    x, keys, values = (
        torch.randn(*shape, generator=g, dtype=torch.float64)
        for shape in ((batch, channels, height, width), (batch, tokens, channels), (batch, tokens, channels))
    )
    counts = valid or [max(1, tokens - 3 * row) for row in range(batch)]
    mask = (torch.arange(tokens)[None] < torch.tensor(counts)[:, None]).double()
    return x, keys * mask[..., None], values * mask[..., None], mask


def typed(name: str, tensor: Tensor, shape: Shape) -> Tensor:
    """A tensor as the kernels take it: statistics and biases float32, all else in the maps' type."""
    return tensor.to(torch.float32 if name in WIDE else DTYPES[shape.dtype]).contiguous()


def block_tensors(
    shape: Shape, batch: int, valid: list[int] | None = None, seed: int = 0, device: str = "cpu"
) -> dict[str, Tensor]:
    """Every tensor of a random block by the name that launches give it, in float64.

    Computed by the plain twins, and rounded after every step to the type in which the kernels would hand it on: so a
    kernel and its twin get the very same numbers, and the difference is the kernel's own.
    """
    weights = random_weights(shape.channels, seed)
    x, keys, values, mask = random_inputs(
        batch, shape.channels, shape.height, shape.width, shape.tokens, valid, seed + 1
    )
    keys, values = fold_sentence(keys, values, mask, weights.output)
    packed = pack(weights, shape.height)
    tensors = {"x": x, "keys": keys, "values": values, "mask": mask} | vars(packed)
    tensors = {name: _rounded(name, tensor.to(device), shape) for name, tensor in tensors.items()}
    last = (mix, gate_mix)
    for module in registry.MODULES:
        if module is not depthwise_direct and module not in last:  # one writes the same, the others the end
            found = registry.twin(module, shape, tensors)
            tensors |= {name: _rounded(name, tensor, shape) for name, tensor in found.items()}
    return tensors


def _rounded(name: str, tensor: Tensor, shape: Shape) -> Tensor:
    return typed(name, tensor, shape).double()


def weights_on(weights: SvlaWeights, device: str, dtype: torch.dtype) -> SvlaWeights:
    """The same parameters on a device, in a type."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, dtype)
        return type(value)(move(item) for item in value)

    return SvlaWeights(**{name: move(value) for name, value in vars(weights).items()})
