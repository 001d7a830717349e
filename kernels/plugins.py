"""The kernels as plugins of TensorRT: PTX inside of the engine, no Python and no Triton when it runs.

TensorRT's quickly deployable plugins (``tensorrt.plugin``, ahead of time, from 10.15 on).  A plugin is one launch at
one shape: everything but the batch is baked in, so it has no attributes, and its grid's z is the batch.

Not run yet: registration has passed the validation of ``tensorrt.plugin`` 10.15, 10.16 and 11.4, without a GPU.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import GenericAlias, ModuleType
from typing import Any

from lsms_rt.digest import sha256

from . import registry
from .aot import Compiled, faults
from .launch import Launch
from .shape import Shape
from .tuned_tiles import planned

DOMAIN = "lsms_rt"  # of the nodes, and the plugins' namespace
Compile = Callable[[Launch, Shape, str], Compiled]


def launch_of(module: ModuleType, shape: Shape) -> Launch:
    """The one launch of a module at a shape, with the tile sizes chosen for this GPU."""
    (launch,) = registry.launches(module, shape, planned)
    return launch


def plugin_name(module: ModuleType, shape: Shape) -> str:
    """``gate_mix_c64_h128_w128_t32_fp16_1f3a9c02``: kernel, shape, and a digest of the code.

    TensorRT's timing cache knows a plugin by its name alone; the digest makes a changed kernel another plugin.
    """
    launch = launch_of(module, shape)
    parts = (sources(), sorted(launch.constants.items()), launch.grid, launch.warps, launch.stages)
    return f"{registry.name(module)}_{shape.key}_{sha256(repr(parts).encode())[:8]}"


def of_name(name: str) -> tuple[ModuleType, Shape]:
    """The kernel and shape of a plugin's name.  Raises ``ValueError`` for no such name."""
    found = re.fullmatch(r"(\w+?)_c(\d+)_h(\d+)_w(\d+)_t(\d+)_(fp16|fp32)_[0-9a-f]{8}", name)
    modules = {registry.name(module): module for module in registry.IN_HALF}
    if found is None or found[1] not in modules:
        raise ValueError(f"{name!r} is no plugin of these kernels")
    channels, height, width, tokens = (int(found[i]) for i in (2, 3, 4, 5))
    return modules[found[1]], Shape(channels, height, width, tokens, found[6])


@functools.cache
def sources() -> str:
    """Digest of what decides a kernel's code: all files of this folder, since they share functions, and Triton."""
    import triton

    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files) + triton.__version__.encode())


def register(
    trtp: Any, dtypes: Any, wanted: Mapping[str, tuple[ModuleType, Shape]], arch: str, compile_one: Compile
) -> list[str]:
    """Register a plugin for every name in ``wanted`` (from ``plugin_name``); those that are registered stay.

    ``trtp`` is the module ``tensorrt.plugin``, ``dtypes`` is ``tensorrt.DataType``, ``arch`` as in ``aot.TARGETS``,
    ``compile_one`` best ``aot.compile_launch``.  Returns the names that are new.  Register before a graph is parsed.
    Raises ``ValueError`` for a kernel that no plugin may be: one that spills, or wants more shared memory than a launch
    gets unasked.
    """
    new = []
    for name, (module, shape) in wanted.items():
        if hasattr(getattr(trtp.op, DOMAIN, None), name):
            continue
        launch = launch_of(module, shape)
        compiled = compile_one(launch, shape, arch)
        wrong = faults([compiled.row()])
        if wrong:
            raise ValueError(f"{wrong[0]}: no plugin may have that")
        trtp.register(f"{DOMAIN}::{name}")(describe(trtp, dtypes, launch, shape))
        trtp.aot_impl(f"{DOMAIN}::{name}")(implement(trtp, launch, compiled))
        new.append(name)
    return new


def describe(trtp: Any, dtypes: Any, launch: Launch, shape: Shape) -> Callable[..., Any]:
    """What a plugin's outputs are, given its inputs: of one batch with the first, all else is baked in."""
    inputs, outputs = names_of(launch)
    types = {"fp16": dtypes.HALF, "fp32": dtypes.FLOAT}

    def plugin(*tensors: Any) -> Any:
        batch = tensors[0].shape_expr[0]
        found = tuple(
            trtp.from_shape_expr((batch, *registry.size_of(name, shape, 1)[1:]), types[launch.arguments[name]])
            for name in outputs
        )
        return found if len(found) > 1 else found[0]

    tensor = trtp.TensorDesc
    many = _tuple_of([tensor] * len(outputs)) if len(outputs) > 1 else tensor
    return _signed(plugin, dict.fromkeys(inputs, tensor), many)


def implement(trtp: Any, launch: Launch, compiled: Compiled) -> Callable[..., Any]:
    """The compiled kernel and how it is launched; the grid's z is the batch, and no argument is a number."""
    inputs, outputs = names_of(launch)

    def plugin(*arguments: Any) -> Any:
        params = trtp.KernelLaunchParams()
        params.grid_x, params.grid_y = launch.grid
        params.grid_z = arguments[0].shape_expr[0] * 1  # an expression of its own, as TensorRT's own examples make one
        params.block_x, params.shared_mem = compiled.block, compiled.shared
        return compiled.entry, compiled.ptx, params, trtp.SymIntExprs(0)

    tensor = trtp.TensorDesc
    kinds = dict.fromkeys(inputs, tensor) | {"outputs": _tuple_of([tensor] * len(outputs)), "tactic": int}
    return _signed(plugin, kinds, tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs])


def names_of(launch: Launch) -> tuple[list[str], list[str]]:
    """Inputs and outputs of a launch, in the order of the kernel's pointers."""
    names = list(launch.arguments)
    return names[: -launch.outputs], names[-launch.outputs :]


def _tuple_of(types: list[Any]) -> Any:
    """``tuple[T, T, ...]``, of a length that is known when it runs."""
    return GenericAlias(tuple, tuple(types))


def _signed(function: Callable[..., Any], kinds: Mapping[str, Any], answer: Any) -> Callable[..., Any]:
    """TensorRT reads a plugin's tensors off the function's signature."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in kinds.items()]
    function.__signature__ = inspect.Signature(parameters, return_annotation=answer)  # type: ignore[attr-defined]
    return function
