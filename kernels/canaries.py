"""Tensors between margins of NaN, which show a kernel that reads or writes beside them.

A value that is read from a margin makes the result NaN; what is written there, or into an input, is found afterwards.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Bytes before and after a tensor: keeps the alignment that loads were compiled for, and is longer than a tile's row.
MARGIN = 1 << 16
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Canaries:
    """Places the tensors of one launch or several, and remembers every byte that must not change.

    ``margin`` is the number of bytes before and after a tensor; 0 for a tool that watches allocations itself.
    """

    def __init__(self, margin: int = MARGIN) -> None:
        self._margin = margin
        # Name -> memory with its margins, what it was before, and the number of elements that a kernel may write.
        self._placed: dict[str, tuple[Tensor, Tensor, int]] = {}

    def place(self, name: str, tensor: Tensor) -> Tensor:
        """Return a copy of an input between margins; none of it may change."""
        memory, view = self._memory(tuple(tensor.shape), tensor.dtype, tensor.device)
        view.copy_(tensor)
        self._placed[name] = memory, memory.clone(), 0
        return view

    def output(self, name: str, size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a tensor of NaN between margins, for a kernel to write."""
        memory, view = self._memory(size, dtype, device)
        self._placed[name] = memory, memory.clone(), view.numel()
        return view

    def touched(self) -> list[str]:
        """Return the names of inputs that changed, and of tensors beside which something was written."""
        return [name for name, (memory, before, free) in self._placed.items() if not self._same(memory, before, free)]

    def _memory(self, size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Allocate memory full of NaN, and return it with the view between its margins."""
        count, margin = math.prod(size), self._margin // dtype.itemsize
        memory = torch.full((count + 2 * margin,), float("nan"), dtype=dtype, device=device)
        return memory, memory[margin : margin + count].view(size)

    def _same(self, memory: Tensor, before: Tensor, free: int) -> bool:
        """Compare two copies of some memory, but for ``free`` elements between the margins."""
        if not free:
            return same_bits(memory, before)
        margin = self._margin // memory.element_size()
        ends = (slice(None, margin), slice(margin + free, None))
        return all(same_bits(memory[end], before[end]) for end in ends)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors of one type and size have the same bits; NaN is equal to itself."""
    bits = _BITS[a.element_size()]
    return bool(torch.equal(a.contiguous().view(bits), b.contiguous().view(bits)))
