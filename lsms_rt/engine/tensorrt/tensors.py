"""Shapes, types and sizes of a plan's inputs and outputs, and the choice of a profile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lsms_rt.engine.manifest import REBUILD
from lsms_rt.errors import BatchSizeError, EngineInvalidError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output; ``shape`` has -1 for the batch, its first axis."""

    name: str
    shape: Shape
    dtype: np.dtype
    is_input: bool

    def at(self, batch: int) -> Shape:
        """Return the shape for a batch size."""
        return tuple(batch if size == -1 else size for size in self.shape)

    def bytes_at(self, batch: int) -> int:
        """Return the size in bytes for a batch size."""
        return int(np.prod(self.at(batch))) * self.dtype.itemsize


def check_names(specs: Sequence[TensorSpec], inputs: Sequence[str], outputs: Sequence[str], what: str) -> None:
    """Raise EngineInvalidError unless a plan has exactly these inputs and outputs, with one batch axis each."""
    for expected, is_input in ((inputs, True), (outputs, False)):
        actual = sorted(spec.name for spec in specs if spec.is_input is is_input)
        if actual != sorted(expected):
            kind = "inputs" if is_input else "outputs"
            raise EngineInvalidError(f"{what} has {kind} {actual}, not {sorted(expected)}; {REBUILD}")
    for spec in specs:
        if not spec.shape or spec.shape[0] != -1 or -1 in spec.shape[1:]:
            problem = f"{spec.name} has shape {spec.shape}, and only the first axis may be dynamic"
            raise EngineInvalidError(f"{what}: {problem}; {REBUILD}")


def choose_profile(profiles: Sequence[Mapping[str, tuple[Shape, Shape, Shape]]], shapes: Mapping[str, Shape]) -> int:
    """Return the index of the profile for ``shapes``: of those that include them, the one whose opt shape is nearest.

    Args:
        profiles: (min, opt, max) shapes of every input.
        shapes: shape of every input.

    Raises:
        BatchSizeError: no profile includes the shapes.
    """
    reason = "the plan has no profile"
    fitting: list[tuple[int, int]] = []
    for index, profile in enumerate(profiles):
        outside = [name for name, shape in shapes.items() if not _inside(shape, profile[name])]
        if outside:
            name = outside[0]
            low, _, high = profile[name]
            reason = f"{name} is {shapes[name]}, the engine supports {low} to {high}"
        else:
            distance = sum(
                abs(a - b) for name, shape in shapes.items() for a, b in zip(shape, profile[name][1], strict=True)
            )
            fitting.append((distance, index))
    if not fitting:
        raise BatchSizeError(f"{reason}; use smaller batches, or rebuild the engine with a larger --max-batch")
    return min(fitting)[1]


def _inside(shape: Shape, bounds: tuple[Shape, Shape, Shape]) -> bool:
    low, _, high = bounds
    return len(shape) == len(low) and all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))


def check_array(spec: TensorSpec, array: np.ndarray, batch: int) -> None:
    """Raise EngineInvalidError unless ``array`` has the type and shape of an input, for ``batch`` items or one."""
    expected = spec.at(batch)
    if array.dtype != spec.dtype or array.shape not in (expected, spec.at(1)):
        raise EngineInvalidError(
            f"{spec.name} is {array.dtype} {array.shape}, the engine expects {spec.dtype} {expected}; "
            "internal error or foreign engine, please report it"
        )
