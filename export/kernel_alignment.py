"""Where the tensors of kernel nodes begin in memory: at multiples of 16 bytes, as the kernels' code assumes.

TensorRT aligns what it allocates.  But a part of a tensor may become a view into it, and a part of a Concat may be
written where it belongs.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lsms_rt.errors import EngineError
from lsms_rt.kernels.plugins import DOMAIN

# Bytes; the compiler was told of it (``tt.divisibility``).
ALIGNMENT = 16
# Operations that may become a view of their first input: of a part of it, or of all.
PARTS = ("Slice", "Split", "Gather")
VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


def check_alignment(model: onnx.ModelProto) -> None:
    """Check every input and output of the kernel nodes of a graph.

    Raises:
        EngineError: a tensor may begin elsewhere, or its place is not known.
    """
    places, nodes = _Places(model.graph), model.graph.node
    producers = {name: node for node in nodes for name in node.output}
    kernels = [node for node in nodes if node.domain == DOMAIN]
    # What a kernel reads may be a part of what is before it; that, and what a kernel writes, a part of what is after.
    reached = [name for node in kernels for name in (*node.input, *node.output)]
    for name in reached:
        source = producers.get(name)
        if source is not None and source.op_type in PARTS:
            places.check(source, source.input[0])
        if source is not None and source.op_type in (*PARTS, *VIEWS) and source.input[0] not in reached:
            reached.append(source.input[0])
    for name in reached:
        for node in nodes:
            if node.op_type == "Concat" and name in node.input:
                places.check(node, node.output[0])
            follows = node.op_type == "Concat" or (node.op_type in VIEWS and name == node.input[0])
            if follows and name in node.input and node.output[0] not in reached:
                reached.append(node.output[0])


class _Places:
    """Where parts of the tensors of a graph begin."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._values = {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}

    def check(self, node: onnx.NodeProto, whole: str) -> None:
        step = self._step(node, whole)
        if not step or step % ALIGNMENT:
            raise EngineError(
                f"a tensor of a kernel is a part of another ({node.op_type}), and may begin at any multiple of "
                f"{step} bytes, not of {ALIGNMENT}; use --kernels stock"
            )

    def _step(self, node: onnx.NodeProto, whole: str) -> int:
        """Return the bytes between the places in ``whole`` where a part may begin; 0 if they are not known."""
        axes = [next((a.i for a in node.attribute if a.name == "axis"), 0)]
        if node.op_type == "Slice":
            given = self._constants.get(node.input[3]) if len(node.input) > 3 else None
            axes = [] if given is None else numpy_helper.to_array(given).tolist()
        if whole not in self._values or not axes:
            return 0
        kind = self._values[whole].type.tensor_type
        # A size that is not known is 0; the innermost axis has the smallest steps.
        sizes = [dim.dim_value for dim in kind.shape.dim]
        inner = sizes[1 + max(axis % len(sizes) for axis in axes) :]
        return helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize * int(np.prod(inner))
