"""Tuning of tile sizes: which candidate is chosen, and what a fault costs.  Nothing here needs a GPU."""

from __future__ import annotations

import inspect
import itertools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_checks import check_launches
from triton.runtime.errors import OutOfResources

from lsms_rt.bench.gpu import plan, tune
from lsms_rt.bench.samples import Samples
from lsms_rt.bench.timing import Effort, measure
from lsms_rt.kernels import fold_keys, mix, registry
from lsms_rt.kernels import tuned_tiles as choices
from lsms_rt.kernels import verify as verification
from lsms_rt.kernels.launch import Launch, shape_of_rows
from lsms_rt.kernels.shape import Shape, all_shapes, shapes_around

SMALL = Shape(32, 4, 4, dtype="fp32")


def stopwatch(run: Callable[[], object], *, graph: bool = True) -> Samples:
    """The wall clock, one sample."""
    return measure(run, Effort(0, 0, 1, 1))


def with_times(
    monkeypatch: pytest.MonkeyPatch, timed: Callable[[dict[str, Any]], float | None], wrong: Callable[..., bool]
) -> list[dict[str, Any]]:
    """Give candidates times and faults; return the list of those that are verified, as they come."""
    verified: list[dict[str, Any]] = []

    def verify(module: Any, shape: Shape, tensors: Any, plan: Any) -> list[verification.Deviation]:
        launch = plan(lambda _, **tiles: verified.append(tiles) or mix.launch(shape), shape)
        assert isinstance(launch, Launch)
        return [verification.Deviation("mix", "y", shape.key, 1, float(wrong(verified[-1])), 0.1)]

    monkeypatch.setattr(tune.verification, "verify", verify)
    monkeypatch.setattr(tune, "_time", lambda *arguments: timed(arguments[-1]))
    monkeypatch.setattr(tune, "count_different", lambda *_: 0)
    return verified


def test_tuning_chooses_the_fastest_correct_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are faster, but wrong, too large for the GPU, or not the same bits again."""

    def timed(tiles: dict[str, Any]) -> float | None:
        if tiles.get("warps") == 8:
            return None
        return 0.4 if tiles.get("stages") == 3 else {16: 1.0, 32: 0.5, 64: 0.1}.get(tiles.get("pixels", 0), 2.0)

    verified = with_times(monkeypatch, timed, lambda tiles: tiles.get("pixels") == 64)
    racy = []

    def count_different(module: Any, shape: Shape, tensors: Any, repeats: int, plan: Any) -> int:
        plan(lambda _, **tiles: racy.append(tiles) or mix.launch(shape), shape)
        return int(racy[-1].get("stages") == 3)

    monkeypatch.setattr(tune, "count_different", count_different)
    found, share = tune.best(mix, SMALL, {}, stopwatch, stopwatch)
    assert (found["pixels"], found["warps"], found["stages"], share) == (32, 4, 2, 0.25)
    # The default, then by time: the wrong ones do not take the place of a finalist.
    assert verified[0] == {}
    assert verified[1]["pixels"] == 64
    assert any(tiles.get("stages") == 3 for tiles in racy)


def test_finalists_are_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look of some milliseconds may be wrong about neighbors; only so many are verified."""
    tried = list(tune.candidates(mix, SMALL))
    fast = tried[2 : 2 + tune.FINALISTS]
    times = {str(tiles): 0.1 * (1 + i) for i, tiles in enumerate(fast)}

    def rough(run: Callable[[], object], *, graph: bool = True) -> Samples:
        raise AssertionError("times are given")

    def timed(module: Any, shape: Shape, tensors: Any, stopwatch: Any, tiles: dict[str, Any]) -> float:
        time = times.get(str(tiles), 1.0)
        return time if stopwatch is rough else 1.0 - time if tiles else 2.0

    verified = with_times(monkeypatch, lambda _: None, lambda _: False)
    monkeypatch.setattr(tune, "_time", timed)
    found, share = tune.best(mix, SMALL, {}, stopwatch, rough)
    assert found == fast[-1]
    assert share is not None
    assert verified == [{}, *fast]


def test_tuning_goes_on_when_the_default_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list(tune.candidates(mix, SMALL))
    with_times(monkeypatch, lambda tiles: 0.25 if tiles == tried[1] else 0.5, lambda tiles: not tiles)
    assert tune.best(mix, SMALL, {}, stopwatch, stopwatch) == (tried[1], None)
    monkeypatch.setattr(tune, "_is_right", lambda *_: False)
    with pytest.raises(RuntimeError, match="mix is wrong at c32_h4_w4_t32_fp32 with any tile sizes"):
        tune.best(mix, SMALL, {}, stopwatch, stopwatch)


def test_an_error_of_a_compiler_costs_a_candidate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def prepared(*_: Any) -> None:
        raise OutOfResources(1, 1, "shared memory")

    monkeypatch.setattr(tune, "prepared", prepared)
    assert tune._time(mix, SMALL, {}, stopwatch, {"warps": 8}) is None
    assert "mix c32_h4_w4_t32_fp32 {'warps': 8}: OutOfResources" in capsys.readouterr().err


def test_a_fault_costs_tuning_one_kernel_only(capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[dict[str, Any]] = []
    tests = Path(__file__).parents[1]
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests / "helpers")))}
    units = [
        plan.Unit(section="tune", name=name, function=f"gpu_faults:{name}", variables=paths)
        for name in ("aborts", "right")
    ]
    assert tune.tune(units, kept.append) == 1
    assert "error: aborts: died by SIGABRT; what it has not tuned stays" in capsys.readouterr().err
    assert len(kept) == 2
    (unit, *_) = tune.units([SMALL], 1)
    inspect.signature(tune.kernel_unit).bind(**unit.arguments)
    assert Shape(**unit.arguments["shapes"][0]) == SMALL


@pytest.mark.parametrize("module", (*registry.MODULES, *registry.AROUND))
def test_every_candidate_is_a_launch(module: Any) -> None:
    """For all kernels and real shapes, n and k divide the channels, and the grid covers the map."""
    kinds = itertools.product(("tiny", "base"), (224, 512), ("fp16", "fp32"))
    around = [s for kind in kinds for s in shapes_around(*kind)]
    for shape in [*(s for dtype in ("fp16", "fp32") for s in all_shapes((224, 512), dtype)), *around]:
        if module not in registry.modules_at(shape):
            continue
        for tiles in tune.candidates(module, shape):
            check_launches(module, shape, tiles)


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
    # A file of another version of this package.
    choices.write(tmp_path, gpu, "3.6.0", 1, {fold_key: {"n": 64, "form": "once"}})
    choices.read.cache_clear()
    choices._planned.cache_clear()
    with pytest.raises(ValueError, match=rf"{fold_key} are not for this version .*'form'.*tune again"):
        choices.planned(fold_keys.launch, rows)
    choices.write(tmp_path, gpu, "3.6.0", 1, {choices.key_of("chain", shape): {"name": "merged"}})
    choices.read.cache_clear()
    assert registry.chain(shape) == registry.chain(shape, "merged") != registry.chain(shape, "separate")
    path.write_text(json.dumps({"gpu": "another", "triton": "3.6.0", "tiles": {}}))
    choices.read.cache_clear()
    with pytest.raises(ValueError, match=r"is not for NVIDIA Test 9000.*lsms_rt\.bench\.gpu\.tune"):
        choices.read(gpu, "3.6.0")
    choices.read.cache_clear()
    choices._planned.cache_clear()


def test_the_driver_is_asked_once_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def name(index: int) -> str:
        asked.append(index)
        return f"NVIDIA Test {index}"

    current = iter([0, 1, 0, 1])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: next(current))
    monkeypatch.setattr(torch.cuda, "get_device_name", name)
    caches = (choices._has_gpu, choices._named)
    for cache in caches:
        cache.cache_clear()
    found = [choices._device() for _ in range(4)]
    for cache in caches:
        cache.cache_clear()
    assert [pair and pair[0] for pair in found] == [f"NVIDIA Test {index}" for index in (0, 1, 0, 1)]
    assert asked == [0, 1]


def test_the_faster_chain_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if it is faster by more than noise; with one unit after those of the kernels whose tiles it uses."""
    shape = Shape(32, 4, 4)
    monkeypatch.setattr(tune, "block_tensors", lambda *_, **__: {})
    monkeypatch.setattr(tune, "verify_block", lambda *_: [{"ok": True}])
    for times, expected in (
        ({"separate": 1.0, "merged": 0.5}, {"tiles": {"name": "merged"}, "share": 0.5}),
        ({"separate": 1.0, "merged": 0.99}, {"tiles": {}, "share": 1.0}),
    ):
        monkeypatch.setattr(tune, "_chain_time", lambda name, *_, times=times: times[name])
        assert tune.best_chain(shape, 1, "cpu", stopwatch) == expected
    units = [unit.function.rpartition(":")[2] for unit in tune.units([shape], 1)]
    assert units == ["kernel_unit"] * len(registry.modules_at(shape)) + ["chain_unit"]
    assert "chain_unit" not in [unit.function.rpartition(":")[2] for unit in tune.units([Shape(160, 4, 4)], 1)]


def test_a_wrong_chain_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "block_tensors", lambda *_, **__: {})
    monkeypatch.setattr(tune, "_chain_time", lambda name, *_: {"separate": 1.0, "merged": 0.5}[name])
    asked = []

    def verify_block(shapes: list[Shape], device: str, chain: str) -> list[dict[str, Any]]:
        asked.append(chain)
        return [{"ok": True}, {"ok": False}]

    monkeypatch.setattr(tune, "verify_block", verify_block)
    assert tune.best_chain(Shape(32, 4, 4), 1, "cpu", stopwatch) == {"tiles": {}, "share": 1.0}
    assert asked == ["merged"]


def test_a_chain_is_timed_with_the_tiles_just_chosen(tmp_path: Path) -> None:
    *kernels, chain = tune.units([Shape(32, 4, 4)], 1, tmp_path)
    assert chain.variables == {choices.VARIABLE: str(tmp_path)}
    assert not any(unit.variables for unit in kernels)


@pytest.mark.parametrize("takes", [{"spills": 0, "shared": 48 * 1024 + 8}, {"spills": 8, "shared": 1024}])
def test_tiles_that_no_plugin_could_use_are_not_chosen(
    takes: dict[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ran asked the driver for more; a plugin would fail on the very GPU that was tuned.  fp32 has none."""

    def resources(launches: list[Launch]) -> dict[str, int]:
        return takes if launches[0].warps == 8 else {"spills": 0, "shared": 48 * 1024}

    monkeypatch.setattr(tune, "resources", resources)
    times = {8: 0.1, 4: 0.5}
    with_times(monkeypatch, lambda tiles: times.get(tiles.get("warps", 0), 1.0), lambda _: False)
    assert tune.best(mix, Shape(32, 4, 4), {}, stopwatch, stopwatch)[0]["warps"] == 4
    assert f"spills {takes['spills']} B, shared {takes['shared']} B (limit 49152)" in capsys.readouterr().err
    assert tune.best(mix, SMALL, {}, stopwatch, stopwatch)[0]["warps"] == 8
