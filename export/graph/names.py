"""Names that people know: a dense layer's node is called after the module that it computes.

The exporter numbers nodes (``node_Conv_1274``), differently for float32 and float16.  Recipes of INT8 layers, reports
of plans and whoever opens a graph want one name for one layer.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx

SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note: modules from the outermost in, then PyTorch's own node
DENSE = ("Conv", "MatMul", "Gemm")


def name_dense_nodes(model: onnx.ModelProto) -> None:
    """Rename convolutions and matrix products, in place: ``encoder.stages.2.blocks.4.mlp.expand``.

    To be called before the exporter's notes are stripped.  A product of two activations, or one of several in a module,
    is called after the module and PyTorch's node: ``decoder.inside.scaled_dot_product_attention``.
    """
    nodes = [node for node in model.graph.node if node.op_type in DENSE]
    modules = [_scopes(node) for node in nodes]
    several = Counter(module for module, _ in modules)
    taken: Counter[str] = Counter()
    for node, (module, step) in zip(nodes, modules, strict=True):
        weight = next((name.removesuffix(".weight") for name in node.input if name.endswith(".weight")), None)
        name = weight or (module if module and several[module] == 1 else ".".join(filter(None, (module, step))))
        name = name.removeprefix("model.")
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}.{taken[name]}"


def _scopes(node: onnx.NodeProto) -> tuple[str, str]:
    """The innermost module and PyTorch's node that an ONNX node comes from."""
    notes = {item.key: item.value for item in node.metadata_props}
    scopes = ast.literal_eval(notes[SCOPES]) if SCOPES in notes else ["", node.name]
    return (scopes[-2] if len(scopes) > 1 else ""), scopes[-1]
