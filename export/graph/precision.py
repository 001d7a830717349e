"""What an fp16 graph keeps in float32, read off the graph itself: it stands in the manifest, with the reason."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx
import onnx.inliner
from onnx import TensorProto

WHY = (
    "sums over all pixels and squares overflow float16 beyond 65504, and their differences cancel: means and variances "
    "of the InstanceNorms, the softmax over the tokens and its second moments; sums inside LayerNormalization and "
    "convolutions are float32 in every backend"
)
_ARITHMETIC = frozenset(
    ("Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Softmax", "MatMul", "Conv", "ReduceMean", "ReduceSum", "Gelu",
     "LayerNormalization", "BatchNormalization", "Tanh", "Resize")
)  # fmt: skip


def kept_in_fp32(model: onnx.ModelProto) -> dict[str, Any]:
    """Operators that compute in float32, and how many there are, out of all arithmetic ones of either type."""
    whole = onnx.inliner.inline_local_functions(model) if model.functions else model  # the bodies of kernel nodes too
    inferred = onnx.shape_inference.infer_shapes(whole).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*inferred.value_info, *inferred.output)}
    wide: Counter[str] = Counter()
    all_of = 0
    for node in inferred.node:
        if node.op_type in _ARITHMETIC:
            all_of += 1
            if types.get(node.output[0]) == TensorProto.FLOAT:
                wide[node.op_type] += 1
    return {"operators": dict(sorted(wide.items())), "of": all_of}
