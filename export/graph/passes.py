"""Small passes over an exported graph: names of layers, storage, and the record of what an fp16 graph keeps in fp32."""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, numpy_helper

# The exporter's note on a node: its modules from the outermost in, then PyTorch's own node.
SCOPES = "pkg.torch.onnx.name_scopes"
DENSE = ("Conv", "MatMul", "Gemm")
# Elements; a smaller initializer is not worth a Cast node.
MIN_ELEMENTS = 64
WHY_FP32 = (
    "sums over all pixels and squares overflow float16 beyond 65504, and their differences cancel: means and variances "
    "of the InstanceNorms, the softmax over the tokens and its second moments; sums inside LayerNormalization and "
    "convolutions are float32 in every backend"
)
_ARITHMETIC = frozenset(
    ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Softmax", "MatMul", "Conv", "ReduceMean", "ReduceSum", "Gelu",
     "LayerNormalization", "BatchNormalization", "Tanh", "Resize")
)  # fmt: skip


def name_dense_nodes(model: onnx.ModelProto) -> None:
    """Name convolutions and matrix products after their modules, in place: ``encoder.stages.2.blocks.4.mlp.expand``.

    The exporter numbers nodes (``node_Conv_1274``), differently in float32 and float16; INT8 recipes and reports of
    plans need one name for one layer.  Call this before :func:`strip_metadata`, since the names are in the exporter's
    notes.  A product of two activations, or one of several in a module, is named after the module and PyTorch's node:
    ``decoder.inside.scaled_dot_product_attention``.
    """
    nodes = [node for node in model.graph.node if node.op_type in DENSE]
    modules = [_scopes(node) for node in nodes]
    nodes_of = Counter(module for module, _ in modules)
    used: Counter[str] = Counter()
    for node, (module, step) in zip(nodes, modules, strict=True):
        weight = next((name.removesuffix(".weight") for name in node.input if name.endswith(".weight")), None)
        name = weight or (module if module and nodes_of[module] == 1 else ".".join(filter(None, (module, step))))
        name = name.removeprefix("model.")
        used[name] += 1
        node.name = name if used[name] == 1 else f"{name}.{used[name]}"


def _scopes(node: onnx.NodeProto) -> tuple[str, str]:
    """Return the innermost module and PyTorch's node that an ONNX node comes from."""
    notes = {item.key: item.value for item in node.metadata_props}
    scopes = ast.literal_eval(notes[SCOPES]) if SCOPES in notes else ["", node.name]
    return (scopes[-2] if len(scopes) > 1 else ""), scopes[-1]


def strip_metadata(model: onnx.ModelProto) -> None:
    """Strip the exporter's metadata, in place: stack traces with local paths."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def store_as_fp16(model: onnx.ModelProto) -> int:
    """Store float32 initializers as float16 followed by a Cast, in place, if every value survives the round trip.

    This halves a graph's size on disk without changing a number: the demo checkpoint is stored in fp16, so nearly all
    initializers qualify.  Runtimes fold the Cast when they load the graph.

    Returns:
        The number of initializers that are now stored as float16.
    """
    graph, casts = model.graph, []
    for position, tensor in enumerate(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or int(np.prod(tensor.dims)) < MIN_ELEMENTS:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        stored = f"{tensor.name}.fp16"
        casts.append(
            onnx.helper.make_node("Cast", [stored], [tensor.name], name=f"{stored}.cast", to=TensorProto.FLOAT)
        )
        graph.initializer[position].CopyFrom(numpy_helper.from_array(half, stored))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(casts)


def kept_in_fp32(model: onnx.ModelProto) -> dict[str, Any]:
    """Count what an fp16 graph computes in float32, for the manifest; read off the graph itself.

    Returns:
        "operators": number of float32 nodes by operator; "of": number of arithmetic nodes of either type.
    """
    # The bodies of kernel nodes are functions; they count too.
    whole = onnx.inliner.inline_local_functions(model) if model.functions else model
    inferred = onnx.shape_inference.infer_shapes(whole).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    arithmetic = [node for node in inferred.node if node.op_type in _ARITHMETIC]
    wide = Counter(node.op_type for node in arithmetic if types.get(node.output[0]) == TensorProto.FLOAT)
    return {"operators": dict(sorted(wide.items())), "of": len(arithmetic)}
