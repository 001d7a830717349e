"""Which operations compute a block: its definition, the folded algebra, or the folded algebra as Triton kernels."""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor

from . import folded, functional
from .functional import SvlaWeights

KERNELS = ("stock", "triton", "auto", "reference")
log = logging.getLogger("lsms_rt")


class SvlaForm(Protocol):
    """Something that computes one SVLA block.  Each block has its own, which may cache what it derives from weights."""

    # Whether the sentence's keys and values come from ``folded.fold_sentence``.
    folds: bool

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
        """``x`` (B, C, H, W); ``keys``, ``values`` (B, T, C); ``mask`` (B, T) -> (B, C, H, W)."""


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
    """Return "reference", "stock" or "triton" for a value of ``kernels``.

    "auto" is Triton if it runs on this machine, else stock operations; the choice is logged.

    Raises:
        MachineError: "triton" is requested and does not run on this machine.
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
        raise MachineError(f"kernels='triton': {missing}; or use kernels='stock'")
    return "triton"


def svla_form(kernels: str) -> SvlaForm:
    """Return a new form for one block; ``kernels`` is a result of :func:`choose_kernels`."""
    if kernels == "triton":
        from lsms_rt.kernels.svla import TritonSvla

        return TritonSvla()
    return Reference() if kernels == "reference" else Stock()


def check_gradients(kernels: str) -> None:
    """Raise early if gradients are needed: the Triton kernels have no backward pass."""
    if kernels == "triton" and torch.is_grad_enabled():
        raise RuntimeError("the Triton kernels compute no gradients; use torch.inference_mode(), or kernels='stock'")
