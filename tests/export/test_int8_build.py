"""From the demo checkpoint to an INT8 engine on the command line: calibration, gate, and TensorRT for RTX."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from lsms_rt import Segmenter, demo_engine
from lsms_rt.calibration import ranges as ranges_module
from lsms_rt.calibration.recipe import read_recipe
from lsms_rt.calibration.search import Search
from lsms_rt.calibration.sensitivity import Probe
from lsms_rt.cli.main import main
from lsms_rt.data import demo_checkpoint
from lsms_rt.datasets.phantom.dataset import write_phantom
from lsms_rt.datasets.phantom.spec import PhantomSpec
from lsms_rt.datasets.refhl import ANNOTATIONS
from lsms_rt.engine import open_directory
from lsms_rt.export.graph.qdq import int8_layers

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("exports")]
SIZE = "128"
# A few slices tell little about accuracy, so the budget is wide enough for the search to find something in any case.
FEW = ["--slices", "4", "--probe", "3", "--held-out", "30", "--by", "group", "--max-dice-drop", "0.2"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "phantom"
    write_phantom(folder, PhantomSpec(cases=10, seed=21, matrix=128))
    # A second case for validation: with one, how much cases differ is unknown, and INT8 is not judged.
    table = folder / "annotations.csv"
    lines = table.read_text().splitlines(keepends=True)
    other = next(line for line in lines if ",train," in line).split(",")[0]
    moved = [line.replace(",train,", ",val,") if line.startswith(f"{other},") else line for line in lines]
    table.write_text("".join(moved))
    return folder


@pytest.fixture(scope="module")
def calibration(dataset: Path) -> Path:
    folder = dataset.with_name("calibration")
    code = main(["calibrate", str(demo_checkpoint()), str(dataset), "--image-size", SIZE, *FEW, "-o", str(folder)])
    assert code == 0
    return folder


def fp32_of(calibration: Path) -> Path:
    """Return the engine that calibrate built from the checkpoint."""
    return next(calibration.glob("fp32-*.engine"))


def build(calibration: Path, output: Path, *more: str) -> int:
    return main(
        ["build-engine", "--precision", "int8", "--calibration", str(calibration), "--image-size", SIZE,
         "--verify-slices", "2", "--gate-sentences", "30", "-o", str(output), *more]
    )  # fmt: skip


@pytest.fixture(scope="module")
def engine(calibration: Path) -> Path:
    """INT8 with fp16, as graphs; it passes the gate on eighty sentences, with a budget for so few."""
    path = calibration.with_name("int8.engine")
    assert build(calibration, path, "--gate-sentences", "80", "--max-dice-drop", "0.2") == 0
    return path


def test_what_calibrate_writes(calibration: Path) -> None:
    recipe = read_recipe(calibration)
    assert (recipe.preset, recipe.image_size, recipe.max_dice_drop) == ("tiny", 128, 0.2)
    # Attention's products of two activations are never INT8.
    assert 0.3 < recipe.macs_share < 0.92
    assert recipe.measured["held_out"]["passed"] and recipe.measured["held_out"]["sentences"] == 30
    layers, kept = (set(recipe.layers["image"]), set(recipe.kept["image"]))
    assert layers and not layers & kept
    assert not [name for name in layers if ".svla.rows" in name or ".svla.columns" in name or "depthwise" in name]
    slices = json.loads((calibration / "slices.json").read_text())
    assert len(slices["rows"]) == 4 and slices["split"] == "train"
    assert {path.name for path in calibration.iterdir()} > {"layers.png", "ranges-minmax.json", "trials.json"}


def test_calibrate_again_measures_nothing_again(
    calibration: Path,
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the engine instead of the checkpoint, with ranges and effects in the folder; the search finds nothing.

    That an interrupted run resumes with the same numbers is tested with fakes (tests/calibration/test_search.py).
    """

    def measured_again(*_: object) -> None:
        pytest.fail("ranges or effects were measured again")

    monkeypatch.setattr(ranges_module, "measure_ranges", measured_again)
    monkeypatch.setattr(Probe, "effect", measured_again)
    monkeypatch.setattr(Search, "run", lambda *_: None)
    again = tmp_path / "again"
    shutil.copytree(calibration, again)
    assert main(["calibrate", str(fp32_of(calibration)), str(dataset), *FEW, "-o", str(again)]) == 4
    message = capsys.readouterr().err
    assert "no set of layers stays within --max-dice-drop 0.2" in message
    assert "if a larger loss is acceptable" in message
    # An old recipe does not outlive a search that finds nothing; the measurements stay.
    assert not (again / "recipe.json").exists()
    for path in (*calibration.glob("ranges-*.json"), *calibration.glob("effects-*.json"), calibration / "slices.json"):
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_the_manifest_describes_what_is_int8(engine: Path, calibration: Path) -> None:
    manifest, recipe = open_directory(engine).manifest, read_recipe(calibration)
    assert manifest.precision == "int8" and manifest.calibration is not None
    assert manifest.calibration["recipe_digest"] == recipe.digest and manifest.calibration["rest"] == "fp16"
    for name in ("text", "image"):
        graph = onnx.load(engine / f"{name}.onnx")
        assert sorted(int8_layers(graph)) == sorted(recipe.layers[name])
        onnx.checker.check_model(graph, full_check=True)
    assert manifest.gate["passed"] and not manifest.gate["accepted"]
    assert manifest.gate["sentences"] == 80 and manifest.gate["dice"]["n"] > 10
    assert 0.3 < manifest.calibration["macs_share"] == round(recipe.macs_share, 4)
    # The first figures are those of the graphs that are shipped.
    assert manifest.accuracy["measured_with"].startswith("onnxruntime")
    assert manifest.accuracy["rest_in_float16"]["max_logit_difference"] < manifest.accuracy["max_logit_difference"]
    assert manifest.rebuild.count("--calibration DIR") == 1
    report = engine.with_name("int8.report.html").read_text()
    assert "INT8" in report and recipe.digest[:16] in report


def test_its_answers_are_near_the_reference(engine: Path, calibration: Path, abdomen: np.ndarray) -> None:
    with Segmenter(engine) as a, Segmenter(fp32_of(calibration)) as b:
        int8, fp32 = (s.predict(abdomen, "the cyst in the liver").probability for s in (a, b))
    assert 1e-5 < np.abs(int8 - fp32).mean() < 0.05


def test_the_rest_in_fp32(calibration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(calibration, tmp_path / "x.engine", "--rest", "fp32", "--gate-sentences", "0", "--accept") == 0
    said = capsys.readouterr().out
    for words in ("the rest in fp32", "did not run INT8 faster than fp32", "accuracy gate skipped"):
        assert words in said
    manifest = open_directory(tmp_path / "x.engine").manifest
    assert manifest.kept_in_fp32 == {} and manifest.gate == {"passed": False, "skipped": True, "accepted": True}
    assert manifest.rebuild.count("--calibration DIR --rest fp32") == 1
    graph = onnx.load(tmp_path / "x.engine" / "image.onnx")
    kinds = {t.data_type for t in graph.graph.initializer if t.name.endswith(".scale")}
    assert kinds == {onnx.TensorProto.FLOAT}


def test_tensorrt_for_rtx_builds_it(engine: Path, tmp_path: Path) -> None:
    """The builder reads the Q/DQ nodes as INT8: its layers include INT8 products."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'lsms-rt[dev]' on Linux x86_64")
    path = tmp_path / "plans.engine"
    assert (
        main(["build-engine", "--from", str(engine), "--backend", "tensorrt-rtx", "--target", "sm_89", "-o", str(path)])
        == 0
    )
    manifest = open_directory(path).manifest
    assert (manifest.backend, manifest.precision) == ("tensorrt-rtx", "int8")
    assert manifest.calibration and manifest.gate["of"].startswith("the graphs")
    kinds = json.loads((path / "layers.json").read_text())["image.plan"]["summary"]["by_type_and_precision"]
    assert any("Int8" in kind for kind in kinds), kinds


def test_the_gate_rejects_an_engine_and_reports_why(
    calibration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranges a hundred times too small clip everything: only the report is written; --accept is recorded."""
    bad = tmp_path / "bad"
    bad.mkdir()
    values = json.loads((calibration / "recipe.json").read_text())
    values["layers"]["image"] = {name: limit / 100 for name, limit in values["layers"]["image"].items()}
    (bad / "recipe.json").write_text(json.dumps(values))
    output = tmp_path / "bad.engine"
    more = ("--rest", "fp32", "--verify-slices", "0", "--report", str(tmp_path / "why" / "report.html"))
    assert build(bad, output, *more) == 4
    said = capsys.readouterr().err
    assert "the accuracy gate rejected this int8 engine: mean Dice changes from" in said and "or add --accept" in said
    assert not output.exists() and not list(tmp_path.glob(".building*"))
    assert "<b>Rejected.</b>" in (tmp_path / "why" / "report.refused.html").read_text()
    assert not (tmp_path / "why" / "report.html").exists()
    assert build(bad, output, "--accept", *more) == 0
    assert "failed, accepted with --accept" in capsys.readouterr().out
    gate = open_directory(output).manifest.gate
    assert gate["accepted"] and not gate["passed"] and gate["failures"]


def test_what_calibrate_rejects(
    calibration: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, out = str(fp32_of(calibration)), str(tmp_path / "out")
    bad = tmp_path / "bad"
    shutil.copytree(dataset, bad)
    with (bad / ANNOTATIONS).open("a") as file:
        file.write("x,1,nowhere.dcm,nothing.png,,cyst,train,\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("not a calibration")
    for source, data, more, code, said in (
        (
            engine,
            dataset,
            ["-o", str(tmp_path / "other")],
            2,
            "exists and is not a calibration folder; choose a new folder with -o",
        ),
        (engine, bad, [], 2, "sentence is empty; fill it in"),
        (str(tmp_path), dataset, [], 2, "neither an engine nor a checkpoint"),
        (engine, dataset, ["--split", "val"], 2, "INT8 must be judged on rows that ranges were not measured on"),
        (engine, dataset, ["--split", "nowhere"], 2, "it has split 'test', split 'train', split 'val'"),
        (engine, dataset, ["--image-size", "64"], 2, "--image-size is for a checkpoint"),
        (engine, dataset, ["--max-dice-drop", "2"], 2, "not a number from 0 to 1"),
    ):
        try:
            found = main(["calibrate", source, str(data), "-o", out, *more])
        except SystemExit as error:
            # argparse exits after a usage error.
            found = int(error.code or 0)
        assert found == code and said in capsys.readouterr().err, said


def test_a_calibration_of_other_weights_or_size_is_rejected(
    calibration: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build(calibration, tmp_path / "x.engine", "--image-size", "64") == 2
    assert "the calibration is for 128x128, but the engine would be 64x64" in capsys.readouterr().err
    values = json.loads((calibration / "recipe.json").read_text()) | {"weights_digest": "00" * 32}
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    assert build(tmp_path, tmp_path / "x.engine") == 2
    assert "ranges hold only for the weights they were measured with" in capsys.readouterr().err


def test_only_fp32_engines_are_calibrated(
    engine: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", str(engine), str(dataset), "-o", str(tmp_path / "c")]) == 4
    assert "is an engine for onnxruntime in int8" in capsys.readouterr().err
    assert demo_engine().exists()
