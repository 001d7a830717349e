"""The kernels as TensorRT plugins: the engine contains their PTX, and needs no Python and no Triton to run.

They are quickly deployable plugins (``tensorrt.plugin``, ahead of time, since 10.15).  A plugin is one launch at one
shape: everything but the batch is constant, so it has no attributes, and the z axis of its grid is the batch.

Not run on a GPU yet: registration passes the validation of ``tensorrt.plugin`` 10.15, 10.16 and 11.4.
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
from .aot import Compiled, resource_violations
from .launch import Launch
from .shape import Shape
from .tensors import size_of
from .tuned_tiles import planned

# Domain of the nodes, and namespace of the plugins.
DOMAIN = "lsms_rt"
Compile = Callable[[Launch, Shape, str], Compiled]


def launch_of(module: ModuleType, shape: Shape) -> Launch:
    """Return the one launch of a module at a shape, with the tile sizes tuned for this GPU."""
    (launch,) = registry.launches(module, shape, planned)
    return launch


def plugin_name(module: ModuleType, shape: Shape) -> str:
    """Return e.g. ``gate_mix_c64_h128_w128_t32_fp16_1f3a9c02``: kernel, shape, and a digest of the code.

    TensorRT's timing cache identifies a plugin by its name alone, so a changed kernel needs another name.
    """
    launch = launch_of(module, shape)
    parts = (sources(), sorted(launch.constants.items()), launch.grid, launch.warps, launch.stages)
    return f"{registry.name(module)}_{shape.key}_{sha256(repr(parts).encode())[:8]}"


def parse_plugin_name(name: str) -> tuple[ModuleType, Shape]:
    """Return the kernel and shape of a plugin's name.

    Raises:
        ValueError: it is not the name of a plugin of these kernels.
    """
    match = re.fullmatch(r"(\w+?)_c(\d+)_h(\d+)_w(\d+)_t(\d+)_(fp16|fp32)_[0-9a-f]{8}", name)
    modules = {registry.name(module): module for module in registry.FP16_MODULES}
    if match is None or match[1] not in modules:
        raise ValueError(f"{name!r} is not a plugin of these kernels; rebuild the engine with this version")
    channels, height, width, tokens = (int(match[i]) for i in (2, 3, 4, 5))
    return modules[match[1]], Shape(channels, height, width, tokens, match[6])


@functools.cache
def sources() -> str:
    """Return a digest of all that a kernel's code depends on: the files of this folder, and Triton's version."""
    import triton

    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files) + triton.__version__.encode())


def register(
    trtp: Any, dtypes: Any, plugins: Mapping[str, tuple[ModuleType, Shape]], arch: str, compile_one: Compile
) -> list[str]:
    """Register plugins; those that are registered already stay.  This must be done before a graph is parsed.

    Args:
        trtp: the module ``tensorrt.plugin``.
        dtypes: ``tensorrt.DataType``.
        plugins: ``plugin_name`` -> its kernel and shape.
        arch: the architecture, a key of ``aot.TARGETS``.
        compile_one: compiles a launch, usually ``aot.compile_launch``.

    Returns:
        the names that are new.

    Raises:
        ValueError: a kernel spills registers, or needs more shared memory than a launch gets by default.
    """
    new = []
    for name, (module, shape) in plugins.items():
        if hasattr(getattr(trtp.op, DOMAIN, None), name):
            continue
        launch = launch_of(module, shape)
        compiled = compile_one(launch, shape, arch)
        violations = resource_violations([compiled.row()])
        if violations:
            raise ValueError(f"{violations[0]}: exceeds the limits of a plugin")
        trtp.register(f"{DOMAIN}::{name}")(describe(trtp, dtypes, launch, shape))
        trtp.aot_impl(f"{DOMAIN}::{name}")(implement(trtp, launch, compiled))
        new.append(name)
    return new


def describe(trtp: Any, dtypes: Any, launch: Launch, shape: Shape) -> Callable[..., Any]:
    """Return the function that describes a plugin's outputs: their batch is that of the first input."""
    inputs, outputs = names_of(launch)
    types = {"fp16": dtypes.HALF, "fp32": dtypes.FLOAT}

    def plugin(*tensors: Any) -> Any:
        batch = tensors[0].shape_expr[0]
        descriptions = tuple(
            trtp.from_shape_expr((batch, *size_of(name, shape, 1)[1:]), types[launch.arguments[name]])
            for name in outputs
        )
        return descriptions if len(descriptions) > 1 else descriptions[0]

    tensor = trtp.TensorDesc
    many = _tuple_of([tensor] * len(outputs)) if len(outputs) > 1 else tensor
    return _signed(plugin, dict.fromkeys(inputs, tensor), many)


def implement(trtp: Any, launch: Launch, compiled: Compiled) -> Callable[..., Any]:
    """Return the function that gives TensorRT the compiled kernel and its launch; no argument is a number."""
    inputs, outputs = names_of(launch)

    def plugin(*arguments: Any) -> Any:
        params = trtp.KernelLaunchParams()
        params.grid_x, params.grid_y = launch.grid
        # The product makes a new expression, as TensorRT's own examples do.
        params.grid_z = arguments[0].shape_expr[0] * 1
        params.block_x, params.shared_mem = compiled.block, compiled.shared
        return compiled.entry, compiled.ptx, params, trtp.SymIntExprs(0)

    tensor = trtp.TensorDesc
    kinds = dict.fromkeys(inputs, tensor) | {"outputs": _tuple_of([tensor] * len(outputs)), "tactic": int}
    return _signed(plugin, kinds, tuple[str, str, trtp.KernelLaunchParams, trtp.SymIntExprs])


def names_of(launch: Launch) -> tuple[list[str], list[str]]:
    """Return the names of a launch's inputs and outputs, in the order of the kernel's pointers."""
    names = list(launch.arguments)
    return names[: -launch.outputs], names[-launch.outputs :]


def _tuple_of(types: list[Any]) -> Any:
    """Return ``tuple[T, T, ...]`` of a length that is known at run time only."""
    return GenericAlias(tuple, tuple(types))


def _signed(function: Callable[..., Any], kinds: Mapping[str, Any], result: Any) -> Callable[..., Any]:
    """Set a function's signature, from which TensorRT reads a plugin's tensors."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in kinds.items()]
    function.__signature__ = inspect.Signature(parameters, return_annotation=result)  # type: ignore[attr-defined]
    return function
