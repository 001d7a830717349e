"""The image graph with our kernels as nodes: each node is one launch, with a fallback function of stock operations.

A runtime with a plugin of that name and domain runs the kernel; ONNX Runtime, TensorRT for RTX and a TensorRT without
plugins inline the function, which is the kernel's plain twin.  So one file works everywhere.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from lsms_rt.errors import EngineError
from lsms_rt.kernels import fold_keys, fold_values, registry
from lsms_rt.kernels.plugins import DOMAIN, Compile, parse_plugin_name, plugin_name, register
from lsms_rt.kernels.shape import Shape
from lsms_rt.kernels.tensors import is_batched, size_of
from lsms_rt.kernels.test_data import block_tensors, typed

from .graph.passes import strip_metadata
from .kernel_alignment import check_alignment
from .onnx_export import OPSET, no_garbage_collection, quiet

# The version of the domain.
VERSION = 1
FLOATS = ["tensor(float)", "tensor(float16)"]


def translations() -> dict[Any, Callable[..., Any]]:
    """Return, for PyTorch's exporter: our operators -> functions that insert a node of our domain."""
    from onnxscript import values

    opset, table = values.Opset(DOMAIN, VERSION), {}
    for module in registry.FP16_MODULES:
        operator = registry.operator(module)
        tensors = [a.name for a in operator._schema.arguments if str(a.type) == "Tensor"]
        integers = [a.name for a in operator._schema.arguments if str(a.type) != "Tensor"]
        _register_schema(registry.name(module), tensors, integers, len(operator._schema.returns))
        table[operator] = _translation(getattr(opset, registry.name(module)), tensors, integers)
    return table


def _translation(node: Any, tensors: list[str], integers: list[str]) -> Callable[..., Any]:
    def translate(*arguments: Any, **named: Any) -> Any:
        bound = signature.bind(*arguments, **named).arguments
        return node(*(bound[name] for name in tensors), **{name: bound[name] for name in integers})

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in (*tensors, *integers)])
    translate.__signature__ = signature  # type: ignore[attr-defined]
    return translate


def _register_schema(name: str, tensors: list[str], integers: list[str], outputs: int) -> None:
    """Register an operator of our domain, once per process; a second registration would be an error."""
    if onnx.defs.has(name, DOMAIN):
        return
    parameter, attribute = onnx.defs.OpSchema.FormalParameter, onnx.defs.OpSchema.Attribute
    ins = [parameter(tensor, f"T{i}") for i, tensor in enumerate(tensors)]
    outs = [parameter(f"y{i}", f"U{i}") for i in range(outputs)]
    types = [(f"T{i}", FLOATS, "") for i in range(len(ins))] + [(f"U{i}", FLOATS, "") for i in range(outputs)]
    onnx.defs.register_schema(
        onnx.defs.OpSchema(
            name, DOMAIN, VERSION, inputs=ins, outputs=outs, type_constraints=types,
            attributes=[attribute(integer, onnx.defs.OpSchema.AttrType.INT, "") for integer in integers],
        )
    )  # fmt: skip


def name_nodes(model: onnx.ModelProto) -> dict[str, tuple[ModuleType, Shape]]:
    """Name every kernel node after its launch, in place; return the kernel and shape of every name."""
    found: dict[str, tuple[ModuleType, Shape]] = {}
    modules = {registry.name(module): module for module in registry.FP16_MODULES}
    sizes = {v.name: _size(v) for v in (*model.graph.value_info, *model.graph.input)}
    for node in model.graph.node:
        if node.domain != DOMAIN:
            continue
        module = modules[node.op_type]
        shape = _shape_of(module, node, sizes)
        outputs = registry.signature(module, shape)[1]
        sizes |= {value: size_of(name, shape, 0) for value, name in zip(node.output, outputs, strict=True)}
        name = plugin_name(module, shape)
        found[name] = module, shape
        node.op_type = name
        del node.attribute[:]
    return found


def attach_fallback_functions(model: onnx.ModelProto, named: dict[str, tuple[ModuleType, Shape]]) -> None:
    """Append a function of stock operations for every name, in place."""
    for name, (module, shape) in named.items():
        model.functions.append(body(name, module, shape))
    if named and not any(opset.domain == DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def _size(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    # The batch is 0.
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _shape_of(module: ModuleType, node: onnx.NodeProto, sizes: dict[str, tuple[int, ...]]) -> Shape:
    """Return the shape that a node's kernel is specialized for, from the sizes of its inputs."""
    operator = registry.operator(module)
    known = {a.name: sizes.get(value, ()) for a, value in zip(operator._schema.arguments, node.input, strict=False)}
    if module in (fold_keys, fold_values):
        rows = known["keys"] if module is fold_keys else known["values"]
        return Shape(rows[2], 1, node.attribute[0].i, rows[1])
    _, channels, height, width = sizes[node.input[0]]
    tokens = known["p"][1] if "p" in known else known["keys"][1] if "keys" in known else Shape.tokens
    return Shape(channels, height, width, tokens)


class _Plain(nn.Module):
    """The plain twin of a kernel as a module, for the exporter."""

    def __init__(self, module: ModuleType, shape: Shape) -> None:
        super().__init__()
        self.plain = module.plain
        self.more = [shape.pixels] if module in (fold_keys, fold_values) else []

    def forward(self, *tensors: Tensor) -> Any:
        return self.plain(*tensors, *self.more)


def body(name: str, module: ModuleType, shape: Shape) -> onnx.FunctionProto:
    """Export the plain twin of a kernel as an ONNX function, for any batch."""
    inputs, outputs = registry.signature(module, shape)
    tensors = block_tensors(shape, 2)
    examples = tuple(typed(tensor, tensors[tensor], shape) for tensor in inputs)
    batch = torch.export.Dim("batch", min=1, max=1024)
    dynamic = tuple({0: batch} if is_batched(tensor) else {} for tensor in inputs)
    with quiet(), no_garbage_collection(), torch.no_grad():
        program = torch.onnx.export(
            _Plain(module, shape).eval(), examples, dynamo=True, opset_version=OPSET, input_names=inputs,
            output_names=outputs, dynamic_shapes=(dynamic,), verbose=False,
        )  # fmt: skip
    assert program is not None
    made = program.model_proto
    strip_metadata(made)
    constants = [
        helper.make_node("Constant", [], [tensor.name], name=f"{tensor.name}.constant", value=tensor)
        for tensor in made.graph.initializer
    ]
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, name, inputs, outputs, [*constants, *made.graph.node], opset_imports=opsets)


def without_bodies(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without functions, for TensorRT with plugins: it prefers a function to a plugin."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.functions[:]
    for node in copy.graph.node:
        if node.domain == DOMAIN:
            node.attribute.extend(
                [helper.make_attribute("plugin_namespace", DOMAIN), helper.make_attribute("plugin_version", "1"),
                 helper.make_attribute("aot", np.int64(1))]
            )  # fmt: skip
    return copy


def with_plugins(library: Any, graph: Path, arch: str, compile_one: Compile) -> Path:
    """Register a TensorRT plugin for every kernel node of a graph, and write the graph without functions.

    Args:
        library: TensorRT's Python module.
        graph: the graph's file.
        arch: the GPU, as "sm_90".
        compile_one: compiles one launch.

    Returns:
        The new graph, beside the first one.

    Raises:
        EngineError: the graph was made from different kernels than the installed ones, or they cannot be plugins.
    """
    model = onnx.load(graph)
    launches = {node.op_type: parse_plugin_name(node.op_type) for node in model.graph.node if node.domain == DOMAIN}
    unknown = [name for name, launch in launches.items() if plugin_name(*launch) != name]
    if unknown:
        raise EngineError(
            f"{graph.name} was made from different kernels than the installed ones ({unknown[0]}); run lsms-rt "
            "build-engine again"
        )
    trtp = importlib.import_module(f"{library.__name__}.plugin")
    try:
        register(trtp, library.DataType, launches, arch, compile_one)
    except (ValueError, RuntimeError) as error:
        # A kernel spills registers on this GPU, or the assembler rejects it.
        raise EngineError(f"the kernels cannot be plugins for {arch}: {error}; use --kernels stock") from error
    check_alignment(model)
    path = graph.with_suffix(".plugins.onnx")
    onnx.save(without_bodies(model), path)
    return path
