"""Figures of bench: samples, ratios, verdicts, tables, and the effort that is spent on them."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsms_rt.bench.compare import compare, verdict
from lsms_rt.bench.device_times import host_bound
from lsms_rt.bench.records import KINDS, PEERS, read, record_of, write
from lsms_rt.bench.report import filled, write_report
from lsms_rt.bench.samples import Ratio, Samples, instability, nested_ratio, unpaired_ratio
from lsms_rt.bench.tables import compare_table, markdown
from lsms_rt.bench.timing import Effort, measure, rounds
from lsms_rt.bench.values import values_of
from lsms_rt.cli.main import main
from lsms_rt.errors import InputError


class Clock:
    """A clock that only :meth:`spend` advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


def test_a_percentile_needs_samples_beyond_it() -> None:
    few, many = Samples(tuple(range(1, 21))), Samples(tuple(range(1, 201)))
    assert few.percentile(50) == 10.5 and few.percentile(95) is not None
    assert few.percentile(99) is None
    assert many.percentile(99) == pytest.approx(np.percentile(range(1, 201), 99))
    assert Samples.from_dict(json.loads(json.dumps(many.to_dict()))) == many


def test_drift_cancels_in_ratios_of_one_round() -> None:
    """The machine slows down threefold in the middle: 2 to 1 stays 2 to 1, and the interval is narrow."""
    speed = np.r_[np.ones(8), np.full(8, 3.0)]
    noise = np.random.default_rng(0).normal(1, 0.005, 16)
    paired = nested_ratio((2 * speed * noise).reshape(4, 4), speed.reshape(4, 4))
    assert paired.value == pytest.approx(2, rel=0.01) and paired.high / paired.low < 1.02
    loose = unpaired_ratio(2 * speed * noise, speed)
    assert loose.low <= 2 <= loose.high and loose.high / loose.low > 1.5


def test_an_interval_covers_the_true_ratio_as_often_as_stated() -> None:
    rng, hits = np.random.default_rng(1), 0
    for trial in range(100):
        # Processes differ by more than their rounds.
        launch = rng.lognormal(np.log(1.5), 0.1, (9, 1))
        times = launch * rng.lognormal(0, 0.01, (9, 3))
        found = nested_ratio(times, np.ones((9, 3)), seed=trial)
        hits += found.low <= 1.5 <= found.high
    # 95 of 100; a bootstrap of medians of nine is a little off.
    assert 85 <= hits <= 99


def test_the_stopwatch_warms_up_and_then_counts_seconds_or_samples() -> None:
    clock = Clock()
    calls: list[float] = []

    def run() -> None:
        calls.append(clock.now)
        clock.spend(0.01)

    samples = measure(run, Effort(0.2, 1.0, 10), clock)
    # Calls of the warm-up.
    assert len(calls) - len(samples.values) == 20
    assert len(samples.values) == 100 and samples.median == pytest.approx(10)
    slow = measure(lambda: clock.spend(1.0), Effort(0.2, 1.0, 10), clock)
    assert len(slow.values) == 10


def test_rounds_are_interleaved_and_the_first_is_not_counted() -> None:
    calls: list[str] = []

    def run(name: str) -> int:
        calls.append(name)
        return len(calls)

    found = rounds({name: partial(run, name) for name in "ab"}, 2)
    assert calls == ["a", "b"] * 3 and found == {"a": [3, 5], "b": [4, 6]}
    calls.clear()
    shuffled = rounds({name: partial(run, name) for name in "abc"}, 4, warm_up=0, order=random.Random(0))
    assert [len(values) for values in shuffled.values()] == [4, 4, 4]
    assert all(sorted(calls[n : n + 3]) == ["a", "b", "c"] for n in range(0, 12, 3)) and calls != ["a", "b", "c"] * 4


def test_samples_of_microseconds_keep_four_digits() -> None:
    few = Samples((0.00512345, 12.345678)).to_dict()
    assert few["samples"] == [0.005123, 12.3457]


def test_unstable_samples_are_warned_about() -> None:
    assert not instability("x", Samples((10.0, 10.1, 9.9)))
    assert "vary by" in instability("x", Samples((10.0, 20.0)))[0]


def test_a_gpu_that_waits_for_the_host_is_warned_about() -> None:
    def way(enqueue: float) -> dict[str, Samples]:
        return {"enqueue": Samples((enqueue,) * 3), "compute": Samples((1.0,) * 3)}

    assert host_bound({"CUDA graph": way(0.1), "no CUDA graph": way(0.9)}) == [
        "no CUDA graph: enqueueing takes 90% of the computing time (above 80%): host bound"
    ]


@pytest.mark.parametrize(
    ("ratio", "unit", "expected"),
    [
        (Ratio(1.2, 1.15, 1.25), "ms", "slower"),
        (Ratio(1.2, 1.15, 1.25), "slices/s", "faster"),
        (Ratio(0.8, 0.75, 0.85), "ms", "faster"),
        (Ratio(1.01, 0.99, 1.03), "ms", "same"),
        (Ratio(1.08, 1.0, 1.2), "ms", "unclear"),
        (Ratio(1.0, 0.7, 1.4), "ms", "unclear"),
    ],
)
def test_verdicts(ratio: Ratio, unit: str, expected: str) -> None:
    assert verdict(ratio, unit, 0.05) == expected


def peers_record(scale: float = 1.0) -> dict:
    rng = np.random.default_rng(0)

    def row(name: str, ms: float) -> dict:
        values = ms * rng.normal(1, 0.01, 9)
        return {
            "name": name, "what": f"what {name} is", "ms_a_slice": Samples(tuple(values)).to_dict(),
            "times_ours": {"value": ms / 100, "low": 0.9, "high": 9.0}, "goal": 1.5,
            "largest_logit_difference": 1e-6, "mask_agreement": 1.0, "open_s": 1.0, "first_slice_s": 0.2,
            "peak_rss_mb": None,
        }  # fmt: skip

    return {
        "kind": PEERS, "format": 1, "device": {"processor": "a CPU", "gpu": None}, "versions": {"lsms-rt": "0"},
        "commit": "abc", "date": "2026-01-01", "weights": "random", "image_size": 64, "slices": 4,
        "launches": 9, "rounds": 1, "threads": 2, "answers_compared_with": "eager",
        "rows": [row("ours", 100), row("eager", 300 * scale)], "absent": {"OpenVINO": "not installed: openvino"},
    }  # fmt: skip


def test_compare_sees_what_changed_and_nothing_else() -> None:
    found, cautions = compare(peers_record(), peers_record(1.3))
    assert {d.name: d.verdict for d in found} == {
        # The last one is ours beside a slower eager.
        "ours": "same", "eager": "slower", "eager, times ours": "faster",
    }  # fmt: skip
    assert not cautions
    other = peers_record() | {"device": {"processor": "another", "gpu": None}}
    assert compare(peers_record(), other)[1] == ["devices differ: a CPU vs. another"]


def test_compare_tells_how_the_measurements_differ() -> None:
    def engine(seconds: float, threads: int) -> dict[str, Any]:
        facts = {"digest": "d", "backend": "b", "precision": "fp32", "image_size": 64}
        return {"engine": facts, "method": {"threads": threads, "effort": {"measure_s": seconds, "least_samples": 3}}}

    a, b = peers_record() | {"engines": {"e": engine(3.0, 1)}}, peers_record() | {"engines": {"e": engine(0.3, 2)}}
    assert compare(a, b)[1] == [
        "e: threads differs: 1 vs. 2",
        "e: effort differs: measure_s 3.0, least_samples 3 vs. measure_s 0.3, least_samples 3",
    ]


def test_few_samples_give_no_verdict_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = [peers_record(scale) | {"launches": 3, "rounds": 3} for scale in (1.0, 1.5)]
    assert {d.verdict for d in compare(*few)[0]} == {"unclear"}
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file, record in zip(files, few, strict=True):
        file.write_text(json.dumps(record))
    assert main(["bench", "compare", *map(str, files), "--noise", "0.1"]) == 0
    why = "unclear: the interval reaches into the noise (10%, for two processes' latencies 20%), or is of fewer than 5"
    assert why in capsys.readouterr().out


def test_a_faster_engine_passes_and_a_slower_one_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, slow = peers_record(), peers_record()
    (row,) = (row for row in slow["rows"] if row["name"] == "ours")
    row["ms_a_slice"]["samples"] = [1.3 * value for value in row["ms_a_slice"]["samples"]]
    for name, record in (("plain", plain), ("slow", slow)):
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    files = [str(tmp_path / name) for name in ("plain.json", "slow.json")]
    assert main(["bench", "compare", *files, "--fail-on-slower"]) == 1
    assert "slower: ours, eager, times ours" in capsys.readouterr().err
    assert main(["bench", "compare", *reversed(files), "--fail-on-slower"]) == 0


def test_a_report_has_every_row_and_picture(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(peers_record()))
    page, picture = write_report([tmp_path / "run.json"], tmp_path / "out")
    text = page.read_text()
    assert "what eager is" in text and "not installed: openvino" in text and "commit abc; 2026-01-01" in text
    assert picture.stat().st_size > 10_000 and picture.name in text


def test_tables_in_a_text_are_updated(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(peers_record()))
    text = "before\n<!-- bench: run.json -->\nold\n<!-- bench: end -->\nafter\n"
    once = filled(text, tmp_path)
    assert "old" not in once and "what ours is" in once and once.startswith("before\n") and once.endswith("\nafter\n")
    assert filled(once, tmp_path) == once
    with pytest.raises(InputError, match="has no end"):
        filled("<!-- bench: run.json -->\n", tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "other"}', '{"kind": "peers", "format": 99}'])
def test_other_files_are_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError):
        read(tmp_path / "x.json")


RESULTS = Path(__file__).parents[2] / "bench/results"
COMMITTED = sorted(path for path in RESULTS.rglob("*.json") if path.name != "fuzz.json")


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_every_committed_record_is_read_compared_and_shown(path: Path) -> None:
    record = read(path)
    differences, cautions = compare(record, record)
    assert len(differences) == len(dict(values_of(record))) and not cautions
    assert {difference.verdict for difference in differences} <= {"same", "unclear"}
    assert record["versions"] and markdown(record)


def test_numbers_without_samples_are_compared_exactly() -> None:
    row = {"kernel": "mix", "shape": "c32", "arch": "sm_80", "registers": 100, "spills": 0}
    a, b = (record_of("kernels_compiled", (), rows=[row | changed]) for changed in ({}, {"registers": 90, "spills": 8}))
    found = {difference.name: difference for difference in compare(a, b)[0]}
    assert {name: difference.verdict for name, difference in found.items()} == {
        "mix, c32, sm_80: registers": "lower", "mix, c32, sm_80: spills": "higher"
    }  # fmt: skip
    assert found["mix, c32, sm_80: spills"].to_dict()["ratio"] is None
    assert compare_table(found.values()).splitlines()[-1].split()[-4:] == ["spills", "0", "8", "higher"]
    assert "| mix | c32 | sm_80 | 90 | 8 |" in markdown(b)


def test_a_record_of_rows_has_one_line_per_row(tmp_path: Path) -> None:
    rows = [{"kernel": "mix", "grid": [1, 2]}, {"kernel": "gate", "grid": [3, 4]}]
    record = record_of("kernels_compiled", ("numpy",), rows=rows)
    write(tmp_path / "a.json", record)
    assert read(tmp_path / "a.json") == record
    assert '{"kernel": "mix", "grid": [1, 2]},' in (tmp_path / "a.json").read_text().splitlines()


def test_a_kind_has_to_be_known() -> None:
    with pytest.raises(ValueError, match="'speed' is not a kind of record"):
        record_of("speed", ())
    assert PEERS in KINDS
