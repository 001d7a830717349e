"""MLPs split by channels, and merged again."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from lsms_rt.data import demo_engine
from lsms_rt.export.graph import channel_split
from lsms_rt.export.graph.channel_split import join, split
from lsms_rt.export.graph.layers import dense_layers, read_graph, shapes_of


@pytest.fixture(scope="module")
def whole() -> onnx.ModelProto:
    return read_graph((demo_engine() / "image.onnx").read_bytes())


@pytest.fixture
def parts(whole: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    # At 256x256, no map is large enough to be split by default.
    monkeypatch.setattr(channel_split, "PART_BYTES", 1 << 20)
    model = onnx.ModelProto()
    model.CopyFrom(whole)
    # The three blocks of stages 1 (4 MB) and 2 (2 MB).
    assert split(model, shapes_of(model)) == 6
    return model


def answers(model: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feeds = {
        value.name: rng.normal(size=[n if isinstance(n, int) else 2 for n in value.shape]).astype(np.float32)
        for value in session.get_inputs()
    }
    feeds["mask"][:] = 1
    return session.run(None, feeds)[0]


@pytest.fixture(scope="module")
def expected(whole: onnx.ModelProto) -> np.ndarray:
    return answers(whole)


def test_parts_compute_the_same(expected: np.ndarray, parts: onnx.ModelProto) -> None:
    onnx.checker.check_model(parts)
    assert sum(node.name.endswith(".mlp.expand.part3") for node in parts.graph.node) == 3
    # The float32 sums have another order.
    np.testing.assert_allclose(answers(parts), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_parts_cost_the_same_multiplications(whole: onnx.ModelProto, parts: onnx.ModelProto) -> None:
    assert sum(layer.macs for layer in dense_layers(parts)) == sum(layer.macs for layer in dense_layers(whole))


def test_join_undoes_split(whole: onnx.ModelProto, expected: np.ndarray, parts: onnx.ModelProto) -> None:
    join(parts)
    assert [node.name for node in parts.graph.node] == [node.name for node in whole.graph.node]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer}
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in parts.graph.initializer}
    assert found.keys() == constants.keys()
    for name, value in constants.items():
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(answers(parts), expected)


def test_a_graph_without_parts_is_not_changed(whole: onnx.ModelProto) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(whole)
    assert split(model, shapes_of(model)) == 0
    join(model)
    assert model == whole
