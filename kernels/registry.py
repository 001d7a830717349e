"""Which kernels a block runs at a shape, in order: what is compiled, timed and tuned."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor

from . import (
    depthwise,
    depthwise_direct,
    fold_keys,
    fold_values,
    gate,
    gate_mix,
    mix,
    query_statistics,
    token_attention,
)
from .launch import Launch
from .shape import Shape

MODULES: tuple[ModuleType, ...] = (
    depthwise,
    depthwise_direct,
    query_statistics,
    fold_keys,
    token_attention,
    fold_values,
    gate,
    mix,
    gate_mix,
)


IN_HALF = tuple(module for module in MODULES if module is not depthwise_direct)  # what the chain runs in fp16


def operator(module: ModuleType) -> Any:
    """The module's ``torch.ops.lsms_rt`` operator."""
    import torch

    return getattr(torch.ops.lsms_rt, "multi_scale_depthwise" if module is depthwise else name(module)).default


def name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def chain(shape: Shape) -> list[ModuleType]:
    """The modules whose kernels ``svla`` launches at a shape."""
    convolution = depthwise if shape.dtype == "fp16" else depthwise_direct
    tail = [gate_mix] if gate_mix.fits(shape) else [fold_values, gate, mix]
    return [convolution, query_statistics, fold_keys, token_attention, *tail]


def launches(module: ModuleType, shape: Shape, plan: Callable[..., Any] | None = None) -> list[Launch]:
    """A module's launches at a shape, one or more; ``plan`` as ``choices.planned``, else the default tile sizes."""
    found = module.launch(shape) if plan is None else plan(module.launch, shape)
    return list(found) if isinstance(found, tuple) else [found]


def size_of(tensor: str, shape: Shape, batch: int) -> tuple[int, ...]:
    """The size of what a launch writes, by its name among the launch's arguments."""
    maps, rows = (batch, shape.channels, shape.height, shape.width), (batch, shape.tokens, shape.channels)
    moments, channels = (batch, shape.chunks, 2, shape.channels), (batch, shape.channels)
    sizes: dict[str, tuple[int, ...]] = {
        "a": maps, "s": maps, "u": maps, "y": maps,
        "rows": (batch, shape.channels, 3, shape.height, shape.width),
        "statistics": moments, "attended": moments,
        "folded_keys": rows, "offset": (batch, shape.tokens),
        "p": (batch, shape.tokens, shape.pixels),
        "context": rows, "layer": rows, "context_offset": channels, "layer_offset": channels,
    }  # fmt: skip
    return sizes[tensor]


def signature(module: ModuleType, shape: Shape) -> tuple[list[str], list[str]]:
    """Names of the tensors that a module's operator takes, and of those that it returns."""
    operator = depthwise if module is depthwise_direct else module  # the same arguments; its launches hand on more
    launch = operator.launch(shape)
    names = list(launch.arguments)
    return names[: -launch.outputs], names[-launch.outputs :]


def twin(module: ModuleType, shape: Shape, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a module's plain twin makes of the named tensors."""
    inputs, outputs = signature(module, shape)
    operator = depthwise if module is depthwise_direct else module
    pixels = [shape.pixels] if module in (fold_keys, fold_values) else []  # they see no map to count them
    found = operator.plain(*(tensors[name] for name in inputs), *pixels)
    return dict(zip(outputs, found if isinstance(found, tuple) else (found,), strict=True))
