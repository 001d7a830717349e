"""Compare every kernel with its plain twin in float64: on a GPU, or on the CPU in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from . import registry
from .launch import DTYPES
from .shape import Shape
from .tensors import size_of
from .test_data import typed
from .tuned_tiles import planned

# Maximum difference, relative to the output's largest value.  fp16: a result is rounded to 11 bits, and so are one or
# two operands before it; sums are fp32.  fp32: sums of some hundred products have another order, and three tf32
# products keep 21 of a product's 24 bits.
TOLERANCE = {"fp16": 4e-3, "fp32": 2e-5}


@dataclass(frozen=True)
class Deviation:
    """The deviation of one output of one kernel from its twin.

    Attributes:
        kernel: name of the kernel's module.
        output: name of the output, or of a part of it.
        shape: key of the shape.
        batch: number of slices.
        error: maximum difference, relative to the output's scale; NaN if an element was not written.
        tolerance: the largest error that is accepted.
    """

    kernel: str
    output: str
    shape: str
    batch: int
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        # False for NaN.
        return self.error <= self.tolerance


def run(
    module: ModuleType, shape: Shape, tensors: dict[str, Tensor], plan: Callable[..., object] | None = None
) -> dict[str, Tensor]:
    """Run a module's launches on the named tensors, with outputs that start as NaN.

    ``plan`` is like ``tuned_tiles.planned``, which is the default.
    """
    known = {name: typed(name, tensor, shape) for name, tensor in tensors.items()}
    batch, device = known["x"].shape[0], known["x"].device
    for launch in registry.launches(module, shape, plan or planned):
        for name in list(launch.arguments)[-launch.outputs :]:
            dtype = DTYPES[launch.arguments[name]]
            known[name] = torch.full(size_of(name, shape, batch), float("nan"), dtype=dtype, device=device)
        launch(batch, *(known[name] for name in launch.arguments))
    return {name: known[name] for name in registry.signature(module, shape)[1]}


def verify(
    module: ModuleType, shape: Shape, tensors: dict[str, Tensor], plan: Callable[..., object] | None = None
) -> list[Deviation]:
    """Measure the deviations of all outputs of a module's kernels.

    Args:
        module: the kernel's module.
        shape: the shape.
        tensors: from ``test_data.block_tensors``, on the device to run on.
        plan: as for ``run``.
    """
    deviations, expected, batch = [], registry.twin(module, shape, tensors), tensors["x"].shape[0]
    for name, output in run(module, shape, tensors, plan).items():
        pairs = zip(_quantities(name, output, tensors), _quantities(name, expected[name], tensors), strict=True)
        for (quantity, actual), (_, reference) in pairs:
            size = expected[name][:, :, 1].div(shape.chunk).sqrt() if quantity.endswith("means") else reference
            scale = max(float(reference.abs().max()), float(size.abs().max()), 1e-3)
            error = float((actual.double() - reference).abs().max()) / scale
            deviations.append(
                Deviation(registry.name(module), quantity, shape.key, batch, error, TOLERANCE[shape.dtype])
            )
    return deviations


def _quantities(name: str, tensor: Tensor, tensors: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Split an output into parts of similar magnitude: with one scale, errors of the smaller part would be hidden.

    Means near zero are compared on the scale of the standard deviation, which limits their precision.
    """
    if name in ("statistics", "attended"):
        return [(f"{name}: squares", tensor[:, :, 1]), (f"{name}: means", tensor[:, :, 0])]
    if name == "offset":
        words = tensors["mask"] == 1
        parts = [(f"{name}: words", tensor[words]), (f"{name}: padding", tensor[~words])]
        return [(part, values) for part, values in parts if values.numel()]
    return [(name, tensor)]
