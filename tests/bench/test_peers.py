"""Side by side: which rows there are, what they are divided by, and what records and tables say of it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lsms_rt.bench.compare import compare
from lsms_rt.bench.options import PeersOptions
from lsms_rt.bench.peers import contenders, side_by_side, ways
from lsms_rt.bench.peers.contenders import CONTENDERS, OURS, Contender
from lsms_rt.bench.peers.ways import SERIES, SINGLE
from lsms_rt.bench.peers.worker import LOGITS
from lsms_rt.bench.records import PEERS, Record, read, record_of
from lsms_rt.bench.summary import _one, _peer_goals, _peers
from lsms_rt.bench.tables import markdown
from lsms_rt.bench.timing import Cost
from lsms_rt.cli.bench import split_names
from lsms_rt.cli.main import main
from lsms_rt.engine import openvino as backend
from lsms_rt.errors import InputError
from lsms_rt.machine.cpu import Cpu
from lsms_rt.model import LSMS, TextConfig, preset

OLD = Path(__file__).parents[2] / "bench/results/cpu/peers_tiny_512_busy_host.json"
BF16 = "ours in OpenVINO, bf16"
# Seconds of a series of four slices.
SECONDS = {
    OURS: 0.4, f"{OURS}, {SINGLE}": 0.44, "ours in OpenVINO, fp32": 0.36, f"ours in OpenVINO, fp32, {SINGLE}": 0.4,
    BF16: 0.2, f"{BF16}, {SINGLE}": 0.24, "eager": 1.2, "OpenVINO, as a user would try it": 0.28,
}  # fmt: skip
NAMES = (OURS, "ours in OpenVINO, fp32", BF16, "eager", "OpenVINO, as a user would try it")


class FakeWorker:
    """Takes the seconds of the table, and twice as many on all cores together."""

    def __init__(self, folder: Path, contender: Contender, threads: int) -> None:
        self.ready = {"open_s": 1.0, "first_slice_s": 0.1, "peak_rss_mb": 500.0}
        self.contender = contender
        for form in contender.forms:
            np.save(folder / LOGITS.format(contender.row(form)), np.full((4, 2, 2), SECONDS[contender.row(form)]))

    def series(self, form: str) -> Cost:
        seconds = SECONDS[self.contender.row(form)]
        return Cost(seconds, 2 * seconds)

    def stop(self) -> None:
        pass


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    monkeypatch.setattr(Contender, "absent", None)
    monkeypatch.setattr(side_by_side, "Worker", FakeWorker)
    options = PeersOptions(slices=4, launches=5, rounds=2, names=NAMES)
    found = side_by_side.run(tmp_path, options, lambda _: None)
    record = record_of(PEERS, (), weights="random", image_size=64, **found)
    return json.loads(json.dumps(record))  # type: ignore[no-any-return]


def rows_of(record: Record) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in record["rows"]}


def test_times_are_divided_by_the_default_and_by_our_best_of_the_same_form(record: Record) -> None:
    assert record["best"] == {SERIES: BF16, SINGLE: f"{BF16}, {SINGLE}"}
    rows = rows_of(record)
    assert {name: row["ms_a_slice"]["p50"] for name, row in rows.items()} == pytest.approx(
        {name: 250 * seconds for name, seconds in SECONDS.items()}
    )
    assert all(row["cpu_ms_a_slice"]["p50"] == 2 * row["ms_a_slice"]["p50"] for row in rows.values())
    assert rows["eager"]["times_ours"]["value"] == 3 and rows["eager"]["times_best"]["value"] == 6
    assert rows[f"{OURS}, {SINGLE}"]["times_best"]["value"] == pytest.approx(0.44 / 0.24, abs=1e-4)
    assert rows[OURS]["times_best"]["value"] == 2
    assert {name for name, row in rows.items() if row["ours"]} == {name for name in SECONDS if name.startswith("ours")}
    goals = {name: row["goal_best"] for name, row in rows.items() if "goal_best" in row}
    assert goals == {"eager": 5.0, f"{OURS}, {SINGLE}": 1.5, "OpenVINO, as a user would try it": 1.5}


def test_the_table_says_what_is_reached_and_what_is_not(record: Record) -> None:
    lines = {line.split(":")[0].removeprefix("| "): line for line in markdown(record).splitlines()}
    assert "| times our best (95 %) | goal | CPU ms per slice |" in markdown(record)
    assert "| 300.0 | 3.00 (3.00 to 3.00) | 6.00 (6.00 to 6.00) | 5 | 600.0 |" in lines["eager"]
    assert "| 1.40 (1.40 to 1.40) | 1.5, not reached |" in lines["OpenVINO, as a user would try it"]
    assert "| 50.0 | 0.50 (0.50 to 0.50) | 1 |  | 100.0 |" in lines[BF16]
    assert "the same engine in the same process" in lines[f"{OURS}, {SINGLE}"]
    assert f"Our best: {SERIES}: {BF16}; {SINGLE}: {BF16}, {SINGLE}." in markdown(record)


def test_the_summary_names_the_engine_that_it_divides_by(record: Record) -> None:
    assert _one(record) == BF16
    rows = "ours, one slice at a time (ONNX Runtime) 1.83; eager 6.00; OpenVINO, as a user would try it 1.40"
    assert _peers(record) == rows
    assert _peer_goals(record) == "1.5; 5; 1.5 (not reached)"
    old = read(OLD)
    assert _one(old) == "ours" and _peers(old).startswith("eager ")


def test_a_record_of_version_0_1_keeps_its_table() -> None:
    text = markdown(read(OLD))
    assert "| times ours (range) | goal | max. logit difference |" in text
    assert "our best" not in text.lower() and "CPU ms" not in text


def test_an_old_and_a_new_record_are_compared_by_what_both_have(record: Record) -> None:
    names = {row.name for row in compare(read(OLD), record)[0]}
    assert names == {"ours", "eager", "eager, times ours"}


def test_our_faster_engine_is_no_slower_peer(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The times of a peer fall when we become slower; those of our own engines when we become faster."""
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    files[0].write_text(json.dumps(record))
    row = rows_of(record)[BF16]
    for field in ("ms_a_slice", "cpu_ms_a_slice"):
        row[field]["samples"] = [value / 2 for value in row[field]["samples"]]
    files[1].write_text(json.dumps(record))
    verdicts = {row.name: row.verdict for row in compare(*map(read, files))[0] if BF16 in row.name}
    of_series = {name: verdict for name, verdict in verdicts.items() if SINGLE not in name}
    assert of_series == {BF16: "faster", f"{BF16}, times as fast as ours": "faster", f"CPU of {BF16}": "faster"}
    arguments = ["bench", "compare", "--fail-on-slower"]
    assert main([*arguments, *map(str, files)]) == 0
    assert main([*arguments, *map(str, reversed(files))]) == 1
    assert f"slower: {BF16}" in capsys.readouterr().err


def test_contenders_are_left_out_by_names_with_commas() -> None:
    known = tuple(contender.name for contender in CONTENDERS)
    assert split_names("", known) == ()
    assert split_names("eager", known) == ("eager",)
    assert split_names("eager, text once", known) == ("eager, text once",)
    text = "OpenVINO,torch.compile, text once , OpenVINO, as a user would try it,eager"
    names = ("OpenVINO", "torch.compile, text once", "OpenVINO, as a user would try it", "eager")
    assert split_names(text, known) == names
    assert split_names(",".join(known), known) == known
    for unknown in ("text once", "eager,magic", "OpenVIN"):
        with pytest.raises(InputError, match="--without .*; choose from ours; ours in OpenVINO"):
            split_names(unknown, known)


def test_bf16_is_absent_without_its_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    (bf16,) = (contender for contender in CONTENDERS if contender.name == BF16)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(contenders, "find", lambda: Cpu(name="a CPU", instructions=("avx2",)))
    assert bf16.absent == "this CPU does not multiply bf16 (a CPU; avx2)"
    monkeypatch.setattr(contenders, "find", lambda: Cpu(name="a CPU", instructions=("avx2", "avx512_bf16")))
    assert bf16.absent is None


def test_a_user_gives_openvino_no_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own precision, one call per slice, and only the number of threads if that is fixed for all."""
    seen: dict[str, Any] = {"calls": 0}

    class Core:
        def read_model(self, path: Path) -> str:
            return path.name

        def compile_model(self, model: str, device: str, settings: dict[str, str]) -> Any:
            seen.update(model=model, device=device, settings=settings)
            return run

    def run(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        seen["calls"] += 1
        assert set(feeds) == {"image", "tokens", "mask"}
        return [feeds["image"]]

    monkeypatch.setattr(backend, "load", lambda: SimpleNamespace(Core=Core))
    images = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
    forms = ways.openvino_naive(tmp_path, 0)
    logits = forms[SERIES](images, np.ones((1, 4), np.int64), np.ones((1, 4), np.float32))
    assert np.array_equal(logits, images[:, 0])
    assert seen == {"model": "naive.onnx", "device": "CPU", "settings": {}, "calls": 3}
    ways.openvino_naive(tmp_path, 2)
    assert seen["settings"] == {"INFERENCE_NUM_THREADS": "2"}


def test_an_engine_computes_a_series_and_single_slices(demo_engine: Path) -> None:
    forms = ways.engine(demo_engine.name, "cpu")(demo_engine.parent, 1)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 1, 256, 256)).astype(np.float32)
    tokens, mask = np.array([[2, 5, 3, *[0] * 29]]), np.array([[1.0] * 3 + [0.0] * 29], np.float32)
    series, single = (forms[form](images, tokens, mask) for form in (SERIES, SINGLE))
    assert series.shape == (2, 256, 256)
    np.testing.assert_allclose(series, single, atol=1e-4)


def test_pytorch_answers_alike_in_every_type_and_through_the_runner(tmp_path: Path) -> None:
    """On the CPU, in place of a GPU; float64 stands for float16, which is slow there."""
    torch.manual_seed(0)
    text = TextConfig(vocab_size=50, hidden_size=32, layers=1, heads=2, intermediate_size=64, max_tokens=12)
    LSMS(preset("tiny", image_size=64, text=text)).save_pretrained(tmp_path / "checkpoint")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 1, 64, 64)).astype(np.float32)
    tokens, mask = np.array([[2, 5, 3]]), np.ones((1, 3), np.float32)
    opened = (
        ways.eager("reference", True),
        ways.eager("reference", False, "cpu", "float64"),
        ways.runner("stock", "cpu"),
    )
    answers = [open_(tmp_path, 0)[SERIES](images, tokens, mask) for open_ in opened]
    assert {(answer.shape, answer.dtype.name) for answer in answers} == {((2, 64, 64), "float32")}
    largest = np.abs(answers[0]).max()
    for other in answers[1:]:
        np.testing.assert_allclose(other, answers[0], rtol=0, atol=1e-5 * largest)
    names = {contender.name for contender in CONTENDERS if contender.gpu}
    assert names >= {"eager on a GPU in float16, text once", "torch.compile on a GPU in float16, text once"}


def test_two_slices_are_under_way_and_answers_stay_in_order() -> None:
    """As with our runner, no contender waits for a slice before it has queued the next."""
    order: list[str] = []

    def start(image: torch.Tensor) -> Callable[[], torch.Tensor]:
        order.append(f"start {image.item():.0f}")

        def wait() -> torch.Tensor:
            order.append(f"wait {image.item():.0f}")
            return image[:, 0]

        return wait

    found = ways._in_flight(np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1), start)
    assert order == ["start 0", "start 1", "wait 0", "start 2", "wait 1", "wait 2"]
    assert found.ravel().tolist() == [0, 1, 2]
