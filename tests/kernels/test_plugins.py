"""The kernels as TensorRT plugins, as far as a machine without TensorRT can tell.

Descriptions and launches are compared with the kernels' own launchers, by a stand-in for ``tensorrt.plugin`` that
checks what the real one checks.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_plugins import DTYPES, Batch, FakePlugins, TensorDesc, compiled

from lsms_rt import kernels
from lsms_rt.errors import InputError
from lsms_rt.export import kernel_choice
from lsms_rt.export.kernel_choice import chosen_kernels
from lsms_rt.export.options import BuildOptions, PlanOptions
from lsms_rt.kernels import plugins, registry
from lsms_rt.kernels.shape import stage_shapes
from lsms_rt.kernels.tensors import size_of
from lsms_rt.machine.gpu import Driver, Gpu

SHAPES = [shape for name in ("tiny", "base") for size in (224, 512) for shape in stage_shapes(name, size)]


def test_plugins_are_the_kernels_launchers() -> None:
    """Of every stage of the presets: inputs, outputs, their sizes and types, and the launch, are the launcher's."""
    trtp = FakePlugins()
    named = {plugins.plugin_name(m, s): (m, s) for s in SHAPES for m in registry.chain(s)}
    new = plugins.register(trtp, DTYPES, named, "sm_90", compiled())
    assert new == list(named)
    assert len(set(new)) == len({(m, s) for s in SHAPES for m in registry.chain(s)})
    for name, (module, shape) in named.items():
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
    # Plugins are registered once per process.
    assert plugins.register(trtp, DTYPES, named, "sm_90", compiled()) == []


def test_a_kernel_that_spills_is_no_plugin() -> None:
    shape = SHAPES[0]
    named = {plugins.plugin_name(registry.mix, shape): (registry.mix, shape)}
    with pytest.raises(ValueError, match="spills 8 B.*exceeds the limits of a plugin"):
        plugins.register(FakePlugins(), DTYPES, named, "sm_87", compiled(spills=8))


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
    monkeypatch.setattr(kernel_choice, "query_driver", lambda: driver)
    monkeypatch.setattr(kernel_choice, "load", lambda _: SimpleNamespace(__version__=version))
    monkeypatch.setattr(kernels, "missing", lambda: missing)
    by_default = BuildOptions(backend=backend, precision=precision)
    assert chosen_kernels(by_default) == ("stock" if why else "auto")
    assert chosen_kernels(replace(by_default, verify_slices=0)) == "stock"
    assert chosen_kernels(replace(by_default, kernels="stock")) == "stock"
    if backend == "onnxruntime":
        with pytest.raises(InputError, match="--kernels triton is for --backend tensorrt"):
            replace(by_default, kernels="triton")
        return
    requested = replace(by_default, kernels="triton")
    if why is None:
        assert chosen_kernels(requested) == "triton"
        for plan in (PlanOptions(hardware="ampere+"), PlanOptions(version_compatible=True)):
            with pytest.raises(InputError, match=r"not for --hardware ampere\+ or --version-compatible"):
                chosen_kernels(replace(requested, plan=plan))
        spark = Driver((13, 0), (Gpu("NVIDIA GB10", (12, 1), 128 << 30, True),))
        monkeypatch.setattr(kernel_choice, "query_driver", lambda: spark)
        assert chosen_kernels(by_default) == "stock"
        with pytest.raises(InputError, match="not for sm_121; use --kernels stock"):
            chosen_kernels(requested)
        return
    with pytest.raises(InputError, match=f"--kernels triton: {why}.*--kernels stock"):
        chosen_kernels(requested)
