"""Builds for speed alone: options, and a recipe of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsms_rt.bench import unjudged as module
from lsms_rt.bench.unjudged import unjudged, write_noise_recipe
from lsms_rt.calibration.recipe import read_recipe
from lsms_rt.data import demo_calibration
from lsms_rt.machine.cpu import Cpu


@pytest.mark.parametrize(("instructions", "rest"), [(("avx512_bf16",), "bf16"), (("avx2",), "fp32"), (None, "fp32")])
def test_int8_takes_bf16_for_the_rest_where_the_cpu_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instructions: tuple[str, ...] | None, rest: str
) -> None:
    monkeypatch.setattr(module, "find", lambda: Cpu(name="a CPU", instructions=instructions))
    monkeypatch.setattr(module, "write_noise_recipe", lambda engine, output: output)
    options = unjudged("openvino", "int8", tmp_path / "checkpoint", tmp_path / "fp32.engine")
    assert (options.precision, options.rest, options.gated) == ("int8", rest, False)
    assert options.calibration == tmp_path / "noise.calibration" and options.gate.accept
    # ONNX Runtime has no bf16.
    assert unjudged("onnxruntime", "int8", tmp_path / "checkpoint", tmp_path / "fp32.engine").rest == "fp32"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_precisions_need_no_recipe(tmp_path: Path, precision: str) -> None:
    options = unjudged("openvino", precision, tmp_path)
    assert (options.precision, options.rest, options.calibration) == (precision, None, None)
    assert not options.gated and not options.verify_slices


@pytest.mark.slow
def test_a_recipe_of_noise_has_the_layers_of_the_bundled_one(demo_engine: Path, tmp_path: Path) -> None:
    recipe = read_recipe(write_noise_recipe(demo_engine, tmp_path / "noise"))
    bundled = read_recipe(demo_calibration())
    assert set(recipe.layers["image"]) == set(bundled.layers["image"]) and not recipe.layers["text"]
    recipe.check(bundled.weights_digest, 256)
    assert 0.4 < recipe.macs_share < bundled.macs_share
