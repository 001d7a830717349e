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
    """Computes one SVLA block; a block owns its form, so that a form may keep what it derived from the weights."""

    folds: bool  # whether the sentence's keys and values come from ``folded.fold_sentence``

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
        """``x`` (B, C, H, W); ``keys``, ``values`` (B, T, C); ``mask`` (B, T) -> (B, C, H, W)."""


class Reference:
    """The block as it is defined.  What all others are compared with."""

    folds = False

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
        return functional.svla(x, keys, values, mask, weights)


class Stock:
    """The folded algebra in PyTorch's own operations: runs everywhere, is differentiable, and is what is exported."""

    folds = True

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, weights: SvlaWeights) -> Tensor:
        return folded.svla(x, keys, values, mask, weights)


def choose_kernels(kernels: str) -> str:
    """ "reference", "stock" or "triton" for what was asked; "auto" takes Triton where it runs, and logs what it took.

    Raises ``MachineError`` for "triton" on a machine that cannot run it, ``ValueError`` for an unknown name.
    """
    if kernels not in KERNELS:
        raise ValueError(f"kernels is {kernels!r}; choose from {', '.join(KERNELS)}")
    if kernels in ("stock", "reference"):
        return kernels
    from lsms_rt import kernels as room  # not at the top: kernels are compared with this package's functions
    from lsms_rt.errors import MachineError

    missing = room.missing()
    if kernels == "auto":
        log.info("kernels='auto' took %s", f"stock operations: {missing}" if missing else "the Triton kernels")
        return "stock" if missing else "triton"
    if missing:
        raise MachineError(f"kernels='triton': {missing}; or take kernels='stock'")
    return "triton"


def svla_form(kernels: str) -> SvlaForm:
    """A fresh form for one block; ``kernels`` as :func:`choose_kernels` gave it."""
    if kernels == "triton":
        from lsms_rt.kernels.svla import TritonSvla

        return TritonSvla()
    return Reference() if kernels == "reference" else Stock()


def check_gradients(kernels: str) -> None:
    """The Triton kernels have no backward pass; say so before a training step fails half-way."""
    if kernels == "triton" and torch.is_grad_enabled():
        raise RuntimeError("the Triton kernels compute no gradients; use torch.inference_mode(), or kernels='stock'")
