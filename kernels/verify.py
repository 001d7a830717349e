"""Every kernel against its plain twin in float64: on the CPU by Triton's interpreter, on a GPU as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from . import registry
from .launch import DTYPES
from .shape import Shape
from .test_data import typed
from .tuned_tiles import planned

# Largest difference, of the output's largest value.  fp16: a result is rounded to 11 bits, and so are one or two
# operands before it; sums are fp32.  fp32: sums of some hundred products in another order, and of the 24 bits of a
# product three tf32 products keep 21.
TOLERANCE = {"fp16": 4e-3, "fp32": 2e-5}


@dataclass(frozen=True)
class Error:
    """How far one output of one kernel is from its twin; NaN where something was not written."""

    kernel: str
    output: str
    shape: str
    batch: int
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance  # False for NaN


def run(
    module: ModuleType, shape: Shape, tensors: dict[str, Tensor], plan: Callable[..., object] | None = None
) -> dict[str, Tensor]:
    """Run a module's launches on the named tensors; what they write starts as NaN.  ``plan`` as ``choices.planned``."""
    known = {name: typed(name, tensor, shape) for name, tensor in tensors.items()}
    batch, device = known["x"].shape[0], known["x"].device
    for launch in registry.launches(module, shape, plan or planned):
        for name in list(launch.arguments)[-launch.outputs :]:
            dtype = DTYPES[launch.arguments[name]]
            known[name] = torch.full(registry.size_of(name, shape, batch), float("nan"), dtype=dtype, device=device)
        launch(batch, *(known[name] for name in launch.arguments))
    return {name: known[name] for name in registry.signature(module, shape)[1]}


def verify(
    module: ModuleType, shape: Shape, tensors: dict[str, Tensor], plan: Callable[..., object] | None = None
) -> list[Error]:
    """The errors of all outputs; ``tensors`` from ``sample.block_tensors``, on the device to run on."""
    errors, wanted, batch = [], registry.twin(module, shape, tensors), tensors["x"].shape[0]
    for name, found in run(module, shape, tensors, plan).items():
        pairs = zip(_quantities(name, found, tensors), _quantities(name, wanted[name], tensors), strict=True)
        for (quantity, ours), (_, theirs) in pairs:
            size = wanted[name][:, :, 1].div(shape.chunk).sqrt() if quantity.endswith("means") else theirs
            scale = max(float(theirs.abs().max()), float(size.abs().max()), 1e-3)
            error = float((ours.double() - theirs).abs().max()) / scale
            errors.append(Error(registry.name(module), quantity, shape.key, batch, error, TOLERANCE[shape.dtype]))
    return errors


def _quantities(name: str, tensor: Tensor, tensors: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    """An output's parts of one size each: a scale taken over unlike ones would hide errors of the smaller.

    Means near zero, on the other hand, are as exact as their deviation allows.
    """
    if name in ("statistics", "attended"):
        return [(f"{name}: squares", tensor[:, :, 1]), (f"{name}: means", tensor[:, :, 0])]
    if name == "offset":
        words = tensors["mask"] == 1
        parts = [(f"{name}: words", tensor[words]), (f"{name}: padding", tensor[~words])]
        return [(part, values) for part, values in parts if values.numel()]
    return [(name, tensor)]
