"""Random blocks with all intermediate tensors: the data for verifying, timing and tuning the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lsms_rt.model.folded import fold_sentence
from lsms_rt.model.functional import STRIPS, Filter, SvlaWeights

from . import depthwise_direct, fold_attention, gate_mix, mix, registry
from .launch import DTYPES
from .shape import Shape
from .svla import pack
from .tensors import dtype_of


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


def typed(name: str, tensor: Tensor, shape: Shape) -> Tensor:
    """Convert a tensor to the type in which kernels read it (``tensors.TENSORS``), contiguous."""
    return tensor.to(DTYPES[dtype_of(name, shape)]).contiguous()


def block_tensors(
    shape: Shape, batch: int, valid: list[int] | None = None, seed: int = 0, device: str = "cpu"
) -> dict[str, Tensor]:
    """Compute every tensor of a random block, by its name in ``tensors.TENSORS``, in float64.

    The plain twins compute them, and each is rounded to the type in which a kernel would write it.  So a kernel and its
    twin read exactly the same numbers, and the difference of their results is due to the kernel alone.
    """
    weights = random_weights(shape.channels, seed)
    x, keys, values, mask = random_inputs(
        batch, shape.channels, shape.height, shape.width, shape.tokens, valid, seed + 1
    )
    keys, values = fold_sentence(keys, values, mask, weights.output)
    packed = pack(weights, shape.height)
    tensors = {"x": x, "keys": keys, "values": values, "mask": mask} | vars(packed)
    tensors = {name: _rounded(name, tensor.to(device), shape) for name, tensor in tensors.items()}
    # Two write the tensors of depthwise and of token_attention; mix and gate_mix write the block's output.
    skipped = (depthwise_direct, fold_attention, mix, gate_mix)
    for module in registry.MODULES:
        if module not in skipped:
            written = registry.twin(module, shape, tensors)
            tensors |= {name: _rounded(name, tensor, shape) for name, tensor in written.items()}
    return tensors


def _rounded(name: str, tensor: Tensor, shape: Shape) -> Tensor:
    return typed(name, tensor, shape).double()


def weights_on(weights: SvlaWeights, device: str, dtype: torch.dtype) -> SvlaWeights:
    """Copy the parameters to a device, in a type."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, dtype)
        return type(value)(move(item) for item in value)

    return SvlaWeights(**{name: move(value) for name, value in vars(weights).items()})
