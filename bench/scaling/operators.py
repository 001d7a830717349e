"""The time of one slice by kind of operator: ONNX Runtime's profile of the image graph on one thread."""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP, RUNS = 2, 10
FLOAT_BYTES = 4
Shape = tuple[int, ...]
_KINDS = {
    "matrix product": ("MatMul", "FusedMatMul", "Gemm", "FusedGemm"),
    "GELU": ("Gelu", "BiasGelu", "FastGelu", "QuickGelu"),
    "softmax": ("Softmax",),
    "layout": (
        "Transpose", "ReorderInput", "ReorderOutput", "Concat", "Split", "Slice", "Reshape", "Squeeze", "Unsqueeze",
        "Gather", "Pad", "Expand", "Flatten", "Identity",
    ),
    "resampling": ("Upsample", "Resize"),
}  # fmt: skip
OTHERS = "sums, norms, other"


@dataclass(frozen=True)
class Operators:
    """All operators of one kind in one slice.

    Attributes:
        kind: The kind, as in the table.
        count: Number of operators.
        ms: The sum of their times.
        flops: Operations of convolutions and products (a multiply-add is two); 0 for other kinds.
        bytes: Inputs and outputs of every operator, whether or not a cache holds them.
    """

    kind: str
    count: int
    ms: float
    flops: float
    bytes: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def profile(graph: Path | bytes, runs: int = RUNS) -> list[Operators]:
    """Profile a graph with batch 1; return the kinds by time: the sum of their operators' medians over ``runs``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling, options.log_severity_level = 1, True, 3
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        feeds = {
            value.name: rng.normal(size=[n if isinstance(n, int) else 1 for n in value.shape]).astype(np.float32)
            for value in session.get_inputs()
        }
        feeds["mask"] = np.ones_like(feeds["mask"])
        for _ in range(WARM_UP + runs):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    return sum_up(events, runs)


def sum_up(events: list[dict[str, Any]], runs: int) -> list[Operators]:
    """Sum the events of a profile by kind, without those of warm-up runs."""
    nodes: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            nodes[event["args"]["node_index"]].append(event)
    totals: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for runs_of_node in nodes.values():
        arguments = runs_of_node[-1]["args"]
        inputs, outputs = (_shapes(arguments[name]) for name in ("input_type_shape", "output_type_shape"))
        operator = arguments["op_name"]
        total = totals[kind_of(operator, inputs)]
        total[0] += 1
        total[1] += float(np.median([event["dur"] for event in runs_of_node[-runs:]])) / 1000
        total[2] += flops_of(operator, inputs, outputs)
        total[3] += FLOAT_BYTES * sum(math.prod(shape) for shape in (*inputs, *outputs))
    rows = [Operators(kind, int(count), ms, flops, size) for kind, (count, ms, flops, size) in totals.items()]
    return sorted(rows, key=lambda row: -row.ms)


def kind_of(operator: str, inputs: list[Shape]) -> str:
    """Return the kind of an operator, as in the table."""
    if operator in ("Conv", "FusedConv"):
        weight = inputs[1]
        if weight[1] == 1 and inputs[0][1] > 1:
            return "depthwise convolution"
        return "1x1 convolution" if math.prod(weight[2:]) == 1 else "dense convolution"
    return next((kind for kind, names in _KINDS.items() if operator in names), OTHERS)


def flops_of(operator: str, inputs: list[Shape], outputs: list[Shape]) -> float:
    """Count the operations of convolutions and products; 0 for others."""
    if operator in ("Conv", "FusedConv"):
        return 2.0 * math.prod(outputs[0]) * math.prod(inputs[1][1:])
    if operator in _KINDS["matrix product"]:
        a, rows = inputs[0], outputs[0][-2]
        return 2.0 * math.prod(outputs[0]) * (a[-1] if a[-2] == rows else a[-2])
    return 0.0


def _shapes(tensors: list[dict[str, list[int]]]) -> list[Shape]:
    return [tuple(shape) for tensor in tensors for shape in tensor.values()]
