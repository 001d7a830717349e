"""The benchmarks of the command line, run with the smallest models and the fewest samples."""

from __future__ import annotations

import importlib.util
import json
import shutil
from argparse import Namespace
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shallow import TEXT, doubled, save_shallow, shallow

from lsms_rt.bench import half_precision
from lsms_rt.bench.engine import measure_engine
from lsms_rt.bench.options import EngineOptions, PeersOptions, ScalingOptions
from lsms_rt.bench.peers.contenders import CONTENDERS, OURS
from lsms_rt.bench.peers.side_by_side import GOALS, REFERENCE, random_inputs
from lsms_rt.bench.peers.side_by_side import run as run_peers
from lsms_rt.bench.peers.ways import SINGLE
from lsms_rt.bench.records import SCALING, read, record_of
from lsms_rt.bench.samples import Samples
from lsms_rt.bench.tables import markdown
from lsms_rt.bench.timing import Effort
from lsms_rt.cli.bench import join_subcommand, print_record
from lsms_rt.cli.main import main
from lsms_rt.data import demo_engine
from lsms_rt.engine import open_directory
from lsms_rt.engine.manifest import write_manifest
from lsms_rt.errors import InputError, MachineError


def test_two_words_are_one_command() -> None:
    assert join_subcommand(["bench", "report", "a.json"]) == ["bench report", "a.json"]
    assert join_subcommand(["bench", "demo"]) == ["bench", "demo"]
    assert join_subcommand(["bench", "./report"]) == ["bench", "./report"]
    assert join_subcommand(["predict", "report"]) == ["predict", "report"]


@pytest.mark.slow
def test_an_engine_is_measured() -> None:
    effort = Effort(0.0, 0.0, 3, 3)
    found = measure_engine(
        demo_engine(), EngineOptions(effort=effort, rounds=2, series=3, cold_starts=1, batches=(1, 2))
    )
    assert {name: value["count"] for name, value in found["latency"].items()} == dict.fromkeys(
        ("predict_cached", "predict_new_sentence", "predict_from_dicom_bytes"), 3
    )
    stages = {name: value["p50"] for name, value in found["stages"].items()}
    assert stages["total"] == pytest.approx(sum(stages.values()) - stages["total"], rel=0.3)
    assert set(found["throughput"]) == {
        "series, batch 1", "series, batch 2", "predict, 1 client", "predict, 2 clients", "predict, 4 clients",
    }  # fmt: skip
    cpu = {name: value["p50"] for name, value in found["cpu_ms_a_slice"].items()}
    assert set(cpu) == set(found["throughput"]) and all(ms > 1 for ms in cpu.values())
    cold = {name: value["p50"] for name, value in found["cold_start"].items()}
    assert cold["process_to_mask_ms"] > cold["engine_load_ms"] + cold["first_mask_ms"] > 10
    assert found["memory"]["peak_rss_mb"] >= found["memory"]["rss_after_mb"]


@pytest.mark.slow
@pytest.mark.xdist_group("exports")
def test_bench_writes_a_record_that_compares_and_reports(
    small_engine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.json"
    # Batches of 1 and 2 only: a pass with all of the engine's has more slices.
    engine = Path(shutil.copytree(small_engine, tmp_path / "mine.engine"))
    write_manifest(engine, replace(open_directory(engine).manifest, max_batch=2))
    assert main(["bench", str(engine), "--quick", "-o", str(file)]) == 0
    text = capsys.readouterr().out
    assert "### mine.engine: tiny, 128x128, fp32, onnxruntime" in text
    assert "| throughput | slices per second (p50) | CPU ms per slice |" in text
    record = json.loads(file.read_text())
    assert record["engines"]["mine.engine"]["engine"]["digest"].startswith("sha256:")
    assert {name for name in record["engines"]["mine.engine"]["throughput"] if name.startswith("series")} == {
        "series, batch 1", "series, batch 2",
    }  # fmt: skip
    events = {name: Samples((value,)).to_dict() for name, value in (("enqueue", 0.25), ("compute", 1.5))}
    record["engines"]["mine.engine"] |= {"events": {"CUDA graph": events}}
    assert "| CUDA graph, ms (p50) | enqueue | compute |\n|---|---|---|\n| | 0.250 | 1.500 |" in markdown(record)
    print_record(record, Namespace(json=True, output=None))
    assert json.loads(capsys.readouterr().out) == record
    assert main(["bench", "compare", str(file), str(file), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {row["ratio"]["value"] for row in answer["differences"]} == {1.0} and not answer["cautions"]
    assert main(["bench", "report", str(file), "-o", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.md", "run.png"}


@pytest.mark.slow
@pytest.mark.xdist_group("exports")
def test_peers_compute_the_same_logits(tmp_path: Path) -> None:
    prepare = pytest.importorskip("lsms_rt.bench.peers.prepare").prepare
    names = (OURS, REFERENCE, "naive graph")
    save_shallow(tmp_path / "weights")
    what = prepare(tmp_path, tmp_path / "weights", "tiny", 64, names)
    assert not (tmp_path / "naive_image.onnx").exists()
    options = PeersOptions(slices=2, launches=1, rounds=2, threads=1, names=names)
    random_inputs(options, tmp_path, 64, what["max_tokens"], what["vocabulary"])
    messages: list[str] = []
    found = run_peers(tmp_path, options, messages.append)
    rows = {row["name"]: row for row in found["rows"]}
    assert set(rows) == {*names, f"{OURS}, {SINGLE}"} and not found["absent"]
    for name, row in rows.items():
        # The limit is that of LIMITS["fp32"].
        assert row["largest_logit_difference"] < 1e-3 and row["mask_agreement"] > 0.999, name
        assert row["ms_a_slice"]["count"] == 2 and row["open_s"] > 0
        # On one thread; a host that is busy takes longer on the wall.
        assert 0 < row["cpu_ms_a_slice"]["p50"] < 1.5 * row["ms_a_slice"]["p50"], name
    assert rows[OURS]["times_ours"]["value"] == 1
    (tmp_path / "naive.onnx").write_bytes(b"broken")
    with pytest.raises(MachineError, match=r"naive graph failed \(exit code 1\).*--without"):
        run_peers(tmp_path, replace(options, names=("naive graph",)), messages.append)


def test_a_benchmark_prints_a_table_or_json_and_writes_a_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half_precision.main(["-o", str(tmp_path / "a.json")])
    assert "large mean       conventional" in capsys.readouterr().out
    half_precision.main(["--json"])
    assert json.loads(capsys.readouterr().out)["rows"] == read(tmp_path / "a.json")["rows"]


def test_scaling_refuses_what_a_backend_does_not_have() -> None:
    axes = pytest.importorskip("lsms_rt.bench.scaling.axes")
    with pytest.raises(InputError, match="--precision bf16 is for --backend openvino"):
        axes.measure_scaling(ScalingOptions(precision="bf16"), lambda _: None)


def test_goals_name_contenders() -> None:
    assert set(GOALS) <= {contender.row(form) for contender in CONTENDERS for form in contender.forms}


NO_OPENVINO = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")


@pytest.mark.slow
@pytest.mark.xdist_group("exports")
@pytest.mark.parametrize(
    ("backend", "precision"), [("onnxruntime", "fp32"), pytest.param("openvino", "int8", marks=NO_OPENVINO)]
)
def test_scaling_measures_every_point_and_draws_it(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    precision: str,
) -> None:
    """All points use one engine, because building takes most of the time; tests/export compares it with PyTorch."""
    axes = pytest.importorskip("lsms_rt.bench.scaling.axes")
    options = ScalingOptions(
        backend=backend, precision=precision, image_size=64, sizes=(64,), batches=(1, 2), tokens=(64,), slices=(1, 3),
        rounds=2, text=TEXT,
    )  # fmt: skip
    monkeypatch.setattr(axes, "SMALL_TEXT", TEXT)
    # The weights of save_shallow, whose graphs are exported already.
    monkeypatch.setattr(axes, "preset", shallow)
    monkeypatch.setattr(axes, "LSMS", doubled)
    with ExitStack() as stack:
        build, built = axes._engine, {}

        def once(config: Any, options: ScalingOptions) -> Any:
            if config not in built:
                built[config] = stack.enter_context(build(config, options))
            return nullcontext(built[config])

        monkeypatch.setattr(axes, "_engine", once)
        found = axes.measure_scaling(options, lambda _: None)
    assert len(built) == 1
    assert {axis: [point["x"] for point in points] for axis, points in found["axes"].items()} == {
        "image size": [64],
        "batch": [1, 2],
        "slices": [1, 3],
        "sentence, tokens of it": [64],
        "sentence, tokens of the engine": [64],
        "slice, tokens of the engine": [64],
    }
    assert all(point["count"] == 2 and point["p50"] > 0 for points in found["axes"].values() for point in points)
    assert all(point["cpu"]["count"] == 2 for points in found["axes"].values() for point in points)
    assert found["flops"][0]["flops"] > 1e8 and (found["backend"], found["precision"]) == (backend, precision)
    by_precision = {row["precision"] for row in found.get("operators_openvino", [])}
    assert bool(by_precision & {"i8", "u8"}) == (precision == "int8")
    assert {"1x1 convolution", "depthwise convolution", "matrix product", "GELU"} <= {
        row["kind"] for row in found["operators"]
    }
    record = record_of(SCALING, ("numpy",), **found)
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert main(["bench", "report", str(tmp_path / "run.json"), "-o", str(tmp_path / "out")]) == 0
    assert "| image size | 64: " in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "out" / "run.png").stat().st_size > 50_000
    capsys.readouterr()
    assert main(["bench", "compare", str(tmp_path / "run.json"), str(tmp_path / "run.json")]) == 0
    assert "image size: 64" in capsys.readouterr().out
