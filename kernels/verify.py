"""Compare every kernel with its plain twin in float64: on a GPU, or on the CPU in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from torch import Tensor

from . import registry
from .canaries import Canaries
from .launch import DTYPES, Launch
from .shape import Shape
from .tensors import size_of, spec
from .test_data import typed
from .tuned_tiles import planned

# Maximum difference, relative to the largest value of the channel (of the whole output if it is not a map).  fp16: a
# result is rounded to 11 bits, and so are one or two operands before it; sums are fp32.  fp32: sums of some hundred
# products have another order, and three tf32 products keep 21 of a product's 24 bits.  In Triton's interpreter, which
# has no tf32, the largest are 9e-4 and 5e-7 (gate_mix's y).
TOLERANCE = {"fp16": 4e-3, "fp32": 2e-5}
# A channel's scale is at least this share of the map's largest value: rounded operands come from all channels, so a
# channel whose products cancel has their errors.
QUIET = 1 / 16


@dataclass(frozen=True)
class Deviation:
    """The deviation of one output of one kernel from its twin.

    Attributes:
        kernel: name of the kernel's module.
        output: name of the output, or of a part of it.
        shape: key of the shape.
        batch: number of slices.
        error: maximum difference, relative to the output's scale; NaN if an element was not written, infinite if
            something was written beside a tensor.
        tolerance: the largest error that is accepted.
        not_finite: number of elements that are NaN or infinite and should not be.
    """

    kernel: str
    output: str
    shape: str
    batch: int
    error: float
    tolerance: float
    not_finite: int = 0

    @property
    def ok(self) -> bool:
        # False for NaN.
        return self.error <= self.tolerance


Start = Callable[..., object]
"""Starts a launch for a batch with its tensors, inputs before outputs."""


def start(launch: Launch, batch: int, *tensors: Tensor) -> None:
    """Start a launch as PyTorch does."""
    launch(batch, *tensors)


def run(
    module: ModuleType,
    shape: Shape,
    tensors: dict[str, Tensor],
    plan: Callable[..., object] | None = None,
    canaries: Canaries | None = None,
    start: Start = start,
) -> dict[str, Tensor]:
    """Run a module's launches on the named tensors, with outputs that start as NaN.

    Args:
        module: the kernel's module.
        shape: the shape.
        tensors: from ``test_data.block_tensors``, on the device to run on.
        plan: is like ``tuned_tiles.planned``, which is the default.
        canaries: places the tensors that the launches read and write.
        start: starts a launch.
    """
    plan, canaries = plan or planned, canaries or Canaries()
    device, batch = tensors["x"].device, tensors["x"].shape[0]
    launches = registry.launches(module, shape, plan)
    known: dict[str, Tensor] = {}
    for launch in launches:
        for name, dtype in list(launch.arguments.items())[-launch.outputs :]:
            known[name] = canaries.output(name, size_of(name, shape, batch), DTYPES[dtype], device)
        for name in launch.arguments:
            if name not in known:
                known[name] = canaries.place(name, typed(name, tensors[name], shape))
        start(launch, batch, *(known[name] for name in launch.arguments))
    return {name: known[name] for name in registry.signature(module, shape)[1]}


def verify(
    module: ModuleType,
    shape: Shape,
    tensors: dict[str, Tensor],
    plan: Callable[..., object] | None = None,
    start: Start = start,
) -> list[Deviation]:
    """Measure the deviations of all outputs of a module's kernels, and look for accesses beside its tensors.

    Args:
        module: the kernel's module.
        shape: the shape.
        tensors: from ``test_data.block_tensors``, on the device to run on.
        plan: as for ``run``.
        start: as for ``run``.

    Returns:
        One per output or part of it, and one for every tensor beside which a kernel has written.
    """
    deviations, expected, batch = [], registry.twin(module, shape, tensors), tensors["x"].shape[0]
    name_of, tolerance, canaries = registry.name(module), TOLERANCE[shape.dtype], Canaries()
    for name, output in run(module, shape, tensors, plan, canaries, start).items():
        pairs = zip(_quantities(name, output, tensors), _quantities(name, expected[name], tensors), strict=True)
        for (quantity, actual), (_, reference) in pairs:
            size = expected[name][:, :, 1].div(shape.chunk).sqrt() if quantity.endswith("means") else reference
            scale = _scale(reference, size, is_map=spec(name).is_map)
            error = float(((actual.double() - reference).abs() / scale).max())
            strange = int((~actual.isfinite() & reference.isfinite()).sum())
            deviations.append(Deviation(name_of, quantity, shape.key, batch, error, tolerance, strange))
    return deviations + [
        Deviation(name_of, f"{name}: beside it", shape.key, batch, float("inf"), tolerance)
        for name in canaries.touched()
    ]


def _scale(reference: Tensor, size: Tensor, is_map: bool) -> Tensor | float:
    """Return the scale of an output's errors: of every channel of every slice for a map, else one."""
    whole = max(float(reference.abs().max()), float(size.abs().max()), 1e-3)
    # With one scale, errors of a channel of small values would be hidden.
    return reference.abs().amax((2, 3), keepdim=True).clamp_min(QUIET * whole) if is_map else whole


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
