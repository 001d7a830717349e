"""Halve a graph's size on disk without changing a number in it, and leave out whose machine it was made on."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

LEAST = 64  # elements; smaller initializers are not worth a node


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, in place: stack traces with the paths of the machine that ran it."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def store_as_fp16(model: onnx.ModelProto) -> int:
    """Store float32 initializers as float16 followed by a Cast, in place, where every value survives the round trip.

    The demo checkpoint is stored in fp16, so nearly all do.  Runtimes fold the Cast when they load the graph.
    Returns how many initializers were stored so.
    """
    graph, casts = model.graph, []
    for position, tensor in enumerate(graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or int(np.prod(tensor.dims)) < LEAST:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        stored = f"{tensor.name}.fp16"
        casts.append(
            onnx.helper.make_node("Cast", [stored], [tensor.name], name=f"{stored}.cast", to=onnx.TensorProto.FLOAT)
        )
        graph.initializer[position].CopyFrom(numpy_helper.from_array(half, stored))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(casts)
