"""INT8 layers in a graph: QuantizeLinear and DequantizeLinear around what a layer multiplies, as TensorRT requires.

Symmetric, zero points 0, weights stored as int8 with one scale per output channel, biases unchanged.  Only the selected
layers receive rounded values: ONNX Runtime's own quantizer would pass the rounded tensor to its other users too, to
residual sums and layers that were to stay unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .layers import by_name, dense_layers, dense_macs, read_graph

# Of either sign.  -128 is not used, so that a value and its negative are the same number of steps.
LEVELS = 127
# The smallest normal number of float16.  A tensor with this step never exceeds 0.008, where a coarser step loses next
# to nothing in the sums of such a network.
MIN_STEP = 2.0**-14


def quantize(model: onnx.ModelProto, ranges: Mapping[str, float]) -> None:
    """Make the layers named in ``ranges`` INT8, in place.

    Args:
        model: a graph from ``layers.read_graph``, in float32 or float16; the scales have the same type.
        ranges: layer -> the largest magnitude of its input; larger values are clipped.

    Raises:
        KeyError: the graph does not have a layer.
        ValueError: a range is not positive and finite.
    """
    layers = dict(by_name(dense_layers(model)))
    chosen = {name: layers[name] for name in ranges}
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    # One pair of nodes for layers that share an input and its range.
    steps: dict[tuple[str, float], str] = {}
    for node in graph.node:
        layer = chosen.get(node.name)
        if layer is not None:
            limit = float(ranges[layer.name])
            if not 0 < limit < np.inf:
                raise ValueError(f"layer {layer.name}: the range of its input is {limit}; calibrate again")
            weight = numpy_helper.to_array(constants[layer.weight])
            key = (layer.input, limit)
            if key not in steps:
                steps[key] = f"{layer.input}.int8.{len(steps)}"
                nodes += _rounded(graph, layer.input, steps[key], limit, weight.dtype)
            nodes.append(_weight(graph, node.name, weight, layer.axis))
            node.input[0], node.input[1] = steps[key], nodes[-1].output[0]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph)


def weight_steps(weight: np.ndarray, axis: int) -> np.ndarray:
    """Return the scale of every output channel, in the weight's own type, in which it is later multiplied."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    steps = np.abs(weight.astype(np.float32)).max(axis=others) / LEVELS
    # A channel of zeros needs some scale; in float16 a step may be subnormal, but not zero.
    min_step = np.finfo(weight.dtype).smallest_subnormal if weight.dtype == np.float16 else 1e-12
    scales: np.ndarray = np.maximum(steps, min_step).astype(weight.dtype)
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
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def int8_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers that multiply int8 numbers, read off the graph itself."""
    stored = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8}
    rounded = {
        node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored
    }
    return [node.name for node in model.graph.node if len(node.input) > 1 and node.input[1] in rounded]


def macs_share(graphs: dict[str, bytes]) -> float:
    """Return the INT8 share of all dense multiply-accumulates of a slice and a sentence, read off the graphs."""
    done = total = 0
    for data in graphs.values():
        model = read_graph(data)
        chosen = set(int8_layers(model))
        total += dense_macs(model)
        done += sum(layer.macs for layer in dense_layers(model) if layer.name in chosen)
    return done / total
