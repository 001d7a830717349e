"""What one core can do at most: the roof of a roofline, measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

SIDE = 1024  # of the product: its matrices are in the L2 cache by blocks, as a good product has them
COPIED = 64 << 20  # floats: eight times the largest L3 cache of its kind
REPEATS = 7


@dataclass(frozen=True)
class Ceilings:
    """Operations (a multiply-add is two) and bytes in a second, of one thread; the best of ``REPEATS``."""

    flops: float
    bytes: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def measure_ceilings() -> Ceilings:
    """A product of ``SIDE`` in ONNX Runtime, and a copy of memory that no cache holds."""
    source, target = np.ones(COPIED, np.float32), np.zeros(COPIED, np.float32)
    product = _product()
    return Ceilings(
        flops=2 * SIDE**3 / _least(product), bytes=2 * source.nbytes / _least(lambda: np.copyto(target, source))
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


def _least(run: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)
