"""Plans, built for real by TensorRT for RTX, which needs no GPU for that; and what must not be built."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from shallow import save_shallow, shallow

import lsms_rt
from lsms_rt.cli.main import main
from lsms_rt.digest import sha256
from lsms_rt.engine import open_directory
from lsms_rt.engine.backend import FEATURES
from lsms_rt.engine.tensorrt.header import read_header
from lsms_rt.engine.tensorrt.messages import logger_of
from lsms_rt.engine.tensorrt.variant import RTX, TENSORRT, parse_version
from lsms_rt.errors import EngineError, GpuNotFoundError, InputError, MachineError
from lsms_rt.export import plans
from lsms_rt.export import tensorrt as export
from lsms_rt.export import tensorrt_layers as layers
from lsms_rt.export.build import build_engine
from lsms_rt.export.graph.passes import kept_in_fp32
from lsms_rt.export.onnx_export import export_graphs
from lsms_rt.export.options import BuildOptions, GateOptions, PlanOptions
from lsms_rt.export.tensorrt import build_plan
from lsms_rt.machine.gpu import Driver, Gpu, query_driver
from lsms_rt.model import LSMS, TextConfig

library = pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'lsms-rt[dev]' on Linux x86_64")
pytestmark = pytest.mark.xdist_group("exports")
PROFILE = (1, 2, 4)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An fp16 engine for RTX of the demo checkpoint at a small size, built once by the command line."""
    path = tmp_path_factory.mktemp("build") / "half.engine"
    code = main(
        ["build-engine", "--backend", "tensorrt-rtx", "--precision", "fp16", "--image-size", "128", "--max-batch", "4",
         "--opt-batch", "2", "--target", "sm_86,sm_89", "--verify-slices", "4", "--gate-sentences", "50",
         "--max-dice-drop", "0.1", "-o", str(path)]
    )  # fmt: skip
    assert code == 0
    return path


# ------------------------------------------------------------------------------------------------ whole engines


@pytest.mark.slow
def test_an_fp16_engine_says_what_it_is(half: Path) -> None:
    manifest = open_directory(half).manifest
    assert (manifest.backend, manifest.precision, manifest.profile) == ("tensorrt-rtx", "fp16", (1, 2, 4))
    assert manifest.backend_version == library.__version__
    assert manifest.target_capabilities == ("sm_86", "sm_89")
    assert sorted(manifest.files) == ["image.plan", "layers.json", "sentences.json", "text.plan", "tokenizer.json"]
    # fp16 against fp32: not equal, or nothing was in half precision; and no worse than a rounding of the logits.
    assert 1e-4 < manifest.accuracy["max_logit_difference"] < 0.2
    assert manifest.accuracy["mask_agreement"] > 0.999
    assert manifest.accuracy["measured_with"] == "PyTorch on a CPU, every operation in float16"
    assert manifest.accuracy["graphs"]["measured_with"].startswith("onnxruntime")
    # The gate judges the graphs, since no plan runs here.
    gate = manifest.gate
    assert gate["passed"] and gate["sentences"] == 50 and abs(gate["dice"]["drop"]) < 0.005
    assert gate["measured_with"].startswith("onnxruntime") and gate["dice"]["reference"] > 0.1
    assert sha256(half.with_name("half.report.html").read_bytes()) == gate["report_sha256"]
    kept = manifest.kept_in_fp32["image.onnx"]
    # One per block, over the tokens, and the presence head's; the decoder's two are in half precision.
    assert kept["operators"]["Softmax"] == 14
    assert sum(kept["operators"].values()) < 0.4 * kept["of"]
    assert "overflow" in manifest.kept_in_fp32["why"]


@pytest.mark.slow
def test_its_plans_and_layers(half: Path) -> None:
    report = json.loads((half / "layers.json").read_text())
    for name, least in (("text", 20), ("image", 200)):
        assert f"{name}.plan" in report
        header = read_header((half / f"{name}.plan").read_bytes(), name)
        assert (header.variant, header.targets) == (RTX, ("sm_86", "sm_89"))
        summary = report[f"{name}.plan"]["summary"]
        assert summary["layers"] > least
        # TensorRT fuses nodes.
        assert summary["onnx_nodes"] > summary["layers"]
        kinds = summary["by_type_and_precision"]
        halves = sum(count for kind, count in kinds.items() if kind.endswith("Half"))
        assert halves > 0.6 * summary["layers"], kinds


@pytest.mark.slow
def test_it_is_refused_here_with_a_reason_and_when_it_was_changed(half: Path, tmp_path: Path) -> None:
    import shutil

    if not query_driver().problem:
        pytest.skip("this machine has a GPU")
    with pytest.raises(GpuNotFoundError, match="needs an NVIDIA GPU"):
        lsms_rt.Segmenter(half)
    copy = tmp_path / "copy.engine"
    shutil.copytree(half, copy)
    plan = (copy / "image.plan").read_bytes()
    (copy / "image.plan").write_bytes(plan[:-1000])
    with pytest.raises(lsms_rt.errors.EngineDigestError, match=r"image\.plan has changed"):
        lsms_rt.Segmenter(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["target_capabilities"].append("sm_120")
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(lsms_rt.errors.EngineDigestError, match=r"manifest\.json has changed"):
        lsms_rt.Segmenter(copy)


@pytest.fixture(scope="module")
def half_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in ONNX Runtime."""
    path = tmp_path_factory.mktemp("build") / "graphs.engine"
    build_engine(BuildOptions(precision="fp16", image_size=128, verify_slices=1, gate=GateOptions(sentences=0)), path)
    return path


@pytest.fixture(scope="module")
def shallow_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine of one block a stage: its plans are built in a second instead of four."""
    folder = tmp_path_factory.mktemp("shallow")
    save_shallow(folder / "weights")
    build_engine(BuildOptions(checkpoint=folder / "weights", verify_slices=1), folder / "shallow.engine")
    return folder / "shallow.engine"


@pytest.mark.slow
def test_an_fp16_engine_for_onnxruntime(half_graphs: Path, small_engine: Path, abdomen: np.ndarray) -> None:
    """Without TensorRT: half the size, and the same probabilities as in fp32."""
    text = "the low-density lesion in the right lobe of the liver"
    with lsms_rt.Segmenter(half_graphs) as a, lsms_rt.Segmenter(small_engine) as b:
        assert a.manifest.precision == "fp16"
        np.testing.assert_allclose(
            a.predict(abdomen, text).probability, b.predict(abdomen, text).probability, atol=5e-3
        )


@pytest.mark.slow
def test_base_in_fp16(tmp_path: Path) -> None:
    """Full in size and width, with one block a stage, random weights, and a small BERT.

    bench/results/cpu/plans.json has all blocks, BERT-base, and the other presets.
    """
    torch.manual_seed(0)
    text = TextConfig(vocab_size=50, hidden_size=32, layers=1, heads=2, intermediate_size=64)
    model = LSMS(shallow("base", image_size=512, text=text)).half().eval()
    for path in export_graphs(model, tmp_path):
        plan, report = build_plan(RTX, path, (1, 8, 16), PlanOptions())
        assert read_header(plan, path.name).version == parse_version(library.__version__)
        assert report["summary"]["layers"] > (5 if path.stem == "text" else 150)


@pytest.mark.slow
def test_plans_from_an_engine_without_pytorch(shallow_engine: Path, tmp_path: Path) -> None:
    """As on a device: a process that cannot import the build side makes plans of an engine that it was given."""
    output = tmp_path / "plans.engine"
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'onnx', 'onnxscript', 'scipy', 'triton'): sys.modules[name] = None\n"
        "from lsms_rt.cli.main import main\n"
        "sys.exit(main(['build-engine', '--backend', 'tensorrt-rtx', '--from', *sys.argv[1:]]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(shallow_engine), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "plans not run: pycuda is not installed" in done.stdout
    assert "the plans are not run: pycuda is not installed" in done.stderr
    source, made = open_directory(shallow_engine).manifest, open_directory(output).manifest
    assert (made.backend, made.precision, made.weights_digest) == ("tensorrt-rtx", "fp32", source.weights_digest)
    assert source.accuracy["slices"] == 1
    assert made.accuracy == source.accuracy | {"plans": "not run: pycuda is not installed"}


@pytest.mark.slow
def test_what_plans_cannot_be_made_from(half: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, rtx = ["-o", str(tmp_path / "new.engine")], ["--backend", "tensorrt-rtx"]
    for arguments, code, words in (
        (["--from", str(half), *rtx], 2, "is an engine of tensorrt-rtx; give one of onnxruntime"),
        (["--from", str(half)], 2, "is an engine of tensorrt-rtx; give one of onnxruntime or openvino"),
        (
            ["--from", str(half), "--precision", "fp16", *rtx],
            2,
            "--from builds plans in the engine's precision",
        ),
        (
            ["--from", str(half), "--kernels", "triton", *rtx],
            2,
            "--from uses the engine's weights, size",
        ),
        (["--from", str(tmp_path / "nowhere"), *rtx], 4, "no such engine"),
        (["--opt-batch", "2"], 2, "--opt-batch is for plans"),
        (["--from", str(half), "--opt-batch", "9", *rtx], 2, "--opt-batch 9; give 1 to --max-batch 8"),
        (["--from", str(half), "--force", *rtx, "-o", str(half)], 2, "is the engine that --from reads"),
    ):
        assert main(["build-engine", *out, *arguments]) == code
        assert words in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ single plans


@pytest.fixture(scope="module")
def graph(demo_engine: Path) -> Path:
    return demo_engine / "text.onnx"


@pytest.mark.slow
def test_a_plan_of_the_bundled_graph(graph: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    plan, report = build_plan(RTX, graph, PROFILE, PlanOptions(workspace_mib=256), lambda *step: steps.append(step))
    assert read_header(plan, "plan").targets == ("sm_80", "sm_86", "sm_89", "sm_120", "sm_121")
    assert report["bytes"] == len(plan)
    assert report["summary"]["by_type_and_precision"]["gemm Float"] > 10
    assert any(line.startswith("Total Weights Memory") for line in report["memory"])
    assert steps
    assert all(0 <= step <= total for _, step, total in steps)


def one_node(path: Path, op: str, shape: list[Any], opset: int = 20) -> Path:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in "xy"]
    made = helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


def test_what_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("this is no protobuf\n")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("text.onnx", "empty.onnx"):
        with pytest.raises(EngineError, match=f"TensorRT cannot read {name}"):
            build_plan(RTX, tmp_path / name, PROFILE, PlanOptions())
    with pytest.raises(EngineError, match=r"TensorRT cannot read node\.onnx: .*Det"):
        build_plan(RTX, one_node(tmp_path / "node.onnx", "Det", ["b", 3, 3]), PROFILE, PlanOptions())
    for shape in ([2, 3], ["b", "n"]):
        with pytest.raises(EngineError, match="only the first axis may be dynamic"):
            build_plan(RTX, one_node(tmp_path / "relu.onnx", "Relu", shape), PROFILE, PlanOptions())


@pytest.mark.parametrize(
    ("variant", "options", "words"),
    [
        (RTX, {"targets": ("sm_90",)}, "--target sm_90: TensorRT for RTX builds for sm_80,sm_86"),
        (TENSORRT, {"targets": ("sm_86",)}, "--target is for --backend tensorrt-rtx"),
        (RTX, {"hardware": "ampere+"}, "are for --backend tensorrt; "),
        (RTX, {"timing_cache": Path("a")}, "--timing-cache and --optimization-level are for"),
        (TENSORRT, {"hardware": "hopper"}, "--hardware hopper; choose from none"),
        (RTX, {"optimization_level": 5}, "--optimization-level are for --backend tensorrt"),
        (TENSORRT, {"timing_cache": Path("no/where/a")}, "its folder does not exist"),
    ],
)
def test_options_that_cannot_be(variant: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PlanOptions(**options).check(variant)


def test_build_engine_refuses_before_it_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new.engine"
    for options, words in (
        ({"backend": "tvm"}, "--backend tvm; choose from"),
        ({"precision": "int4"}, "--precision int4; choose from fp32, fp16, bf16, int8"),
        ({"precision": "int8"}, "--precision int8 needs --calibration DIR: lsms-rt calibrate"),
        ({"calibration": Path("c")}, "--calibration is for --precision int8"),
        (
            {"precision": "int8", "calibration": Path("c"), "rest": "int4"},
            "--rest int4: engines of onnxruntime have fp16 or fp32",
        ),
        ({"opt_batch": 9}, "--opt-batch 9; give 1 to --max-batch 8"),
        ({"plan": PlanOptions(targets=("sm_86",))}, r"are for --backend tensorrt and tensorrt-rtx"),
        ({"backend": "tensorrt-rtx", "plan": PlanOptions(targets=("sm_75",))}, "--target sm_75"),
    ):
        with pytest.raises(InputError, match=words):
            build_engine(BuildOptions(**options), output)
    with pytest.raises(InputError, match="--max-dice-drop 2; give more than 0, up to 1"):
        GateOptions(max_dice_drop=2)
    assert main(["build-engine", "--backend", "tensorrt", "-o", str(output)]) == MachineError.exit_code
    assert "TensorRT is not installed; pip install 'lsms-rt[tensorrt]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_tensorrts_builder_is_told() -> None:
    """TensorRT's own options, told to RTX's builder, whose configuration has the same names."""
    builder = library.Builder(logger_of(library))
    config = builder.create_builder_config()
    # TF32 is on by default, and fp32 would not be fp32 with it.
    assert config.get_flag(library.BuilderFlag.TF32)
    told = PlanOptions(workspace_mib=64, version_compatible=True, optimization_level=4)
    export._configure(library, TENSORRT, config, told)
    assert config.get_memory_pool_limit(library.MemoryPoolType.WORKSPACE) == 64 << 20
    assert config.get_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    assert not config.get_flag(library.BuilderFlag.TF32)
    assert config.builder_optimization_level == 4
    # TensorRT keeps what it writes of its layers in the plan, RTX in its log.
    assert config.profiling_verbosity == library.ProfilingVerbosity.LAYER_NAMES_ONLY
    export._configure(library, RTX, config, PlanOptions())
    assert config.profiling_verbosity == library.ProfilingVerbosity.DETAILED
    # RTX has the names and ignores the value: that must not be silent.
    for hardware in ("ampere+", "same-capability"):
        with pytest.raises(EngineError, match=r"--hardware .* rejected this option; use --hardware none"):
            export._configure(library, TENSORRT, config, PlanOptions(hardware=hardware))


def test_an_option_that_an_older_version_lacks() -> None:
    levels = type("HardwareCompatibilityLevel", (), {"NONE": 0, "AMPERE_PLUS": 1})
    old = type("module", (), {"__version__": "10.3.0.26", "HardwareCompatibilityLevel": levels})
    assert export._hardware_level(old, PlanOptions(hardware="ampere+")) == 1
    with pytest.raises(InputError, match=r"TensorRT 10\.3\.0\.26 has no SAME_COMPUTE_CAPABILITY; install a newer one"):
        export._hardware_level(old, PlanOptions(hardware="same-capability"))


def test_tensorrt_without_a_gpu_is_refused_before_the_export(monkeypatch: pytest.MonkeyPatch) -> None:
    if not query_driver().problem:
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(export, "load", lambda _: library)
    with pytest.raises(GpuNotFoundError, match="TensorRT builds on the GPU that will run the engine: no NVIDIA driver"):
        export.check_builder(TENSORRT, PlanOptions())


@pytest.mark.slow
def test_ctrl_c_stops_a_build(graph: Path) -> None:
    """An exception cannot pass through the library, so it is kept, and raised when the build has been canceled."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(RTX, graph, PROFILE, PlanOptions(), interrupt)
    build_plan(RTX, graph, PROFILE, PlanOptions())


@pytest.mark.slow
def test_sigint_stops_a_build_of_the_command_line(demo_engine: Path, tmp_path: Path) -> None:
    """As a terminal sends it, in the middle of the image's plan: exit code 130, and nothing is left behind."""
    code = (
        "import os, signal, sys, threading\n"
        "from lsms_rt.cli.main import main\n"
        "from lsms_rt.export import plans\n"
        "build = plans.build_plan\n"
        "def slow(variant, graph, *rest):\n"
        "    if graph.name == 'image.onnx':\n"
        "        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    return build(variant, graph, *rest)\n"
        "plans.build_plan = slow\n"
        "sys.exit(main(['build-engine', '--backend', 'tensorrt-rtx', '--from', *sys.argv[1:]]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(demo_engine), "-o", str(tmp_path / "new.engine")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "error: interrupted" in done.stderr) == (130, True), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_plans_that_cannot_run_here_are_kept_and_said_so(
    shallow_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU for which they are not built, in the machine that builds them, must not cost the build."""
    driver = Driver((13, 0), (Gpu("NVIDIA H100", (9, 0), 80 << 30, False),))
    monkeypatch.setattr(plans, "query_driver", lambda: driver)
    monkeypatch.setattr(plans.importlib.util, "find_spec", lambda _: object())
    said: list[str] = []
    options = PlanOptions(targets=("sm_86",))
    made = plans.convert_engine(shallow_engine, RTX, PROFILE, options, tmp_path / "a.engine", say=said.append)
    assert made.target_capabilities == ("sm_86",)
    assert said == [
        "the plans are not run: TensorRT for RTX does not support sm_90: this GPU is NVIDIA H100 with compute "
        "capability 9.0; use --backend tensorrt"
    ]


# ---------------------------------------------------------------------------------------------- graphs and reports


@pytest.mark.slow
def test_half_graphs_take_and_give_float32(half_graphs: Path, demo_engine: Path) -> None:
    """Images, masks and logits are float32 whatever is inside; only the features of a sentence are half."""
    text_path, image_path = half_graphs / "text.onnx", half_graphs / "image.onnx"
    types = {}
    for path in (text_path, image_path):
        made = onnx.load(path)
        onnx.checker.check_model(made, full_check=True)
        types |= {v.name: v.type.tensor_type.elem_type for v in (*made.graph.input, *made.graph.output)}
        assert not [i.name for i in made.graph.initializer if i.data_type == TensorProto.FLOAT and np.prod(i.dims) > 64]
    assert {types.pop(name) for name in FEATURES} == {TensorProto.FLOAT16}
    assert types.pop("tokens") == TensorProto.INT64
    assert set(types.values()) == {TensorProto.FLOAT}
    kept = kept_in_fp32(onnx.load(image_path))["operators"]
    assert kept["Softmax"] == 14
    assert "Conv" not in kept
    # The check sees what it must find.
    assert kept_in_fp32(onnx.load(demo_engine / "text.onnx"))["operators"]["MatMul"] > 10


def test_layers_of_an_inspector() -> None:
    """In the shape that TensorRT 10 documents; detailed and not."""
    layer = {
        "Name": "conv + relu", "LayerType": "CaskConvolution", "TacticName": "sm80_xmma",
        "Outputs": [{"Name": "y", "Format/Datatype": "Half"}],
        "Metadata": "[ONNX Layer: node_a]\x1f[ONNX Layer: node_b]",
    }  # fmt: skip
    rows = layers.from_inspector({"Layers": [layer, "only a name"]})
    assert rows[0] == {
        "name": "conv + relu", "type": "CaskConvolution", "tactic": "sm80_xmma", "precision": ["Half"],
        "onnx": ["node_a", "node_b"],
    }  # fmt: skip
    assert layers.summary(rows) == {
        "layers": 2, "onnx_nodes": 2, "by_type_and_precision": {"CaskConvolution Half": 1, " -": 1}
    }  # fmt: skip
    assert layers.from_log(["something else"]) == []
