"""The code of ``make gpu-check`` on a CPU at small sizes, with plain twins of the kernels and the wall clock.

It shows that the command would run, not what a GPU would compute.
"""

from __future__ import annotations

import ctypes
import importlib
import inspect
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lsms_rt.bench import records
from lsms_rt.bench.compare import compare
from lsms_rt.bench.gpu import check as gpu_check
from lsms_rt.bench.gpu import environment, models, parts, plan, plugin_ptx, roofline, sanitizer, summary, timer, tune
from lsms_rt.bench.gpu import runtime as gpu_runtime
from lsms_rt.bench.gpu import times as gpu_times
from lsms_rt.bench.gpu import verify as gpu_verify
from lsms_rt.bench.gpu.worker import NotRunError
from lsms_rt.bench.samples import Samples
from lsms_rt.bench.tables import markdown
from lsms_rt.bench.timing import Effort, measure
from lsms_rt.cli.main import main
from lsms_rt.engine import open_directory
from lsms_rt.kernels import mix, registry
from lsms_rt.kernels.aot import Compiled
from lsms_rt.kernels.shape import Shape, rest_shapes, shapes_around, stage_shapes
from lsms_rt.kernels.tensors import size_of, spec
from lsms_rt.kernels.test_data import random_weights, weights_on
from lsms_rt.machine.gpu import Driver

SMALL = Shape(32, 4, 4, dtype="fp32")


def stopwatch(run: Callable[[], object], *, graph: bool = True) -> Samples:
    """The wall clock, one sample."""
    return measure(run, Effort(0, 0, 1, 1))


def test_without_a_gpu_the_commands_end_with_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "find_gpu", lambda: (None, "no NVIDIA driver"))
    assert gpu_check.main([]) == 3
    printed = capsys.readouterr().err
    assert "error: no NVIDIA driver; on a machine with a GPU this would run, in 540 s:" in printed
    assert [line.split()[0] for line in printed.splitlines()[1:]] == list(plan.SECTIONS)
    assert tune.main([]) == 3
    assert "PyTorch finds no NVIDIA GPU" in capsys.readouterr().err


def test_the_parent_never_imports_pytorch() -> None:
    """A context that a kernel has ruined must not reach the process that writes the results."""
    code = (
        "import sys; from lsms_rt.bench.gpu import check; check.main(['--plan']); check.find_gpu(); "
        "print(sorted({'torch', 'triton', 'cuda', 'pycuda'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_plan_names_what_there_is() -> None:
    """Kernels, functions and their arguments; what is timed runs alone; every section fits into its share."""
    assert set(plan.KERNELS) == {registry.name(module) for module in (*registry.MODULES, *registry.AROUND)}
    assert tuple(registry.name(module) for module in registry.AROUND) == plan.AROUND
    units = plan.plan(plan.SECTIONS, ["base", "tiny"])
    assert list(dict.fromkeys(unit.section for unit in units)) == list(plan.SECTIONS)
    assert len({(unit.section, unit.name) for unit in units}) == len(units)
    assert sum(seconds for seconds, _ in plan.SECTIONS.values()) == plan.SECONDS == 540
    for unit in units:
        module, _, function = unit.function.partition(":")
        inspect.signature(getattr(importlib.import_module(module), function)).bind(**unit.arguments)
        json.dumps(dict(unit.arguments))
        assert not (unit.parallel and "time" in unit.function), unit
        if unit.section in ("models", "parts", "kernels"):
            assert not unit.parallel
    assert {unit.arguments["way"] for unit in units if "way" in unit.arguments} == set(models.WAYS)
    # The plan's most valuable times come first: the first preset at batch 1.
    assert next(unit.name for unit in units if unit.section == "models") == "ours, base, batch 1"


def test_the_environment_says_what_this_machine_is() -> None:
    found = environment.software()
    assert found["torch"] == torch.__version__
    assert found["cores"] >= 1
    rows = environment.environment()
    assert next(rows)["kind"] == "environment"
    with pytest.raises(NotRunError, match="PyTorch finds no NVIDIA GPU"):
        next(rows)


def test_verification_of_a_kernel() -> None:
    """On the CPU, in Triton's interpreter: the same bits again, and nothing written beside a tensor."""
    rows = list(gpu_verify.verify_kernel(mix, [SMALL], (1, 2), "cpu", repeats=2))
    assert [(row["kernel"], row["batch"], row["different"], row["ok"]) for row in rows] == [
        ("mix", 1, 0, True), ("mix", 2, 0, True)
    ]  # fmt: skip
    assert gpu_verify.shapes_of("gate_mix", ["base"], [512]) == stage_shapes("base", 512)[:2]
    assert gpu_verify.shapes_of("depthwise_direct", ["base"], [512]) == stage_shapes("base", 512)
    assert gpu_verify.shapes_of("reduce", ["base"], [512], tokens=64) == rest_shapes("base", 512)


def test_a_kernel_that_gives_other_bits_again_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the tolerance, and yet a race."""
    runs, whole = itertools.count(), gpu_verify.run

    def racing(*args: Any) -> dict[str, torch.Tensor]:
        shift = 1e-6 if next(runs) == 2 else 0.0
        return {name: tensor + shift for name, tensor in whole(*args).items()}

    monkeypatch.setattr(gpu_verify, "run", racing)
    (row,) = gpu_verify.verify_kernel(mix, [SMALL], (1,), "cpu", repeats=3)
    assert row["error"] < row["tolerance"]
    assert (row["different"], row["ok"]) == (1, False)


@pytest.mark.slow
def test_verification_of_the_block() -> None:
    blocks = list(gpu_verify.verify_block([SMALL], "cpu"))
    assert [block["tokens"] for block in blocks] == [40, 20, 10]
    assert all(block["ok"] and block["triton"] < 1e-5 and block["stock"] < 1e-5 for block in blocks), blocks
    half = next(gpu_verify.verify_block([Shape(64, 16, 16)], "cpu"))
    assert 1e-4 < half["triton"] < gpu_verify.BLOCK_TOLERANCE["fp16"] / 2


@pytest.mark.slow
def test_the_sanitizer_runs_every_kernel() -> None:
    rows = list(sanitizer.check_kernels("memcheck", [SMALL], "cpu"))
    assert {row["kernel"] for row in rows} == {registry.name(m) for m in registry.modules_at(SMALL)}
    assert all(row["ok"] for row in rows)
    of_all = {registry.name(module) for shape in sanitizer.SHAPES for module in registry.modules_at(shape)}
    assert of_all == set(plan.KERNELS)


class FakeDriver:
    """As much of ``cuda.bindings.driver`` as plugin_ptx uses; a launch runs the kernel's twin, for one kernel."""

    CUresult = SimpleNamespace(CUDA_SUCCESS=0)

    def __init__(self, run: Callable[[tuple[int, ...]], None], code: Any = 0) -> None:
        self._run, self._code, self.launched = run, code, []

    def cuModuleLoadData(self, ptx: bytes) -> tuple[Any, str]:
        assert ptx.endswith(b"\0")
        return self._code, "module"

    def cuModuleGetFunction(self, module: str, entry: bytes) -> tuple[int, bytes]:
        return 0, entry

    def cuLaunchKernel(self, function: bytes, *rest: Any) -> tuple[int]:
        *sizes, (pointers, types), extra = rest
        assert len(pointers) == len(types)
        assert extra == 0
        self.launched.append((function, *sizes))
        self._run(pointers)
        return (0,)


def test_the_ptx_of_a_plugin_is_launched_by_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's calls and their arguments, with a fake driver; what the code computes, a GPU must show."""
    launch, batch = mix.launch(SMALL), plugin_ptx.BATCH
    compiled = Compiled(
        kernel="mix_kernel", shape=SMALL.key, arch="sm_90", target="sm_90a", entry="mix_kernel",
        arguments=dict(launch.arguments), outputs=1, grid=launch.grid, block=128, shared=4096, registers=64, spills=0,
        stack=0, ptx="the text", cubin=b"",
    )  # fmt: skip
    monkeypatch.setattr(plugin_ptx, "compile_launch", lambda *_: compiled)

    def run(pointers: tuple[int, ...]) -> None:
        sizes = [size_of(name, SMALL, batch) for name in launch.arguments]
        tensors = [
            torch.frombuffer((ctypes.c_float * math.prod(size)).from_address(at), dtype=torch.float32).view(size)
            for at, size in zip(pointers, sizes, strict=True)
        ]
        launch(batch, *tensors)

    driver = FakeDriver(run)
    (row,) = plugin_ptx.verify_ptx(driver, "mix", SMALL, "sm_90", "cpu")
    assert driver.launched[0] == (b"mix_kernel", *launch.grid, batch, 128, 1, 1, 4096, 0)
    assert (row["ok"], row["as_triton"], row["target"], row["registers"]) == (True, True, "sm_90a", 64)
    # A launch that does nothing leaves NaN.
    (row,) = plugin_ptx.verify_ptx(FakeDriver(lambda _: None), "mix", SMALL, "sm_90", "cpu")
    assert (row["ok"], row["as_triton"]) == (False, False)
    refused = SimpleNamespace(name="CUDA_ERROR_INVALID_PTX")
    with pytest.raises(RuntimeError, match="cuModuleLoadData failed: CUDA_ERROR_INVALID_PTX"):
        list(plugin_ptx.verify_ptx(FakeDriver(run, refused), "mix", SMALL, "sm_90", "cpu"))


def test_verification_of_the_runner_and_its_faults() -> None:
    found = gpu_verify.verify_runner("cpu", "stock", graphs=False, size=64)
    assert gpu_verify.runner_faults(found) == []
    assert found["against_fp32_definition"] < 1e-5 < 100 * gpu_verify.RUNNER_CHANGE < found["another_image_changes"]
    assert found["graph_against_none"] == 0.0
    stuck = found | {"another_image_changes": 0.0, "graph_against_none": 0.5, "against_fp32_definition": float("nan")}
    faults = " ".join(gpu_verify.runner_faults(stuck))
    for word in (
        "differs from the run without one",
        "does not read its inputs",
        "in fp32: nan",
    ):
        assert word in faults


@pytest.mark.slow
def test_timing_of_kernels_parts_and_models(tmp_path: Path) -> None:
    gpu = roofline.GPUS["h100"]
    rows = list(gpu_times.time_kernel(mix, [Shape(160, 4, 4, dtype="fp32")], (1,), stopwatch, "cpu", gpu))
    assert all(row["time"]["p50"] > 0 and row["time"]["unit"] == "ms" and row["floor_ms"] > 0 for row in rows)
    rows += parts.time_parts(SMALL, 1, stopwatch, "cpu", None)
    rows += [
        models.time_model("tiny", 64, 1, way, stopwatch, "cpu", gpu, how=models.Way(form=form, channels_last=last))
        for way, form, last in (
            ("eager", "reference", False), ("ours", "stock", False), ("stock_graph_channels_last", "stock", True),
        )
    ]  # fmt: skip
    found = summary.records_of([records.record_of(records.PEERS, ("torch",)) | {"kind": summary.RUN}, *rows])
    assert set(found) == {records.KERNELS_TIMED, records.PARTS_TIMED, records.MODELS_TIMED}
    assert [row["part"] for row in found[records.PARTS_TIMED]["rows"]] == [
        "block, folded stock", "block", "depthwise"
    ]  # fmt: skip
    for row in found[records.PARTS_TIMED]["rows"]:
        # The interpreter takes a thousand times as long, and two decimals are kept.
        assert row["speedup_over_rival"] >= 0
        assert {row["rival"], "cuda_graph", "cuda_graph_channels_last", "eager", "ours"} <= set(row)
    (model,) = found[records.MODELS_TIMED]["rows"]
    assert model["times_floor"] > 1
    assert model["rival"] in ("eager", "stock_graph_channels_last")
    assert model["verified"] is None
    for path in summary.write_records(rows, tmp_path):
        assert records.read(path)["rows"]
    assert "tiny, batch 1 (not verified): eager" in summary.text(summary.summary(rows))


def test_the_shares_of_a_run() -> None:
    """The profiler's events by name: ours are known by their kernels."""
    found = models.shared_out({"mix_kernel": 30.0, "void cudnn::conv": 60.0, "gate_kernel": 10.0})
    assert (found["kernels_us"], found["share_of_ours"]) == (100.0, 0.4)
    assert list(found["longest_us"]) == ["void cudnn::conv", "mix_kernel", "gate_kernel"]


def gpu_record(kind: str, row: dict[str, Any], times: dict[str, float]) -> records.Record:
    """A record as a GPU would give it: ``times`` are medians in ms of 21 samples."""
    samples = {
        name: Samples(tuple(ms * (1 + n / 1000) for n in range(-10, 11))).to_dict() for name, ms in times.items()
    }
    return records.record_of(kind, ("torch",), "NVIDIA Test 9000", what="made up", rows=[row | samples])


@pytest.mark.parametrize(
    ("kind", "row", "name"),
    [
        (records.KERNELS_TIMED, {"kernel": "mix", "shape": "c32", "batch": 1, "floor_ms": 0.001}, "mix, c32, batch 1"),
        (records.PARTS_TIMED, {"part": "block", "shape": "c32", "batch": 16, "rival": "eager"}, "block, c32, batch 16"),
        (records.MODELS_TIMED, {"preset": "tiny", "image_size": 512, "batch": 8}, "tiny, image_size 512, batch 8"),
    ],
)
def test_results_of_a_gpu_are_compared_and_reported(
    kind: str, row: dict[str, Any], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, ours in zip(files, (0.005, 0.0075), strict=True):
        records.write(file, gpu_record(kind, row, {"ours": ours, "eager": 0.02}))
    differences, cautions = compare(*map(records.read, files))
    assert {d.name: d.verdict for d in differences} == {f"{name}: ours": "slower", f"{name}: eager": "same"}
    assert not cautions
    assert main(["bench", "compare", *map(str, files), "--fail-on-slower"]) == 1
    assert f"slower: {name}: ours" in capsys.readouterr().err
    assert main(["bench", "report", *map(str, files), "-o", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.md").read_text()
    assert "0.0075 ms" in page and "NVIDIA Test 9000" in page and "made up." in page


def test_results_of_verification_are_compared_and_reported(tmp_path: Path) -> None:
    rows = [
        {"part": "kernel", "kernel": "mix", "output": "y", "shape": "c32", "batch": 1, "error": 1e-6, "ok": True},
        {"part": "block", "shape": "c32", "tokens": 20, "triton": 1e-3, "ok": True},
        {"part": "runner", "graph_against_none": 0.0, "ok": True},
    ]
    rows = [{"kind": records.KERNELS_VERIFIED} | row for row in rows]
    other = [
        {"kind": records.RUNTIME_VERIFIED, "what": "driver calls", "graph_follows_its_input": True, "ok": True},
        {"kind": records.CEILINGS, "copy_bytes_per_s": 3e12, "assumed": {"dram": 3.35e12}},
        {"kind": records.PLUGINS_VERIFIED, "kernel": "mix", "output": "y", "shape": "c32", "batch": 2, "load_s": 0.5},
    ]
    header = records.record_of(records.PEERS, ("torch",), "NVIDIA Test 9000") | {"kind": summary.RUN}
    summary.write_records([header, *rows, *other], tmp_path)
    record = records.read(tmp_path / "kernels_verified.json")
    rows = record["rows"]
    worse = record | {"rows": [rows[0] | {"error": 1e-2, "ok": False}, *rows[1:]]}
    found = {d.name: d.verdict for d in compare(record, worse)[0]}
    assert found["kernel, mix, y, c32, batch 1: error"] == "higher"
    assert found["kernel, mix, y, c32, batch 1: ok"] == "lower"
    assert found["block, c32, tokens 20: triton"] == found["runner: graph_against_none"] == "same"
    assert "| kernel | mix | y | c32 | 1 |" in markdown(worse)
    assert "| driver calls | 1 |" in markdown(records.read(tmp_path / "runtime_verified.json"))
    assert "| 3e+12 | 3.35e+12 |" in markdown(records.read(tmp_path / "ceilings.json"))
    assert "| mix | y | c32 | 2 | 0.5 |" in markdown(records.read(tmp_path / "plugins_verified.json"))


@pytest.mark.parametrize(
    ("name", "ceilings"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA H200", "H200 SXM"),
        ("Orin", "Jetson AGX Orin"), ("NVIDIA Unheard-of", "H100 SXM"),
    ],
)  # fmt: skip
def test_the_ceilings_of_a_gpu(name: str, ceilings: str) -> None:
    assert timer.ceilings_of(name).name == ceilings


@pytest.mark.parametrize("unit", [
    lambda: gpu_runtime.driver_unit(), lambda: gpu_runtime.engine_unit("tensorrt"), lambda: gpu_runtime.plugins_unit()
])  # fmt: skip
def test_the_runtime_says_what_the_machine_lacks(unit: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_runtime, "query_driver", lambda: Driver(problem="no NVIDIA driver"))
    with pytest.raises(NotRunError, match="no NVIDIA driver"):
        next(unit())
    monkeypatch.setattr(gpu_runtime, "query_driver", lambda: Driver((13, 0)))
    monkeypatch.setattr(gpu_runtime.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(NotRunError, match=r"pycuda is not installed; docs/gpu\.md"):
        next(unit())


def test_floors_are_of_the_real_launches() -> None:
    """The bytes in the table are at least those of the tensors of the launches, each counted once."""
    for shape, chain in itertools.product((*stage_shapes("base", 512), *shapes_around("base", 512)), registry.CHAINS):
        for step, module in zip(roofline.fused(shape, 1, chain), registry.chain(shape, chain), strict=True):
            assert step.name == registry.name(module)
            inputs, outputs = registry.signature(module, shape)
            named = [name for name in (*inputs, *outputs) if spec(name).is_map]
            maps = sum(math.prod(size_of(name, shape, 1)[1:]) for name in named) / math.prod(size_of("x", shape, 1))
            assert step.bytes >= maps * roofline.sizes(shape, 1).map
            assert step.bytes < (maps + 1) * roofline.sizes(shape, 1).map + 4e6


def test_a_floor_is_the_larger_of_two_times() -> None:
    gpu = roofline.Gpu("toy", dram=100.0, l2=200.0, l2_bytes=1e9, tensor=10.0, scalar=1.0, gap=0.5)
    assert roofline.Step("bytes", 400, 5).floor(gpu, resident=False) == 4
    assert roofline.Step("bytes", 400, 5).floor(gpu, resident=True) == 2
    assert roofline.Step("operations", 400, 50).floor(gpu, resident=False) == 10
    assert roofline.Step("operations", 400, 50, tensor=False).floor(gpu, resident=False) == 100
    steps = [roofline.Step("bytes", 400, 5)] * 3
    assert roofline.block_floor(steps, gpu, SMALL, 1) == 3 * 2 + 3 * 0.5


def test_fusing_helps_everywhere_and_batches_scale() -> None:
    rows = roofline.floors(("tiny", "base"), 512, (1, 16))
    assert len(rows) == 2 * 4 * 2 * len(roofline.GPUS)
    for row in rows:
        assert row["unfused_us"] > 3 * row["fused_us"]
        assert row["fused_launches"] == (5 if row["stage"] < 3 else 7)
    floor = roofline.image_graph_floor
    gpu = roofline.GPUS["orin"]
    assert 8 * floor("base", 512, 1, gpu) < floor("base", 512, 16, gpu) < 18 * floor("base", 512, 1, gpu)
    assert floor("tiny", 512, 1, gpu) < floor("base", 512, 1, gpu)


def test_the_committed_roofline_is_current(tmp_path: Path) -> None:
    """``make roofline`` writes it."""
    committed = records.read(Path(__file__).parents[2] / "bench/results/roofline.json")
    roofline.main(["-o", str(tmp_path / "new.json"), "--picture", str(tmp_path / "new.png")])
    new = records.read(tmp_path / "new.json")
    assert all(new[field] == committed[field] for field in ("kind", "what", "ceilings", "rows"))
    assert (tmp_path / "new.png").stat().st_size > 20_000


def test_weights_move_with_their_structure() -> None:
    moved = weights_on(random_weights(32), "cpu", torch.float16)
    assert moved.strips[2][1][0].dtype == moved.hidden.dtype == torch.float16
    assert len(moved.strips) == 3


def test_plans_that_ran_are_checked_whatever_they_were_made_of(
    demo_engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an engine's graphs ("plans") or of a checkpoint; those that cannot run here say why."""
    opened: list[Path] = []
    monkeypatch.setattr(gpu_runtime, "open_directory", lambda path: opened.append(path) or pytest.fail("opened"))
    measured = {"slices": 3, "max_logit_difference": 0.1}
    manifest = open_directory(demo_engine).manifest
    for accuracy in (measured, {"plans": measured}):
        with pytest.raises(pytest.fail.Exception, match="opened"):
            gpu_runtime.engine(demo_engine, replace(manifest, accuracy=accuracy))
    with pytest.raises(NotRunError, match="plans not run: another GPU"):
        gpu_runtime.engine(demo_engine, replace(manifest, accuracy={"plans": "not run: another GPU"}))
    assert len(opened) == 2
