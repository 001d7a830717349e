"""The time of one slice by kind of operator and precision: OpenVINO's profile of the image graph on one thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .operators import OTHERS, RUNS, WARM_UP

_KINDS = {
    "matrix product": ("MatMul", "FullyConnected"),
    # Element-wise operations in one kernel, GELU among them.
    "fused sums, GELU": ("Subgraph", "Add", "Multiply", "Eltwise", "Gelu"),
    "softmax": ("Softmax",),
    "layout": (
        "Reorder", "Transpose", "Concat", "Split", "VariadicSplit", "StridedSlice", "Slice", "Reshape", "Gather",
        "Pad", "Broadcast", "DepthToSpace", "ShapeOf",
    ),
    "resampling": ("Interpolate",),
    "rounding to INT8": ("FakeQuantize", "Quantize", "Convert"),
}  # fmt: skip


@dataclass(frozen=True)
class ProfiledOperators:
    """All operators of one kind in one precision, in one slice.

    Attributes:
        kind: The kind, as in the table.
        precision: OpenVINO's name of the precision they are computed in: "f32", "bf16", "i8", "u8" ...
        count: Number of operators.
        ms: The sum of their times.
    """

    kind: str
    precision: str
    count: int
    ms: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def profile_openvino(graph: Path, hint: str, runs: int = RUNS) -> list[ProfiledOperators]:
    """Profile a graph with batch 1; return the kinds by time.

    Args:
        graph: The ONNX file.
        hint: OpenVINO's name of the precision that floating-point layers are computed in: "f32" or "bf16".
        runs: Runs, of which each operator's median counts.
    """
    from lsms_rt.engine.openvino import open_core

    core = open_core()
    model = core.read_model(graph)
    model.reshape({value.any_name: [1, *list(value.partial_shape)[1:]] for value in model.inputs})
    settings = {"INFERENCE_PRECISION_HINT": hint, "PERF_COUNT": True, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    rng = np.random.default_rng(0)
    feeds = {value.any_name: rng.normal(size=list(value.shape)).astype(np.float32) for value in model.inputs}
    feeds["mask"] = np.ones_like(feeds["mask"])
    profiles = []
    for _ in range(WARM_UP + runs):
        request.infer(feeds)
        profiles.append(request.get_profiling_info())
    return sum_up(profiles[WARM_UP:])


def sum_up(profiles: Iterable[Iterable[Any]]) -> list[ProfiledOperators]:
    """Sum the medians of the operators over several profiles by kind and precision."""
    seen: dict[str, tuple[tuple[str, str], list[float]]] = {}
    for profile in profiles:
        for node in profile:
            if node.status == node.Status.EXECUTED:
                key = (kind_of(node.node_type, node.exec_type), node.exec_type.rpartition("_")[2])
                seen.setdefault(node.node_name, (key, []))[1].append(1000 * node.real_time.total_seconds())
    totals: dict[tuple[str, str], list[float]] = defaultdict(list)
    for key, times in seen.values():
        totals[key].append(float(np.median(times)))
    rows = [ProfiledOperators(*key, len(times), sum(times)) for key, times in totals.items()]
    return sorted(rows, key=lambda row: -row.ms)


def kind_of(node_type: str, exec_type: str) -> str:
    """Return the kind of an operator, as in the table, by OpenVINO's names of the operator and of its kernel."""
    if node_type == "GroupConvolution":
        return "depthwise convolution"
    if node_type == "Convolution":
        return "1x1 convolution" if "_1x1_" in exec_type else "dense convolution"
    return next((kind for kind, names in _KINDS.items() if node_type in names), OTHERS)
