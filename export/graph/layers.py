"""Find the dense layers of an engine's graph, which can be INT8, and count their multiply-accumulates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .channel_split import join

# Operators on weights that are evaluated: they are due to how a graph is stored, not to what it computes.
_FOLDED = ("Cast", "Transpose", "Reshape", "Identity")


@dataclass(frozen=True)
class DenseLayer:
    """A dense 2-D convolution, or a product with a weight matrix.

    Attributes:
        name: name of its node, after the module (``encoder.stages.2.blocks.4.mlp.expand``).
        input: name of the input tensor.
        weight: name of the weight tensor.
        axis: the weight's axis of output channels.
        macs: multiply-accumulates of one slice (text graph: of one sentence).
    """

    name: str
    input: str
    weight: str
    axis: int
    macs: int


def read_graph(data: bytes) -> onnx.ModelProto:
    """Parse a graph and undo how it is stored: whole layers, and weights as plain initializers.

    Engines for a CPU have layers split into parts and weights in float16 behind a Cast, and exporters leave Transposes
    of large weights.

    Args:
        data: a serialized ONNX model.
    """
    model = onnx.load_from_string(data)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    users = _uses(graph)
    nodes = []
    for node in graph.node:
        folds = node.op_type in _FOLDED and all(name in constants for name in node.input)
        if not folds or constants[node.input[0]].data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            nodes.append(node)
            continue
        value = _evaluate(node, [numpy_helper.to_array(constants[name]) for name in node.input])
        constants[node.output[0]] = numpy_helper.from_array(np.ascontiguousarray(value), node.output[0])
        for name in node.input:
            users[name] -= 1
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend(tensor for name, tensor in constants.items() if users.get(name, 0) > 0)
    join(model)
    return model


# One logit of the presence head decides about the whole mask, and its work is a thousandth of the network's.
KEPT_MODULES = ("presence",)


def dense_layers(model: onnx.ModelProto) -> list[DenseLayer]:
    """List the layers that can be INT8, in the graph's order.

    Depthwise layers, products of two activations and layers of ``KEPT_MODULES`` cannot.
    """
    weights = _weights(model.graph)
    shapes = shapes_of(model)
    return [
        DenseLayer(node.name, node.input[0], node.input[1], axis, _macs(node, shapes, weights))
        for node, axis in dense_nodes(model.graph)
    ]


def dense_nodes(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Yield the node of every layer that can be INT8, and its weight's axis of output channels."""
    weights = _weights(graph)
    for node in graph.node:
        if node.name.startswith(KEPT_MODULES):
            continue
        if node.op_type == "Conv" and _groups(node) == 1 and len(weights.get(node.input[1], ())) == 4:
            yield node, 0
        elif node.op_type == "MatMul" and len(weights.get(node.input[1], ())) == 2:
            yield node, 1


def dense_macs(model: onnx.ModelProto) -> int:
    """Count the multiply-accumulates of one slice (text graph: of one sentence).

    Dense convolutions and all matrix products count, including attention's products of two activations.
    """
    weights = _weights(model.graph)
    shapes = shapes_of(model)
    dense = (node for node in model.graph.node if node.op_type in ("Conv", "MatMul") and _groups(node) == 1)
    return sum(_macs(node, shapes, weights) for node in dense)


def _weights(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of constants, including those that are stored as int8."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return shapes


def _macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], weights: dict[str, tuple[int, ...]]) -> int:
    """Multiply the number of output elements by the length of the sum that makes each of them."""
    output = int(np.prod(shapes[node.output[0]]))
    if node.op_type == "Conv":
        return output * int(np.prod(weights[node.input[1]][1:]))
    return output * (weights.get(node.input[0]) or shapes[node.input[0]])[-1]


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Infer the shapes of all tensors at batch 1; those that cannot be inferred are left out."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    # It has the symbolic batch.
    del whole.graph.value_info[:]
    for value in (*whole.graph.input, *whole.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = 1
    graph = onnx.shape_inference.infer_shapes(whole, data_prop=True).graph
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if all(d.HasField("dim_value") for d in value.type.tensor_type.shape.dim)
    }


def _groups(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _uses(graph: onnx.GraphProto) -> dict[str, int]:
    count = {value.name: 1 for value in graph.output}
    for name in (name for node in graph.node for name in node.input):
        count[name] = count.get(name, 0) + 1
    return count


def _evaluate(node: onnx.NodeProto, inputs: list[np.ndarray]) -> np.ndarray:
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Cast":
        return inputs[0].astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
    if node.op_type == "Transpose":
        return inputs[0].transpose(attributes.get("perm"))
    if node.op_type == "Reshape":
        return inputs[0].reshape([int(n) for n in inputs[1]])
    return inputs[0]


def by_name(layers: list[DenseLayer]) -> Iterator[tuple[str, DenseLayer]]:
    """Yield (name, layer), and check that names are unique: a recipe goes by them."""
    seen: set[str] = set()
    for layer in layers:
        assert layer.name not in seen, layer.name
        seen.add(layer.name)
        yield layer.name, layer
