"""An encoder block as a chain of kernels: two launches, SVLA, and three more.

The algebra, and what is folded into the weights, is in ``lsms_rt.model.folded_block``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lsms_rt.model.folded_block import BlockWeights, FoldedBlock, fold
from lsms_rt.model.packs import Packs

from .depthwise3_gelu import depthwise3_gelu
from .expand import expand
from .inner import inner
from .outer import outer
from .reduce import reduce


@dataclass(frozen=True)
class PackedBlock:
    """The folded weights as the kernels read them, E channels inside the MLP; biases are float32 (or float64).

    Attributes:
        inner: (C, C), and ``inner_bias`` (C,).
        outer: (C, C), ``outer_bias`` (C,), and ``shortcut`` (C,), the factor of the block's input.
        expand: (E, C), and ``expand_bias`` (E,).
        taps: (E, 9), the rows of the 3x3, and ``taps_bias`` (E,).
        reduce: (C, E), and ``reduce_bias`` (C,).
    """

    inner: Tensor
    inner_bias: Tensor
    outer: Tensor
    outer_bias: Tensor
    shortcut: Tensor
    expand: Tensor
    expand_bias: Tensor
    taps: Tensor
    taps_bias: Tensor
    reduce: Tensor
    reduce_bias: Tensor


def pack(folded: FoldedBlock, dtype: torch.dtype) -> PackedBlock:
    """Convert folded weights, in float32 or float64, to those that kernels for maps of ``dtype`` read."""
    steps = {"inner": folded.inner, "outer": folded.outer, "expand": folded.expand, "taps": folded.depthwise}
    found = {"shortcut": folded.shortcut.contiguous()}
    for name, (weight, bias) in (steps | {"reduce": folded.reduce}).items():
        found |= {name: weight.flatten(1).to(dtype).contiguous(), f"{name}_bias": bias.contiguous()}
    return PackedBlock(**found)


def block(x: Tensor, svla: Callable[[Tensor], Tensor], packed: PackedBlock) -> Tensor:
    """Compute an encoder block, by the kernels on CUDA and by their plain twins on the CPU.

    Args:
        x: maps (B, C, H, W), contiguous; float16, float32, or (on the CPU) float64.
        svla: computes the SVLA inside it, (B, C, H, W) to the same.
        packed: the parameters.

    Returns:
        (B, C, H, W), type as ``x``.

    Raises:
        ValueError: the kernels do not support the sizes or types.
    """
    y = svla(inner(x, packed.inner, packed.inner_bias))
    z = outer(y, x, packed.outer, packed.outer_bias, packed.shortcut)
    wide = expand(z, packed.expand, packed.expand_bias)
    return reduce(depthwise3_gelu(wide, packed.taps, packed.taps_bias), z, packed.reduce, packed.reduce_bias)


class TritonBlock:
    """The block's form that runs the kernels (``lsms_rt.model.forms``), with packed weights.

    They are packed again if a parameter or a statistic was changed, moved or replaced (``packs.fingerprint``).
    """

    def __init__(self) -> None:
        self.packs: Packs[PackedBlock] = Packs()

    def __call__(self, x: Tensor, svla: Callable[[Tensor], Tensor], weights: BlockWeights) -> Tensor:
        packed = self.packs.get("block", _parameters(weights), lambda: pack(fold(weights), weights.inner[0].dtype))
        return block(x.contiguous(), svla, packed)


def _parameters(weights: BlockWeights) -> list[Tensor]:
    w = weights
    filters = [w.inner, w.outer, w.expand, w.depthwise, w.reduce]
    norms = [w.norm1.tensors(), w.norm2.tensors()]
    return [w.scale1, w.scale2, *(tensor for group in (*filters, *norms) for tensor in group)]
