"""Measure the peak of one core: the roof of a roofline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from lsms_rt.bench.timing import seconds

# Side of the matrices of the product, which go through the L2 cache in blocks, as in any good product.
SIDE = 1024
# Floats to copy: eight times the largest L3 cache of its kind.
COPIED = 64 << 20
REPEATS = 7


@dataclass(frozen=True)
class Ceilings:
    """Operations (a multiply-add is two) and bytes per second of one thread, the best of ``REPEATS``."""

    flops: float
    bytes: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def measure_ceilings() -> Ceilings:
    """Measure a matrix product in ONNX Runtime, and a copy of memory that fits no cache."""
    source, target = np.ones(COPIED, np.float32), np.zeros(COPIED, np.float32)
    product = _product()
    return Ceilings(
        flops=2 * SIDE**3 / _shortest(product),
        bytes=2 * source.nbytes / _shortest(lambda: np.copyto(target, source)),
    )


def _product() -> Callable[[], object]:
    import onnxruntime
    from onnx import TensorProto, helper

    shape = [SIDE, SIDE]
    a, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "ac")
    rng = np.random.default_rng(0)
    weight = rng.normal(size=shape).astype(np.float32)
    b = helper.make_tensor("b", TensorProto.FLOAT, shape, weight.tobytes(), raw=True)
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [a], [c], [b])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": weight})


def _shortest(run: Callable[[], object]) -> float:
    return min(seconds(run) for _ in range(REPEATS))
