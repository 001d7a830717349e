"""The kernels of a block at a shape, in order: those that are compiled, timed and tuned."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor

from . import (
    depthwise,
    depthwise3_gelu,
    depthwise_direct,
    expand,
    fold_attention,
    fold_keys,
    fold_values,
    gate,
    gate_mix,
    inner,
    merge_scales,
    mix,
    outer,
    query_statistics,
    reduce,
    stage_norm,
    token_attention,
    tuned_tiles,
)
from .launch import Launch
from .shape import DecoderShape, RestShape, Shape

MODULES: tuple[ModuleType, ...] = (
    depthwise,
    depthwise_direct,
    query_statistics,
    fold_keys,
    token_attention,
    fold_attention,
    fold_values,
    gate,
    mix,
    gate_mix,
)

# Chains of kernels: "merged" has fold_attention instead of fold_keys and token_attention, where all channels fit.
CHAINS = ("separate", "merged")

# The rest of a block and the end of a stage, at a RestShape: PyTorch only, no plugins.
REST: tuple[ModuleType, ...] = (inner, outer, expand, depthwise3_gelu, reduce, stage_norm)
# All that are not SVLA's; merge_scales is the decoder's, at a DecoderShape.
AROUND = (*REST, merge_scales)

# The chains in fp16, the only type that has plugins.
FP16_MODULES = tuple(module for module in MODULES if module is not depthwise_direct)


def operator(module: ModuleType) -> Any:
    """Return the module's ``torch.ops.lsms_rt`` operator."""
    import torch

    return getattr(torch.ops.lsms_rt, "multi_scale_depthwise" if module is depthwise else name(module)).default


def name(module: ModuleType) -> str:
    """Return the name of a kernel's module without its package."""
    return module.__name__.rpartition(".")[2]


def chain(shape: Shape, name: str | None = None) -> list[ModuleType]:
    """Return the modules whose kernels ``svla`` launches at a shape, in order; ``name`` as for ``chain_name``.

    At other kinds of shapes, those that run there.
    """
    if isinstance(shape, RestShape):
        return list(REST)
    if isinstance(shape, DecoderShape):
        return [merge_scales]
    convolution = depthwise if shape.dtype == "fp16" else depthwise_direct
    attention = [fold_attention] if chain_name(shape, name) == "merged" else [fold_keys, token_attention]
    tail = [gate_mix] if gate_mix.fits(shape) else [fold_values, gate, mix]
    return [convolution, query_statistics, *attention, *tail]


def chain_name(shape: Shape, name: str | None = None) -> str:
    """Return the chain that runs at a shape if ``name`` is requested; None requests the one tuned for this GPU.

    Raises:
        ValueError: the name is unknown.
    """
    name = name or tuned_tiles.settings("chain", shape).get("name", "separate")
    if name not in CHAINS:
        raise ValueError(f"chain is {name!r}; choose from {', '.join(CHAINS)}")
    return name if fold_attention.fits(shape) else "separate"


def modules_at(shape: Shape) -> list[ModuleType]:
    """Return the modules of all chains at a shape, each once, in order."""
    used = {module for name in CHAINS for module in chain(shape, name)}
    return [module for module in (*MODULES, *AROUND) if module in used]


def launches(module: ModuleType, shape: Shape, plan: Callable[..., Any] | None = None) -> list[Launch]:
    """Return a module's launches at a shape; ``plan`` is like ``tuned_tiles.planned``, None for default tiles."""
    launch = module.launch(shape) if plan is None else plan(module.launch, shape)
    return list(launch) if isinstance(launch, tuple) else [launch]


def signature(module: ModuleType, shape: Shape) -> tuple[list[str], list[str]]:
    """Return the names of the tensors that a module's operator reads, and of those that it returns."""
    # depthwise_direct has the operator arguments of depthwise, but its launches exchange more tensors.
    operator = depthwise if module is depthwise_direct else module
    steps = launches(operator, shape)
    written = {name for step in steps for name in list(step.arguments)[-step.outputs :]}
    read = dict.fromkeys(name for step in steps for name in step.arguments if name not in written)
    return list(read), list(steps[-1].arguments)[-steps[-1].outputs :]


def twin(module: ModuleType, shape: Shape, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Run a module's plain twin on the named tensors, and return its outputs by name."""
    inputs, outputs = signature(module, shape)
    operator = depthwise if module is depthwise_direct else module
    # These two have no map among their inputs to count the pixels of.
    pixels = [shape.pixels] if module in (fold_keys, fold_values) else []
    values = operator.plain(*(tensors[name] for name in inputs), *pixels)
    return dict(zip(outputs, values if isinstance(values, tuple) else (values,), strict=True))
