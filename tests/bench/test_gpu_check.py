"""The code of ``make gpu-check`` on a CPU at small sizes, with plain twins of the kernels and the wall clock.

It shows that the command would run, not what a GPU would compute.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lsms_rt.bench import records
from lsms_rt.bench.compare import compare
from lsms_rt.bench.gpu import check as gpu_check
from lsms_rt.bench.gpu import roofline, tune
from lsms_rt.bench.gpu import runtime as gpu_runtime
from lsms_rt.bench.gpu import times as gpu_times
from lsms_rt.bench.gpu import verify as gpu_verify
from lsms_rt.bench.samples import Samples
from lsms_rt.bench.tables import markdown
from lsms_rt.bench.timing import Effort, measure
from lsms_rt.cli.main import main
from lsms_rt.kernels import fold_keys, mix, registry
from lsms_rt.kernels import tuned_tiles as choices
from lsms_rt.kernels import verify as verification
from lsms_rt.kernels.launch import Launch, shape_of_rows
from lsms_rt.kernels.shape import Shape, all_shapes, stage_shapes
from lsms_rt.kernels.test_data import random_weights, weights_on

SMALL = Shape(32, 4, 4, dtype="fp32")


def stopwatch(run: Callable[[], object], *, graph: bool = True) -> Samples:
    """The wall clock, one sample."""
    return measure(run, Effort(0, 0, 1, 1))


def test_without_a_gpu_the_commands_end_with_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 3
    assert tune.main([]) == 3
    assert capsys.readouterr().err.count("PyTorch finds no NVIDIA GPU") == 2


@pytest.mark.slow
def test_verification_of_kernels_and_block() -> None:
    # On the CPU, in Triton's interpreter.
    rows = gpu_verify.verify_kernels([SMALL], (1, 2), "cpu")
    assert {row["kernel"] for row in rows} == {
        registry.name(m) for m in (*registry.chain(SMALL), registry.depthwise_direct)
    }
    assert all(row["ok"] for row in rows), rows
    blocks = gpu_verify.verify_block([SMALL], "cpu")
    assert [block["tokens"] for block in blocks] == [40, 20, 10]
    assert all(block["ok"] and block["triton"] < 1e-5 and block["stock"] < 1e-5 for block in blocks), blocks
    (half, *_) = gpu_verify.verify_block([Shape(64, 16, 16)], "cpu")
    assert 1e-4 < half["triton"] < gpu_verify.BLOCK_TOLERANCE["fp16"] / 2


def test_verification_of_the_runner_and_its_faults() -> None:
    found = gpu_verify.verify_runner("cpu", "stock", graphs=False, size=64)
    assert gpu_verify.faults([], [], found) == []
    assert found["against_fp32_definition"] < 1e-5 < 100 * gpu_verify.RUNNER_CHANGE < found["another_image_changes"]
    assert found["graph_against_none"] == 0.0
    stuck = found | {"another_image_changes": 0.0, "graph_against_none": 0.5, "against_fp32_definition": float("nan")}
    wrong = [{"kernel": "mix", "output": "y", "shape": "s", "batch": 1, "error": float("nan"), "ok": False}]
    block = {"shape": "c32", "triton": float("nan"), "ok": False}
    faults = " ".join(gpu_verify.faults(wrong, [block], stuck))
    for word in (
        "mix y s batch 1",
        "the block at c32: error nan",
        "differs from the run without one",
        "does not read its inputs",
        "in fp32: nan",
    ):
        assert word in faults


@pytest.mark.slow
def test_timing_of_kernels_parts_and_models(tmp_path: Path) -> None:
    gpu = roofline.GPUS["h100"]
    rows = list(gpu_times.time_kernels([SMALL], (1,), stopwatch, "cpu", gpu))
    assert all(row["time"]["p50"] > 0 and row["time"]["unit"] == "ms" for row in rows)
    assert all("floor_ms" in row and row["floor_ms"] > 0 for row in rows)
    parts = list(gpu_times.time_parts([SMALL], (1,), stopwatch, "cpu", None))
    assert [row["part"] for row in parts] == ["depthwise", "block", "block, folded stock"]
    assert all(
        row["speedup_over_rival"] > 0 and row["rival"] in row and row["eager_channels_last"]["p50"] > 0 for row in parts
    )
    models = list(gpu_times.time_models(("tiny",), 64, (1,), stopwatch, "cpu", gpu, "stock", None))
    assert models[0]["ours"]["times_floor"] > 1
    gpu_check._write_each(tmp_path, records.MODELS_TIMED, "a trial", models)
    record = records.read(tmp_path / "models_timed.json")
    assert record["device"]["gpu"] is None
    assert {"torch", "triton", "lsms-rt"} <= set(record["versions"])
    assert record["rows"] == json.loads(json.dumps(models))


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
        {"part": "runner", "graph_against_none": 0.0},
    ]
    gpu_check.write(tmp_path, records.KERNELS_VERIFIED, "made up", rows)
    record = records.read(tmp_path / "kernels_verified.json")
    worse = record | {"rows": [rows[0] | {"error": 1e-2, "ok": False}, *rows[1:]]}
    found = {d.name: d.verdict for d in compare(record, worse)[0]}
    assert found["kernel, mix, y, c32, batch 1: error"] == "higher"
    assert found["kernel, mix, y, c32, batch 1: ok"] == "lower"
    assert found["block, c32, tokens 20: triton"] == found["runner: graph_against_none"] == "same"
    assert "| kernel | mix | y | c32 | 1 |" in markdown(worse)
    gpu_check.write(tmp_path, records.RUNTIME_VERIFIED, "made up", [{"what": "driver calls", "not_run": "no driver"}])
    assert "| driver calls | no driver |" in markdown(records.read(tmp_path / "runtime_verified.json"))
    gpu_check.write(tmp_path, records.CEILINGS, "made up", [{"copy_bytes_per_s": 3e12, "assumed": {"dram": 3.35e12}}])
    assert "| 3e+12 | 3.35e+12 |" in markdown(records.read(tmp_path / "ceilings.json"))


@pytest.mark.parametrize(
    ("name", "ceilings"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"), ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA H200", "H200 SXM"),
        ("Orin", "Jetson AGX Orin"), ("NVIDIA Unheard-of", "H100 SXM"),
    ],
)  # fmt: skip
def test_the_ceilings_of_a_gpu(name: str, ceilings: str) -> None:
    assert gpu_check.ceilings_of(name).name == ceilings


def test_the_runtime_is_verified_or_the_reason_is_given() -> None:
    rows = gpu_runtime.verify_runtime()
    assert [row["what"] for row in rows] == [
        "driver calls and a captured graph", "TensorRT", "TensorRT for RTX"
    ]  # fmt: skip
    for row in rows:
        assert row.get("ok") or row["not_run"], row


def test_tuning_chooses_the_fastest_correct_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fake stopwatch; two candidates are faster, but one is wrong and one does not fit."""
    seen: list[dict[str, Any]] = []

    def stopwatch(run: Any, *, graph: bool = True) -> Samples:
        return Samples(({16: 1.0, 32: 0.5, 64: 0.1}.get(seen[-1].get("pixels", 0), 2.0),))

    def verify(module: Any, shape: Shape, tensors: Any, plan: Any) -> list[verification.Deviation]:
        launch = plan(lambda _, **tiles: seen.append(tiles) or mix.launch(shape), shape)
        assert isinstance(launch, Launch)
        if seen[-1].get("warps") == 8:
            raise tune.OutOfResources(1, 1, "shared memory")
        error = 1.0 if seen[-1].get("pixels") == 64 else 0.0
        return [verification.Deviation("mix", "y", shape.key, 1, error, 0.1)]

    monkeypatch.setattr(tune.verification, "verify", verify)
    monkeypatch.setattr(tune, "prepared", lambda *_: None)
    found, share = tune.best(mix, SMALL, {}, stopwatch)
    assert (found["pixels"], found["warps"], share) == (32, 4, 0.25)


@pytest.mark.parametrize("module", registry.MODULES)
def test_every_candidate_is_a_launch(module: Any) -> None:
    """For all kernels and real shapes, n and k divide the channels, and the grid covers the map."""
    for shape in [s for dtype in ("fp16", "fp32") for s in all_shapes((224, 512), dtype)]:
        if module not in registry.chain(shape):
            continue
        for tiles in tune.candidates(module, shape):
            launches = module.launch(shape, **tiles)
            for launch in launches if isinstance(launches, tuple) else [launches]:
                c = launch.constants
                assert shape.channels % c.get("BLOCK_N", 1) == shape.channels % c.get("BLOCK_K", 1) == 0
                if "BLOCK_P" in c:
                    assert launch.grid[0] * c["BLOCK_P"] >= shape.pixels
                # token_attention loops over the channels.
                if "BLOCK_N" in c and module is not registry.token_attention:
                    # The grid of these has no pixels.
                    by_rows = module in (registry.fold_keys, registry.fold_values)
                    assert c["BLOCK_N"] * launch.grid[0 if by_rows else 1] == shape.channels


def test_tuned_tiles_are_used_and_those_of_another_gpu_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shape, gpu = Shape(64, 32, 32), "NVIDIA Test 9000"
    monkeypatch.setenv(choices.VARIABLE, str(tmp_path))
    monkeypatch.setattr(choices, "_device", lambda: (gpu, "3.6.0"))
    choices.read.cache_clear()
    choices._planned.cache_clear()
    with caplog.at_level(logging.INFO, "lsms_rt"):
        assert choices.planned(mix.launch, shape) == mix.launch(shape)
    assert "no tuned tile sizes for NVIDIA Test 9000" in caplog.text
    path = choices.write(tmp_path, gpu, "3.6.0", 1, {choices.key(mix.launch, shape): {"pixels": 16, "warps": 8}})
    fold_key = choices.key(fold_keys.launch, shape)
    # Another run of the tuner keeps what the first one wrote.
    choices.write(tmp_path, gpu, "3.6.0", 1, {fold_key: {"n": 64}})
    assert path.name == "nvidia-test-9000_triton-3.6.0.json"
    choices.read.cache_clear()
    choices._planned.cache_clear()
    planned = choices.planned(mix.launch, shape)
    assert (planned.constants["BLOCK_P"], planned.warps, planned.grid[0]) == (16, 8, 64)
    # As the operator asks for them, without height and width.
    rows = shape_of_rows(torch.empty(1, shape.tokens, shape.channels, dtype=torch.float16), shape.pixels)
    assert choices.planned(fold_keys.launch, rows).constants["BLOCK_N"] == 64
    path.write_text(json.dumps({"gpu": "another", "triton": "3.6.0", "tiles": {}}))
    choices.read.cache_clear()
    with pytest.raises(ValueError, match=r"is not for NVIDIA Test 9000.*lsms_rt\.bench\.gpu\.tune"):
        choices.read(gpu, "3.6.0")
    choices.read.cache_clear()
    choices._planned.cache_clear()


def test_floors_are_of_the_real_launches() -> None:
    """The bytes in the table are at least those of the tensors of the launches, each counted once."""
    for shape in stage_shapes("base", 512):
        for step, module in zip(roofline.fused(shape, 1), registry.chain(shape), strict=True):
            assert step.name == registry.name(module)
            inputs, outputs = registry.signature(module, shape)
            maps = sum(name in ("x", "a", "s", "u", "y") for name in (*inputs, *outputs))
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
