"""``make gpu-check`` when things go wrong: every other row arrives, and the summary says what happened.

The units are small functions in real processes; nothing here needs PyTorch or a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lsms_rt.bench import records
from lsms_rt.bench.gpu import check, summary
from lsms_rt.bench.gpu.collect import Run
from lsms_rt.bench.gpu.plan import Unit
from lsms_rt.bench.gpu.row_file import RowFile, read_rows
from lsms_rt.errors import InputError

ROOT = Path(__file__).parents[2]
PATHS = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/helpers'}"}


def unit(function: str, section: str = "verify", kernel: str | None = "mix", **fields: Any) -> Unit:
    return Unit(
        section=section, name=f"{function}, {kernel}", function=f"gpu_faults:{function}", variables=PATHS,
        arguments={"kernel": kernel} if kernel else {}, **{"least": 0.1, **fields},
    )  # fmt: skip


def run(units: Sequence[Unit], folder: Path, seconds: float = 540) -> Run:
    return check.run_units(units, folder, argparse.Namespace(seconds=seconds, jobs=2, commit="abc1234"), "Test 9000")


def outcomes(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {row["unit"]: (row["state"], row["reason"]) for row in rows if row["kind"] == "outcome"}


@pytest.mark.parametrize("parallel", [True, False])
def test_a_fault_costs_its_own_unit_only(parallel: bool, tmp_path: Path) -> None:
    functions = ("right", "raises", "aborts", "wrong", "leaves", "lacks")
    units = [unit(name, parallel=parallel, kernel=None) for name in functions] + [unit("timed", "kernels", "mix")]
    run(units, tmp_path)
    rows = read_rows(tmp_path / "rows.jsonl")
    assert outcomes(rows) == {
        "right, None": ("right", ""),
        "raises, None": ("wrong", "RuntimeError: CUDA error: an illegal memory access was encountered"),
        "aborts, None": ("wrong", "died by SIGABRT"),
        "wrong, None": ("wrong", "1 of 2 rows are wrong"),
        "leaves, None": ("wrong", "ended with exit code 0 before it was done"),
        "lacks, None": ("not run", "pycuda is not installed"),
        "timed, mix": ("right", ""),
    }
    # Rows from before a fault stay: one each of right, raises, aborts and leaves, two of wrong.
    assert sum(row["kind"] == records.KERNELS_VERIFIED for row in rows) == 6
    assert next(row for row in rows if row.get("ok") is False)["error"] == "nan"
    found = json.loads((tmp_path / "summary.json").read_text())
    traces = {entry["unit"]: entry["trace"] for entry in found["wrong"]}
    assert "gpu_faults.py" in traces["raises, None"]
    assert "Fatal Python error: Aborted" in traces["aborts, None"]
    assert found["sections"] == {"verify": {"right": 1, "wrong": 4, "not run": 1}, "kernels": {"right": 1}}
    assert summary.exit_code(found) == 1
    assert "words of a library" in (tmp_path / "log.txt").read_text()


@pytest.mark.slow
def test_a_unit_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    done = run([unit("hangs", limit=2), unit("right", kernel="gate")], tmp_path)
    assert outcomes(done.rows) == {
        "hangs, mix": ("wrong", "ran past its limit of 2 s"), "right, gate": ("right", "")
    }  # fmt: skip
    # Where it hung, in the trace.
    assert "in hangs" in summary.summary(done.rows)["wrong"][0]["trace"]
    (child,) = (row["child"] for row in done.rows if "child" in row)
    for _ in range(50):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            return
        time.sleep(0.1)
    pytest.fail("the process that the unit started is still there")


def test_the_budget_is_shared_out(tmp_path: Path) -> None:
    """A section that does not fit is not run, and one that is cut off is no fault of its own."""
    units = [unit("hangs", "verify", limit=60), unit("right", "models", "gate"), unit("right", "rest", least=30)]
    begin = time.monotonic()
    found = outcomes(run(units, tmp_path, seconds=8).rows)
    assert time.monotonic() - begin < 8
    # Of the three seconds beside the reserve, verify has 60 of 260 parts.
    assert found["hangs, mix"] == ("not run", "budget: cut off after 1 s")
    assert found["right, gate"] == ("right", "")
    state, reason = found["right, mix"]
    assert state == "not run"
    assert reason.startswith("budget: ")


def test_without_its_environment_nothing_runs(tmp_path: Path) -> None:
    units = [unit("raises", "environment", None), unit("right"), unit("timed", "kernels", absent="no such tool")]
    done = run(units, tmp_path)
    assert {state for state, _ in list(outcomes(done.rows).values())[1:]} == {"not run"}
    assert outcomes(done.rows)["right, mix"][1].startswith("environment: RuntimeError: CUDA error")
    assert summary.exit_code(summary.summary(done.rows)) == 1


def test_what_a_machine_lacks_is_not_run(tmp_path: Path) -> None:
    units = [
        unit("right", "ptxas", absent="there is no ptxas"),
        unit("unsupported", "sanitizer", None, prefix=("env",), unsupported="Device not supported"),
    ]
    done = run(units, tmp_path)
    assert outcomes(done.rows) == {
        "right, mix": ("not run", "there is no ptxas"), "unsupported, None": ("not run", "env: Device not supported")
    }  # fmt: skip
    assert summary.exit_code(summary.summary(done.rows)) == 3


@pytest.mark.parametrize("what_fails", ["wrong", "aborts"])
def test_times_stay_and_are_marked_where_verification_failed(what_fails: str, tmp_path: Path) -> None:
    units = [unit("right", kernel="gate"), unit(what_fails), unit("right", mark={"ptxas": "other"})]
    units += [unit("timed", "kernels", kernel) for kernel in ("gate", "mix", "fold_keys")]
    units += [unit("timed", "ptxas", "mix", mark={"ptxas": "other"})]
    done = run([*units[:3], *units[3:]], tmp_path)
    rows = summary.records_of(done.rows)[records.KERNELS_TIMED]["rows"]
    marks = {(row["kernel"], row.get("ptxas")): row["verified"] for row in rows}
    assert marks == {("gate", None): True, ("mix", None): False, ("fold_keys", None): None, ("mix", "other"): True}
    assert all(row["times_floor"] == 2 and row["ours"]["samples"] for row in rows)
    files = summary.write_records(done.rows, tmp_path / "records")
    record = records.read(files[-1])
    assert (record["device"]["gpu"], record["commit"]) == ("Test 9000", "abc1234")


def test_a_full_disk_loses_no_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``/dev/full`` refuses every byte: the rows are printed instead."""
    for name in ("rows.jsonl", "log.txt"):
        (tmp_path / name).symlink_to("/dev/full")
    (tmp_path / "summary.json").mkdir()
    done = run([unit("right"), unit("timed", "kernels")], tmp_path)
    printed = capsys.readouterr()
    assert "rows.jsonl could not be written (No space left on device)" in printed.err
    assert [json.loads(line) for line in printed.out.splitlines()] == done.rows
    assert set(outcomes(done.rows).values()) == {("right", "")}


def test_rows_wait_until_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes ten bytes, then none, then everything: no byte is lost or doubled."""
    write, room = os.write, [10, 0]

    def cramped(descriptor: int, data: bytes) -> int:
        if room and room.pop(0) == 0:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:10])

    monkeypatch.setattr(os, "write", cramped)
    file = RowFile(tmp_path / "rows.jsonl")
    file.add({"kind": "first", "words": "longer than ten bytes"})
    assert file.problem == "No space left on device"
    file.add({"kind": "second"})
    assert file.problem is None
    assert file.close() == ""
    assert [row["kind"] for row in read_rows(tmp_path / "rows.jsonl")] == ["first", "second"]
    with (tmp_path / "rows.jsonl").open("a") as rows:
        rows.write('{"kind": "cut o')
    assert len(read_rows(tmp_path / "rows.jsonl")) == 2
    (tmp_path / "rows.jsonl").write_text("nonsense\n")
    with pytest.raises(InputError, match="a line that is not JSON"):
        read_rows(tmp_path / "rows.jsonl")


def test_an_earlier_run_is_kept(tmp_path: Path) -> None:
    for kernel in ("gate", "mix"):
        run([unit("right", kernel=kernel)], tmp_path)
    kept, new = (read_rows(tmp_path / name) for name in ("rows.before.jsonl", "rows.jsonl"))
    assert [next(r["kernel"] for r in rows if r["kind"] == records.KERNELS_VERIFIED) for rows in (kept, new)] == [
        "gate", "mix"
    ]  # fmt: skip
    assert summary.main([str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "records")]) == 0
    assert records.read(tmp_path / "records/kernels_verified.json")["rows"][0]["kernel"] == "mix"
