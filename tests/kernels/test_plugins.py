"""The kernels as nodes of a graph and as plugins of TensorRT, as far as a machine without either can tell.

Bodies run on ONNX Runtime; descriptions and launches are compared with the kernels' own launchers, over a stand-in for
``tensorrt.plugin`` that checks what the real one checks.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lsms_rt import kernels
from lsms_rt.engine.tensorrt.variant import RTX
from lsms_rt.errors import EngineError, InputError
from lsms_rt.export import kernel_nodes
from lsms_rt.export import plans as plans_module
from lsms_rt.export.build import BuildOptions
from lsms_rt.export.kernel_nodes import DOMAIN, body, name_nodes, with_plugins, without_bodies
from lsms_rt.export.onnx_export import export_graphs
from lsms_rt.export.tensorrt import PlanOptions, build_plan
from lsms_rt.kernels import plugins, registry
from lsms_rt.kernels.shape import Shape, stage_shapes
from lsms_rt.kernels.tensors import dtype_of, is_batched, size_of
from lsms_rt.kernels.test_data import block_tensors, typed
from lsms_rt.machine.gpu import Driver, Gpu
from lsms_rt.model import LSMS, TextConfig, preset

SHAPES = [shape for name in ("tiny", "base") for size in (224, 512) for shape in stage_shapes(name, size)]
TYPES = {"fp16": TensorProto.FLOAT16, "fp32": TensorProto.FLOAT}


# Nodes and their bodies


BODY_SHAPE = Shape(32, 8, 8)


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
    """The image graph of a small model whose blocks are our kernels; exported once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "missing", lambda: None)
        torch.manual_seed(0)
        text = TextConfig(vocab_size=50, hidden_size=32, layers=1, heads=2, intermediate_size=64)
        model = LSMS(preset("tiny", image_size=64, text=text), "triton").half().eval()
        _, path = export_graphs(model, tmp_path_factory.mktemp("graph"), kernel_nodes.translations())
    return path


@pytest.mark.slow
def test_every_launch_of_every_block_is_a_node(kernel_graph: Path) -> None:
    model = onnx.load(kernel_graph)
    found = name_nodes(model)
    stages = stage_shapes("tiny", 64)
    assert set(found.values()) >= {(m, s) for s in stages for m in registry.chain(s) if m not in
                                   (registry.fold_keys, registry.fold_values)}  # fmt: skip
    assert {name: plugins.parse_plugin_name(name) for name in found} == found
    nodes = [node for node in model.graph.node if node.domain == DOMAIN]
    depths = (3, 3, 5, 2)
    assert len(nodes) == sum(d * len(registry.chain(s)) for d, s in zip(depths, stages, strict=True))
    for node in nodes:
        module, shape = found[node.op_type]
        inputs, outputs = registry.signature(module, shape)
        assert (len(node.input), len(node.output)) == (len(inputs), len(outputs))
        assert not node.attribute
    stripped = without_bodies(model)
    assert not stripped.functions
    attributes = {a.name for n in stripped.graph.node if n.domain == DOMAIN for a in n.attribute}
    assert attributes == {"plugin_namespace", "plugin_version", "aot"}


# Plugins


class TensorDesc:
    def __init__(self, shape: tuple[Any, ...], dtype: Any = None) -> None:
        self.shape_expr, self.dtype = shape, dtype


class Batch(str):
    """A symbolic size."""

    def __mul__(self, number: Any) -> str:
        return f"{self}*{number}"


class SymIntExprs(list[Any]):
    def __init__(self, count: int) -> None:
        super().__init__([None] * count)


class FakePlugins:
    """Stands in for ``tensorrt.plugin``: keeps what is registered, and checks signatures as it does."""

    TensorDesc, SymIntExprs = TensorDesc, SymIntExprs
    KernelLaunchParams = type("KernelLaunchParams", (), {})

    def __init__(self) -> None:
        self.op = SimpleNamespace(lsms_rt=SimpleNamespace())
        self.implementations: dict[str, Any] = {}

    def register(self, identity: str) -> Any:
        domain, _, name = identity.partition("::")
        assert domain == "lsms_rt" and "." not in name

        def decorate(function: Any) -> Any:
            signature = inspect.signature(function)
            assert all(p.annotation is TensorDesc and p.default is p.empty for p in signature.parameters.values())
            assert signature.return_annotation is not inspect.Signature.empty
            setattr(self.op.lsms_rt, name, function)
            return function

        return decorate

    def aot_impl(self, identity: str) -> Any:
        def decorate(function: Any) -> Any:
            described = inspect.signature(getattr(self.op.lsms_rt, identity.partition("::")[2])).parameters
            assert list(inspect.signature(function).parameters) == [*described, "outputs", "tactic"]
            self.implementations[identity.partition("::")[2]] = function
            return function

        return decorate

    def from_shape_expr(self, shape: tuple[Any, ...], dtype: Any) -> TensorDesc:
        return TensorDesc(shape, dtype)


DTYPES = SimpleNamespace(HALF="half", FLOAT="float")


def compiled(spills: int = 0) -> Any:
    def compile_one(launch: Any, shape: Shape, arch: str) -> Any:
        row = {"kernel": "k", "shape": shape.key, "arch": arch, "spills": spills, "stack": 0, "shared": 1024}
        block = launch.warps * 32
        return SimpleNamespace(entry="k", ptx="ptx", block=block, shared=1024, row=lambda: row)

    return compile_one


def test_plugins_are_the_kernels_launchers() -> None:
    """Of every stage of the presets: inputs, outputs, their sizes and types, and the launch, are the launcher's."""
    trtp = FakePlugins()
    wanted = {plugins.plugin_name(m, s): (m, s) for s in SHAPES for m in registry.chain(s)}
    new = plugins.register(trtp, DTYPES, wanted, "sm_90", compiled())
    assert new == list(wanted)
    assert len(set(new)) == len({(m, s) for s in SHAPES for m in registry.chain(s)})
    for name, (module, shape) in wanted.items():
        launch = module.launch(shape)
        inputs, outputs = registry.signature(module, shape)
        assert list(inspect.signature(getattr(trtp.op.lsms_rt, name)).parameters) == inputs
        tensors = [TensorDesc((Batch("B"), 1)) for _ in inputs]
        answer = getattr(trtp.op.lsms_rt, name)(*tensors)
        for tensor, found in zip(outputs, answer if isinstance(answer, tuple) else (answer,), strict=True):
            assert found.shape_expr == (Batch("B"), *size_of(tensor, shape, 1)[1:])
            assert found.dtype == {"fp16": "half", "fp32": "float"}[launch.arguments[tensor]]
        entry, ptx, params, numbers = trtp.implementations[name](*tensors, answer, 0)
        assert (entry, ptx, numbers) == ("k", "ptx", [])
        assert (params.grid_x, params.grid_y, params.grid_z) == (*launch.grid, "B*1")
        assert (params.block_x, params.shared_mem) == (launch.warps * 32, 1024)
    assert plugins.register(trtp, DTYPES, wanted, "sm_90", compiled()) == []  # once a process


def test_a_kernel_that_spills_is_no_plugin() -> None:
    shape = SHAPES[0]
    wanted = {plugins.plugin_name(registry.mix, shape): (registry.mix, shape)}
    with pytest.raises(ValueError, match="spills 8 B.*exceeds the limits of a plugin"):
        plugins.register(FakePlugins(), DTYPES, wanted, "sm_87", compiled(spills=8))


def test_names_tell_kernels_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = SHAPES[0]
    name = plugins.plugin_name(registry.gate_mix, shape)
    assert plugins.parse_plugin_name(name) == (registry.gate_mix, shape)
    assert name != plugins.plugin_name(registry.gate_mix, SHAPES[1])
    monkeypatch.setattr(plugins, "sources", lambda: "changed")
    assert plugins.plugin_name(registry.gate_mix, shape) != name
    for wrong in ("gate_mix", "strange_c32_h8_w8_t32_fp16_00000000", name + "0"):
        with pytest.raises(ValueError, match="is not a plugin of these kernels"):
            plugins.parse_plugin_name(wrong)


@pytest.mark.slow
def test_a_real_kernel_behind_a_plugin(tmp_path: Path) -> None:
    """Compiled in a process of its own: the PTX has one parameter a tensor, and is launched as it was compiled."""
    code = (
        "import json, sys\n"
        "from lsms_rt.kernels import plugins, registry\n"
        "from lsms_rt.kernels.aot import compile_launch\n"
        "from lsms_rt.kernels.shape import Shape\n"
        "shape = Shape(32, 16, 16)\n"
        "c = compile_launch(plugins.launch_of(registry.token_attention, shape), shape, 'sm_90')\n"
        "print(json.dumps({'ptx': c.ptx, 'entry': c.entry, 'arguments': list(c.arguments), 'block': c.block}))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    found = json.loads(done.stdout)
    head = found["ptx"][found["ptx"].index(f".entry {found['entry']}") :].split(")")[0]
    assert head.count(".param") == len(found["arguments"]) == 7
    assert f".reqntid {found['block']}" in found["ptx"]


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
    with pytest.raises(EngineError, match=r"make no plugins for sm_90: .*spills 8 B.*take --kernels stock"):
        with_plugins(library, path, "sm_90", compiled(spills=8))
    monkeypatch.setattr(plugins, "sources", lambda: "changed")
    with pytest.raises(EngineError, match="was made from other kernels"):
        with_plugins(library, path, "sm_90", compiled())


# The choice of kernels


@pytest.mark.parametrize(
    ("backend", "precision", "version", "missing", "why"),
    [
        ("tensorrt", "fp16", "10.15.1.29", None, None),
        ("tensorrt", "fp16", "10.3.0.26", None, "plugins need TensorRT 10.15, this is 10.3.0.26"),
        ("tensorrt", "fp32", "11.4.0.106", None, "the plugins are for --precision fp16"),
        ("tensorrt", "fp16", "11.4.0.106", "no Triton", "no Triton"),
        ("tensorrt-rtx", "fp16", "1.7.1.116", None, "only TensorRT takes plugins"),
        ("onnxruntime", "fp16", "1.32", None, "only TensorRT takes plugins"),
    ],
)
def test_where_plugins_go(
    monkeypatch: pytest.MonkeyPatch, backend: str, precision: str, version: str, missing: str | None, why: str | None
) -> None:
    driver = Driver((13, 0), (Gpu("NVIDIA H100", (9, 0), 80 << 30, False),))
    monkeypatch.setattr(plans_module, "look", lambda: driver)
    monkeypatch.setattr(plans_module, "load", lambda _: SimpleNamespace(__version__=version))
    monkeypatch.setattr(kernels, "missing", lambda: missing)
    wanted = BuildOptions(backend=backend, precision=precision, kernels="triton")
    assert BuildOptions(backend=backend, precision=precision).chosen_kernels() == ("stock" if why else "triton")
    assert BuildOptions(backend=backend, precision=precision, kernels="stock").chosen_kernels() == "stock"
    if why is None:
        assert wanted.chosen_kernels() == "triton"
        for options in (PlanOptions(hardware="ampere+"), PlanOptions(version_compatible=True)):
            with pytest.raises(InputError, match=r"not for --hardware ampere\+ or --version-compatible"):
                replace(wanted, plan=options).chosen_kernels()
        spark = Driver((13, 0), (Gpu("NVIDIA GB10", (12, 1), 128 << 30, True),))
        monkeypatch.setattr(plans_module, "look", lambda: spark)
        assert replace(wanted, kernels="auto").chosen_kernels() == "stock"
        with pytest.raises(InputError, match="not for sm_121; take --kernels stock"):
            wanted.chosen_kernels()
        return
    with pytest.raises(InputError, match=f"--kernels triton: {why}.*--kernels stock"):
        wanted.chosen_kernels()
