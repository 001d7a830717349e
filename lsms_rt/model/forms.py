"""Which operations compute a block: its definition, the folded algebra, or the folded algebra as Triton kernels.

"triton" runs whole encoder blocks in our kernels; "plugins" runs them inside SVLA only, as engines with plugins do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from . import folded, functional
from .folded_block import BlockWeights, Norm
from .functional import SvlaWeights

# The second is for the exporter: TensorRT fuses the rest of a block itself.
TRITON = ("triton", "plugins")
KERNELS = ("stock", *TRITON, "auto", "reference")
log = logging.getLogger("lsms_rt")


class SvlaForm(Protocol):
    """Something that computes one SVLA block.  Each block has its own, which may cache what it derives from weights."""

    # Whether the sentence's keys and values come from ``folded.fold_sentence``.
    folds: bool

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
        """``x`` (B, C, H, W); ``keys``, ``values`` (B, T, C); ``mask`` (B, T) -> (B, C, H, W)."""


class BlockForm(Protocol):
    """Something that computes one encoder block around its SVLA, in inference; each block has its own."""

    def __call__(self, x: Tensor, svla: Callable[[Tensor], Tensor], weights: BlockWeights) -> Tensor:
        """``x`` (B, C, H, W); ``svla`` computes what is inside -> (B, C, H, W)."""


class ScalesForm(Protocol):
    """Something that computes the decoder's sum of scales and its first BatchNorm and GELU, in inference."""

    def __call__(self, maps: list[Tensor], norm: Norm) -> Tensor:
        """``maps`` at strides 4, 8, 16, 32, (B, C, H, W) and smaller -> (B, C, H, W)."""


class Reference:
    """The block by its definition, with which the other forms are compared."""

    folds = False

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
        return functional.svla(x, keys, values, mask, weights)


class Stock:
    """The folded algebra in PyTorch's own operations: runs everywhere, is differentiable, and is exported."""

    folds = True

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
        return folded.svla(x, keys, values, mask, weights)


def choose_kernels(kernels: str) -> str:
    """Return "reference", "stock" or one of TRITON for a value of ``kernels``.

    "auto" is Triton if it runs on this machine, else stock operations; the choice is logged.

    Raises:
        MachineError: Triton is requested and does not run on this machine.
        ValueError: the name is unknown.
    """
    if kernels not in KERNELS:
        raise ValueError(f"kernels is {kernels!r}; choose from {', '.join(KERNELS)}")
    if kernels in ("stock", "reference"):
        return kernels
    # Imported here: the kernels are compared with this package's functions, and import them.
    from lsms_rt import kernels as triton_kernels
    from lsms_rt.errors import MachineError

    missing = triton_kernels.missing()
    if kernels == "auto":
        log.info("kernels='auto' uses %s", f"stock operations: {missing}" if missing else "the Triton kernels")
        return "stock" if missing else "triton"
    if missing:
        raise MachineError(f"kernels={kernels!r}: {missing}; or use kernels='stock'")
    return kernels


def svla_form(kernels: str) -> SvlaForm:
    """Return a new form for one block; ``kernels`` is a result of :func:`choose_kernels`."""
    if kernels in TRITON:
        from lsms_rt.kernels.svla import TritonSvla

        return TritonSvla()
    return Reference() if kernels == "reference" else Stock()


def block_form(kernels: str) -> BlockForm | None:
    """Return a new form for what is around one block's SVLA; None for PyTorch's operations, step by step."""
    if kernels == "triton":
        from lsms_rt.kernels.block import TritonBlock

        return TritonBlock()
    return None


def scales_form(kernels: str) -> ScalesForm | None:
    """Return a new form for the decoder's sum of scales; None for PyTorch's operations, step by step."""
    if kernels == "triton":
        from lsms_rt.kernels.merge_scales import TritonScales

        return TritonScales()
    return None


def norm_form(kernels: str) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """Return a LayerNorm of (B, C, H, W) over C, given its factor and summand; None for PyTorch's, channels last."""
    if kernels == "triton":
        from lsms_rt.kernels.stage_norm import stage_norm

        return stage_norm
    return None


def check_inference(*modules: nn.Module) -> None:
    """Raise if modules that run Triton kernels are to train: those have no backward pass, and BatchNorm is folded."""
    if torch.is_grad_enabled():
        raise RuntimeError("the Triton kernels compute no gradients; use torch.inference_mode(), or kernels='stock'")
    if any(module.training for module in modules):
        raise RuntimeError("the Triton kernels use BatchNorm's running statistics; call eval(), or kernels='stock'")
