"""The kernels as nodes of a graph, with their plain twins as bodies; bodies run on ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from fake_plugins import DTYPES, FakePlugins, compiled
from onnx import TensorProto, helper, numpy_helper

from lsms_rt import kernels
from lsms_rt.engine.tensorrt.variant import RTX
from lsms_rt.errors import EngineError
from lsms_rt.export import kernel_nodes
from lsms_rt.export.kernel_nodes import DOMAIN, body, name_nodes, with_plugins, without_bodies
from lsms_rt.export.onnx_export import export_graphs
from lsms_rt.export.tensorrt import PlanOptions, build_plan
from lsms_rt.kernels import plugins, registry
from lsms_rt.kernels.shape import Shape, stage_shapes
from lsms_rt.kernels.tensors import dtype_of, is_batched, size_of
from lsms_rt.kernels.test_data import block_tensors, typed
from lsms_rt.model import LSMS, TextConfig, preset

TYPES = {"fp16": TensorProto.FLOAT16, "fp32": TensorProto.FLOAT}
BODY_SHAPE = Shape(32, 8, 8)
DEPTHS = (1, 2, 1, 1)


@pytest.fixture(scope="module")
def bodies() -> dict[ModuleType, onnx.FunctionProto]:
    """The body of every kernel, exported once."""
    return {m: body(plugins.plugin_name(m, BODY_SHAPE), m, BODY_SHAPE) for m in registry.FP16_MODULES}


def graph_of(bodies: dict[ModuleType, onnx.FunctionProto], modules: list[ModuleType], path: Path) -> Path:
    """Write a graph with a node for every module; a tensor is ``MODULE.NAME``, and weights are constants."""
    tensors = block_tensors(BODY_SHAPE, 3)
    nodes, feeds, results, constants = [], [], [], []

    def value(module: ModuleType, tensor: str, size: tuple[int, ...]) -> onnx.ValueInfoProto:
        dims = ["b", *size[1:]] if is_batched(tensor) else list(size)
        return helper.make_tensor_value_info(full(module, tensor), TYPES[dtype_of(tensor, BODY_SHAPE)], dims)

    for module in modules:
        inputs, outputs = registry.signature(module, BODY_SHAPE)
        names = [[full(module, tensor) for tensor in group] for group in (inputs, outputs)]
        nodes.append(helper.make_node(bodies[module].name, *names, domain=DOMAIN))
        feeds += [value(module, tensor, tuple(tensors[tensor].shape)) for tensor in inputs if is_batched(tensor)]
        results += [value(module, tensor, size_of(tensor, BODY_SHAPE, 3)) for tensor in outputs]
        constants += [
            numpy_helper.from_array(typed(tensor, tensors[tensor], BODY_SHAPE).numpy(), full(module, tensor))
            for tensor in inputs
            if not is_batched(tensor)
        ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", feeds, results, constants), functions=[bodies[module] for module in modules],
        opset_imports=opsets, ir_version=10,
    )  # fmt: skip
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def full(module: ModuleType, tensor: str) -> str:
    return f"{registry.name(module)}.{tensor}"


@pytest.mark.slow
@pytest.mark.parametrize("module", registry.FP16_MODULES, ids=registry.name)
def test_a_body_is_the_plain_twin(
    module: ModuleType, bodies: dict[ModuleType, onnx.FunctionProto], tmp_path: Path
) -> None:
    """On ONNX Runtime, also for batches other than the exported one."""
    onnxruntime = pytest.importorskip("onnxruntime")
    inputs, outputs = registry.signature(module, BODY_SHAPE)
    tensors = block_tensors(BODY_SHAPE, 3)
    path = graph_of(bodies, [module], tmp_path / "node.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = registry.twin(module, BODY_SHAPE, tensors)
    for batch in (3, 1):
        feeds = {full(module, n): typed(n, tensors[n], BODY_SHAPE).numpy()[:batch] for n in inputs if is_batched(n)}
        results = session.run([full(module, tensor) for tensor in outputs], feeds)
        for tensor, result in zip(outputs, results, strict=True):
            scale = float(expected[tensor].abs().max())
            error = np.abs(result.astype(np.float64) - expected[tensor].numpy()[:batch]).max() / scale
            # fp16: one or two roundings to 11 bits.
            assert error < 4e-3, (tensor, error)


@pytest.mark.slow
def test_tensorrt_for_rtx_builds_all_bodies(bodies: dict[ModuleType, onnx.FunctionProto], tmp_path: Path) -> None:
    """In one plan, since each takes its time to start; a layer of every body is in it."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'lsms-rt[dev]' on Linux x86_64")
    path = graph_of(bodies, list(bodies), tmp_path / "all.onnx")
    _, report = build_plan(RTX, path, (1, 2, 4), PlanOptions())
    assert report["summary"]["layers"] >= len(bodies)


@pytest.fixture(scope="module")
def kernel_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image graph of a small model whose blocks are our kernels, two in one stage; exported once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "missing", lambda: None)
        torch.manual_seed(0)
        text = TextConfig(vocab_size=50, hidden_size=32, layers=1, heads=2, intermediate_size=64)
        model = LSMS(preset("tiny", depths=DEPTHS, image_size=64, text=text), "plugins").half().eval()
        _, path = export_graphs(model, tmp_path_factory.mktemp("graph"), kernel_nodes.translations())
    return path


@pytest.mark.slow
def test_every_launch_of_every_block_is_a_node(kernel_graph: Path) -> None:
    model = onnx.load(kernel_graph)
    found = name_nodes(model)
    stages = stage_shapes("tiny", 64)
    folds = (registry.fold_keys, registry.fold_values)
    # A kernel that sees no tokens is one for all numbers of them.
    expected = {(m, s) for shapes in zip(stages, stage_shapes("tiny", 64, tokens=64), strict=True)
                for m in registry.chain(shapes[0]) if m not in folds
                for s in [shapes["T" in plugins.launch_of(m, shapes[0]).constants]]}  # fmt: skip
    assert set(found.values()) >= expected
    assert {s.tokens for m, s in found.values() if m in folds} == {64}
    assert {name: plugins.parse_plugin_name(name) for name in found} == found
    nodes = [node for node in model.graph.node if node.domain == DOMAIN]
    assert len(nodes) == sum(d * len(registry.chain(s)) for d, s in zip(DEPTHS, stages, strict=True))
    for node in nodes:
        module, shape = found[node.op_type]
        inputs, outputs = registry.signature(module, shape)
        assert (len(node.input), len(node.output)) == (len(inputs), len(outputs))
        assert not node.attribute
    stripped = without_bodies(model)
    assert not stripped.functions
    attributes = {a.name for n in stripped.graph.node if n.domain == DOMAIN for a in n.attribute}
    assert attributes == {"plugin_namespace", "plugin_version", "aot"}


@pytest.mark.slow
def test_a_graph_for_plugins(kernel_graph: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = onnx.load(kernel_graph)
    named = name_nodes(model)
    path = tmp_path / "image.onnx"
    onnx.save(model, path)
    trtp = FakePlugins()
    monkeypatch.setattr(kernel_nodes.importlib, "import_module", lambda name: {"tensorrt.plugin": trtp}[name])
    library = SimpleNamespace(__name__="tensorrt", DataType=DTYPES)
    made = with_plugins(library, path, "sm_90", compiled())
    assert made.name == "image.plugins.onnx"
    assert set(trtp.implementations) == set(named)
    trtp.op = SimpleNamespace(lsms_rt=SimpleNamespace())
    with pytest.raises(EngineError, match=r"cannot be plugins for sm_90: .*spills 8 B.*use --kernels stock"):
        with_plugins(library, path, "sm_90", compiled(spills=8))
    monkeypatch.setattr(plugins, "sources", lambda: "changed")
    with pytest.raises(EngineError, match="was made from different kernels"):
        with_plugins(library, path, "sm_90", compiled())
