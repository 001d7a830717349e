"""What is derived from a model's weights and kept: whether it still belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def fingerprint(tensors: Iterable[Tensor]) -> object:
    """Return what differs if one of the tensors was changed in place, moved, converted or replaced.

    Two changes in place leave no trace: those of tensors that were made in inference mode, which count none, and those
    of BatchNorm's statistics in training; its ``num_batches_tracked`` counts them, so give it too (``Norm.tensors``).
    """
    return [(t.data_ptr(), 0 if t.is_inference() else t._version, t.dtype) for t in tensors]


class Packs(Generic[T]):
    """Packed weights, one pack for every key; a pack is made again when its weights have another fingerprint."""

    def __init__(self) -> None:
        self._found: dict[Hashable, tuple[object, T]] = {}

    def get(self, key: Hashable, tensors: Iterable[Tensor], make: Callable[[], T]) -> T:
        """Return the pack of a key, made by ``make`` from ``tensors``."""
        if torch.compiler.is_compiling() and key in self._found:
            # A traced graph has no addresses to compare; a run before it made the pack.
            return self._found[key][1]
        state = fingerprint(tensors)
        if key not in self._found or self._found[key][0] != state:
            self._found[key] = state, make()
        return self._found[key][1]

    def current(self) -> dict[Hashable, T]:
        """Return the packs by key; who keeps them keeps their memory, also when they are made again."""
        return {key: pack for key, (_, pack) in self._found.items()}


def packs_of(model: nn.Module) -> list[object]:
    """Return the packs of all forms in a model."""
    packs = [getattr(getattr(module, "form", None), "packs", None) for module in model.modules()]
    return [found.current() for found in packs if found is not None]


class Watch:
    """Remembers the weights of modules: it keeps their memory, and says whether they were changed since.

    It sees a tensor that was replaced, not a module.
    """

    def __init__(self, *modules: nn.Module) -> None:
        inside = [part for module in modules for part in module.modules()]
        self._groups = [group for part in inside for group in (part._parameters, part._buffers) if group]
        self._state = fingerprint(self._tensors())
        self._memory = [tensor.detach() for tensor in self._tensors()]

    def changed(self) -> bool:
        """Return whether a parameter or a statistic is not what it was."""
        return self._state != fingerprint(self._tensors())

    def _tensors(self) -> list[Tensor]:
        return [tensor for group in self._groups for tensor in group.values() if tensor is not None]
