"""Shapes, types and bytes of an engine's inputs and outputs, and which profile a batch belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lsms_rt.errors import BatchSizeError, EngineInvalidError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: ``shape`` with -1 for the batch, which is its first axis; ``dtype`` of NumPy."""

    name: str
    shape: Shape
    dtype: np.dtype
    is_input: bool

    def at(self, batch: int) -> Shape:
        """The shape for a batch."""
        return tuple(batch if size == -1 else size for size in self.shape)

    def bytes_at(self, batch: int) -> int:
        return int(np.prod(self.at(batch))) * self.dtype.itemsize


def check_names(specs: Sequence[TensorSpec], inputs: Sequence[str], outputs: Sequence[str], what: str) -> None:
    """Raise :class:`EngineInvalidError` unless an engine has just these inputs and outputs, with one batch axis each."""
    for wanted, is_input in ((inputs, True), (outputs, False)):
        found = sorted(spec.name for spec in specs if spec.is_input is is_input)
        if found != sorted(wanted):
            kind = "inputs" if is_input else "outputs"
            raise EngineInvalidError(f"{what} has {kind} {found}, not {sorted(wanted)}; build the engine again")
    for spec in specs:
        if not spec.shape or spec.shape[0] != -1 or -1 in spec.shape[1:]:
            raise EngineInvalidError(f"{what}: {spec.name} has shape {spec.shape}; only the first axis may be dynamic")


def choose_profile(profiles: Sequence[Mapping[str, tuple[Shape, Shape, Shape]]], shapes: Mapping[str, Shape]) -> int:
    """The first profile, of (min, opt, max) shapes by input, that holds all ``shapes``; its opt is nearest on a tie.

    Raises :class:`BatchSizeError`, which names the input and the bounds.
    """
    reason = "it has no profile"
    fitting: list[tuple[int, int]] = []
    for index, profile in enumerate(profiles):
        outside = [name for name, shape in shapes.items() if not _inside(shape, profile[name])]
        if outside:
            name = outside[0]
            low, _, high = profile[name]
            reason = f"{name} is {shapes[name]}, the engine takes {low} to {high}"
        else:
            distance = sum(
                abs(a - b) for name, shape in shapes.items() for a, b in zip(shape, profile[name][1], strict=True)
            )
            fitting.append((distance, index))
    if not fitting:
        raise BatchSizeError(f"{reason}; give smaller batches, or build-engine with a larger --max-batch")
    return min(fitting)[1]


def _inside(shape: Shape, bounds: tuple[Shape, Shape, Shape]) -> bool:
    low, _, high = bounds
    return len(shape) == len(low) and all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))


def check_array(spec: TensorSpec, array: np.ndarray, batch: int) -> None:
    """Raise :class:`EngineInvalidError` unless ``array`` is what an input takes, for ``batch`` items or one for all."""
    wanted = spec.at(batch)
    if array.dtype != spec.dtype or array.shape not in (wanted, spec.at(1)):
        raise EngineInvalidError(
            f"{spec.name} is {array.dtype} {array.shape}, the engine takes {spec.dtype} {wanted}; "
            "this is a mistake of lsms-rt or of an engine made elsewhere"
        )
