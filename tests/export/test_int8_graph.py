"""Dense layers of a graph, the ranges of their inputs, and INT8 nodes around what they multiply."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lsms_rt.calibration.options import METHODS
from lsms_rt.calibration.ranges import BINS, PERCENTILE, measure_ranges
from lsms_rt.export.graph.layers import dense_layers, dense_macs, read_graph
from lsms_rt.export.graph.passes import store_as_fp16
from lsms_rt.export.graph.qdq import LEVELS, int8_layers, macs_share, quantize, weight_steps

RNG = np.random.default_rng(0)
WEIGHTS = {
    "dense.weight": RNG.normal(0, 0.3, (12, 8, 3, 3)),
    "strip.weight": RNG.normal(0, 0.3, (12, 1, 1, 7)),
    "point.weight": RNG.normal(0, 0.3, (12, 12, 1, 1)),
    # In the layout of PyTorch.
    "linear.weight": RNG.normal(0, 0.3, (20, 12)),
}
# An unused channel.
WEIGHTS["point.weight"][3] = 0


def network(dtype: type = np.float32, stored_in_half: bool = False) -> onnx.ModelProto:
    """x (B, 8, 10, 10): dense 3x3 -> depthwise 1x7 -> 1x1 on it, + residual -> tokens times a matrix, and attention."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Conv", ["x", "dense.weight"], ["a"], name="dense", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "strip.weight"], ["s"], name="strip", group=12, pads=[0, 3, 0, 3]),
        helper.make_node("Conv", ["s", "point.weight", "bias"], ["p"], name="point"),
        helper.make_node("Add", ["p", "s"], ["r"], name="residual"),
        helper.make_node("Reshape", ["r", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("Transpose", ["linear.weight"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["tokens", "turned"], ["m"], name="linear"),
        helper.make_node("Transpose", ["m"], ["mt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["m", "mt"], ["y"], name="attention"),
    ]
    tensors = [numpy_helper.from_array(value.astype(dtype), name) for name, value in WEIGHTS.items()]
    tensors.append(numpy_helper.from_array(np.linspace(-1, 1, 12).astype(dtype), "bias"))
    tensors.append(numpy_helper.from_array(np.array([0, 12, 100]), "shape"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["batch", 8, 10, 10])],
        [helper.make_tensor_value_info("y", kind, ["batch", 100, 100])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if stored_in_half:
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                tensor.CopyFrom(
                    numpy_helper.from_array(
                        numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32), tensor.name
                    )
                )
        assert store_as_fp16(model) == 4
    onnx.checker.check_model(model, full_check=True)
    return read_graph(model.SerializeToString())


def run(model: onnx.ModelProto, x: np.ndarray, optimized: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    result: np.ndarray = session.run(None, {"x": x})[0]
    return result


X = RNG.normal(0, 1, (2, 8, 10, 10)).astype(np.float32)


@pytest.mark.parametrize("stored", [False, True])
def test_dense_layers_and_their_macs(stored: bool) -> None:
    model = network(stored_in_half=stored)
    layers = {layer.name: layer for layer in dense_layers(model)}
    # Neither the strip nor attention is in it.
    assert list(layers) == ["dense", "point", "linear"]
    macs = {"dense": 12 * 100 * 8 * 9, "point": 12 * 100 * 12, "linear": 100 * 12 * 20}
    assert {name: layer.macs for name, layer in layers.items()} == macs
    assert dense_macs(model) == sum(macs.values()) + 100 * 100 * 20
    assert layers["linear"].axis == 1 and layers["dense"].axis == 0
    assert not [node for node in model.graph.node if node.op_type == "Cast"]


def test_the_presence_head_stays_in_floating_point() -> None:
    model = network()
    next(node for node in model.graph.node if node.name == "point").name = "presence.embed"
    assert [layer.name for layer in dense_layers(model)] == ["dense", "linear"]


def test_reading_changes_no_number() -> None:
    stored, plain = network(stored_in_half=True), network()
    for tensor in plain.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    np.testing.assert_array_equal(run(stored, X, optimized=False), run(plain, X, optimized=False))


def rounded(x: np.ndarray, limit: float) -> np.ndarray:
    step = np.float32(limit / LEVELS)
    return np.clip(np.rint(x / step), -128, 127).astype(np.float32) * step


def test_an_int8_layer_by_hand() -> None:
    """One layer, against the arithmetic written out; all others compute as before."""
    model = network()
    quantize(model, {"point": 2.5})
    assert int8_layers(model) == ["point"]
    # An INT8 graph is read like any other.
    assert dense_layers(model)[0] == dense_layers(network())[0]
    assert dense_macs(model) == dense_macs(network())
    data = model.SerializeToString()
    assert macs_share({"image": data}) == 12 * 100 * 12 / dense_macs(model)
    onnx.checker.check_model(model, full_check=True)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("s", "p", "r"))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    s, p, r = onnxruntime.InferenceSession(watched.SerializeToString(), options).run(["s", "p", "r"], {"x": X})
    weight = WEIGHTS["point.weight"].astype(np.float32)[:, :, 0, 0]
    steps = weight_steps(weight, 0)
    expected = np.einsum("oc,bchw->bohw", np.rint(weight / steps[:, None]) * steps[:, None], rounded(s, 2.5))
    expected += np.linspace(-1, 1, 12, dtype=np.float32)[:, None, None]
    # Sums are in another order.
    np.testing.assert_allclose(p, expected, rtol=1e-5, atol=1e-5)
    # The residual sees the value itself, not the rounded one.
    np.testing.assert_array_equal(r, p + s)


def test_weights_are_symmetric_int8_with_one_scale_per_channel() -> None:
    model = network()
    quantize(model, {"dense": 3.0, "linear": 4.0})
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, channels in (("dense", 12), ("linear", 20)):
        values, scale = tensors[f"{name}.weight.int8"], tensors[f"{name}.weight.scale"]
        assert values.dtype == np.int8 and scale.shape == (channels,)
        assert values.min() >= -LEVELS and np.abs(values).max() == LEVELS
        assert not tensors[f"{name}.weight.zero"].any()
    # Biases stay in floating point.
    assert "dense.weight" not in tensors and tensors["bias"].dtype == np.float32
    assert all(not value.any() for name, value in tensors.items() if name.endswith(".zero"))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_whole_network_in_int8(dtype: type) -> None:
    """Finite, close and not equal: ranges that hold everything cost about a hundredth of the result."""
    model, plain = network(dtype), network(dtype)
    x = X.astype(dtype)
    reach = {"dense": float(np.abs(X).max()), "point": 6.0, "linear": 9.0}
    quantize(model, reach)
    scale_type = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    scales = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".scale")]
    assert len(scales) == 6 and all(tensor.data_type == scale_type for tensor in scales)
    expected, found = (run(m, x).astype(np.float64) for m in (plain, model))
    error = np.sqrt(np.square(found - expected).mean() / np.square(expected).mean())
    assert 1e-4 < error < 0.05


def test_a_channel_of_zeros_and_tiny_weights_in_half() -> None:
    weight = np.array([[0.0, 0.0], [1e-7, -1e-7], [1.0, 0.5]], np.float16)
    steps = weight_steps(weight, 0)
    assert steps.dtype == np.float16 and (steps > 0).all()
    assert np.isfinite(weight.astype(np.float32) / steps.astype(np.float32)[:, None]).all()


def test_bad_ranges_are_rejected() -> None:
    with pytest.raises(KeyError, match="nowhere"):
        quantize(network(), {"nowhere": 1.0})
    for limit in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(
            ValueError, match=r"layer point: the range of its input is .*, not a positive number; calibrate again"
        ):
            quantize(network(), {"point": limit})


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[pytest.mark.slow] if name == "entropy" else []) for name in METHODS]
)
def test_ranges(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of known inputs: the maximum, or somewhat less; and the same numbers every time."""
    # A quarter of the time of as many bins as a calibration has.
    monkeypatch.setitem(BINS, "entropy", 256)
    model = network()
    layers = dense_layers(model)
    feeds = [{"x": RNG.normal(0, s, (1, 8, 10, 10)).astype(np.float32)} for s in (1, 2, 0.5)]
    # One negative outlier.
    feeds[1]["x"][0, 0, 0, 0] = -40
    seen: list[int] = []
    found = measure_ranges(model, layers, feeds, method, lambda: seen.append(1))
    assert list(found) == ["dense", "point", "linear"] and len(seen) == 3
    assert found == measure_ranges(model, layers, feeds, method)
    if method == "minmax":
        assert found["dense"] == 40
    else:
        assert 1 < found["dense"] < 40


def test_a_percentile_never_clips_more_than_its_share() -> None:
    """Also of a tensor that is nearly always nearly zero, whose histogram has all but a few values in one bin."""
    layers = [layer for layer in dense_layers(network()) if layer.name == "dense"]
    for bulk in (1.0, 1e-3):
        x = RNG.normal(0, bulk, (25, 8, 100, 10)).astype(np.float32)
        x[0, 0, 0, :5] = 50
        x[0, 0, 1, 0] = 0
        feeds = [{"x": part} for part in x.reshape(-1, 1, 8, 10, 10)]
        limit = measure_ranges(network(), layers, feeds, "percentile")["dense"]
        clipped = (np.abs(x) > limit).mean()
        assert clipped <= 1 - PERCENTILE / 100 + 1e-6
        assert np.quantile(np.abs(x), PERCENTILE / 100) <= limit < 50
        # The limit is within a bin or two of the bulk.
        assert limit < 3 * 4 * bulk + 50 / 2048 * 2


def test_ranges_of_a_dead_tensor_and_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    model = network()
    layers = dense_layers(model)[:1]
    assert measure_ranges(model, layers, [{"x": np.zeros((1, 8, 10, 10), np.float32)}], "minmax") == {"dense": 1.0}
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="there are no examples to calibrate on"):
        measure_ranges(model, layers, [], "minmax")
    with pytest.raises(ValueError, match="choose from minmax, percentile, entropy"):
        measure_ranges(model, layers, [{"x": X}], "guess")
