"""Make layers of a graph INT8: QuantizeLinear and DequantizeLinear (Q/DQ) around the operands, as TensorRT requires.

Symmetric, zero points 0, weights stored as int8 with one scale per output channel, biases unchanged.  Only the chosen
layers get rounded values: ONNX Runtime's own quantizer would pass a rounded tensor to all of its other users too, such
as residual sums and layers that are to stay in floating point.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .layers import dense_layers, dense_macs, dense_nodes, read_graph

# Levels of either sign; -128 is not used, so that a value and its negative are the same number of steps.
LEVELS = 127
# The smallest normal number of float16.  A smaller step would be for a tensor that never exceeds 0.008, where this one
# loses next to nothing of the sums of such a network.
MIN_STEP = 2.0**-14


def quantize(model: onnx.ModelProto, ranges: Mapping[str, float]) -> None:
    """Make layers INT8, in place.

    Args:
        model: a graph from ``layers.read_graph``, in float32 or float16; the scales have its type.
        ranges: layer -> the largest magnitude of its input; larger values are clipped.

    Raises:
        KeyError: the graph has no such layer.
        ValueError: a range is not a positive number.
    """
    # Not of `dense_layers`: it infers all shapes, and calibrate tries hundreds of sets of layers.
    dense = list(dense_nodes(model.graph))
    axes = {node.name: axis for node, axis in dense}
    assert len(axes) == len(dense), "two layers have the same name"
    chosen = {name: axes[name] for name in ranges}
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    # Layers with the same input and range share one pair of nodes.
    steps: dict[tuple[str, float], str] = {}
    for node in graph.node:
        axis = chosen.get(node.name)
        if axis is not None:
            limit = float(ranges[node.name])
            if not 0 < limit < np.inf:
                raise ValueError(
                    f"layer {node.name}: the range of its input is {limit}, not a positive number; calibrate again"
                )
            weight = numpy_helper.to_array(constants[node.input[1]])
            key = (node.input[0], limit)
            if key not in steps:
                steps[key] = f"{node.input[0]}.int8.{len(steps)}"
                nodes += _rounded(graph, node.input[0], steps[key], limit, weight.dtype)
            nodes.append(_weight(graph, node.name, weight, axis))
            node.input[0], node.input[1] = steps[key], nodes[-1].output[0]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph)


def weight_steps(weight: np.ndarray, axis: int) -> np.ndarray:
    """Return the scale of every output channel, in the weight's own type, in which DequantizeLinear multiplies."""
    other_axes = tuple(i for i in range(weight.ndim) if i != axis)
    steps = np.abs(weight.astype(np.float32)).max(axis=other_axes) / LEVELS
    # A channel of zeros needs a scale too; in float16 a step may be subnormal, but not zero.
    minimum = np.finfo(weight.dtype).smallest_subnormal if weight.dtype == np.float16 else 1e-12
    scales: np.ndarray = np.maximum(steps, minimum).astype(weight.dtype)
    return scales


def _rounded(graph: onnx.GraphProto, tensor: str, output: str, limit: float, dtype: np.dtype) -> list[onnx.NodeProto]:
    step = max(limit / LEVELS, MIN_STEP) if dtype == np.float16 else limit / LEVELS
    scale, zero = f"{output}.scale", f"{output}.zero"
    graph.initializer.append(numpy_helper.from_array(np.array(step, dtype), scale))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), zero))
    return [
        helper.make_node("QuantizeLinear", [tensor, scale, zero], [f"{output}.q"], name=f"{output}.quantize"),
        helper.make_node("DequantizeLinear", [f"{output}.q", scale, zero], [output], name=f"{output}.dequantize"),
    ]


def _weight(graph: onnx.GraphProto, layer: str, weight: np.ndarray, axis: int) -> onnx.NodeProto:
    steps = weight_steps(weight, axis)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    values = weight.astype(np.float32) / steps.astype(np.float32).reshape(shape)
    stored, scale, zero = (f"{layer}.weight.{part}" for part in ("int8", "scale", "zero"))
    for name, array in (
        (stored, np.clip(np.rint(values), -LEVELS, LEVELS).astype(np.int8)),
        (scale, steps),
        (zero, np.zeros(len(steps), np.int8)),
    ):
        graph.initializer.append(numpy_helper.from_array(array, name))
    return helper.make_node(
        "DequantizeLinear", [stored, scale, zero], [f"{layer}.weight.rounded"], name=f"{layer}.weight.dequantize",
        axis=axis,
    )  # fmt: skip


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def int8_layers(model: onnx.ModelProto) -> list[str]:
    """List the INT8 layers of a graph by name, from its nodes."""
    stored = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8}
    rounded = {
        node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored
    }
    return [node.name for node in model.graph.node if len(node.input) > 1 and node.input[1] in rounded]


def macs_share(graphs: dict[str, bytes]) -> float:
    """Return the part of all dense multiply-accumulates of a slice and a sentence that is INT8, 0 to 1.

    Args:
        graphs: graph name -> serialized graph.
    """
    int8 = total = 0
    for data in graphs.values():
        model = read_graph(data)
        layers = set(int8_layers(model))
        total += dense_macs(model)
        int8 += sum(layer.macs for layer in dense_layers(model) if layer.name in layers)
    return int8 / total
