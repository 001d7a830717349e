"""The processes of ``make gpu-check`` that start before their turn."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from lsms_rt.bench.gpu import check, plan, process

TESTS = Path(__file__).parents[1]
PATHS = {"PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS / "helpers")))}


def units(*names: str) -> list[plan.Unit]:
    return [
        plan.Unit(section="verify", name=name, function=f"gpu_faults:{name}", variables=PATHS, limit=60)
        for name in names
    ]


def running(one: process.Process) -> bool:
    return one._process.poll() is None


@pytest.mark.parametrize(("cores", "ahead"), [(2, 0), (4, 1), (16, 4), (128, 4)])
def test_as_many_start_ahead_as_there_are_cores_for(cores: int, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Process:
        def __init__(self, unit: plan.Unit) -> None:
            made.append(unit.name)

        def stop(self) -> None:
            made.remove("right")

    monkeypatch.setattr(process, "Process", Process)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    many = units(*["right"] * 7)
    with closing(process.started(many)) as processes:
        next(processes)
        assert len(made) == 1 + ahead
        assert sum(1 for _ in processes) == 6
        assert len(made) == 7


def test_those_that_wait_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit's own process is its follower's to end; one that nobody wants has none."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    made: list[process.Process] = []

    class Noted(process.Process):
        def __init__(self, unit: plan.Unit) -> None:
            super().__init__(unit)
            made.append(self)

    monkeypatch.setattr(process, "Process", Noted)
    with closing(process.started(units("right", "aborts", "right"), lambda unit: unit.name == "right")) as processes:
        unit, first = next(processes)
        assert first is not None
        assert first.follow(60, lambda _: None, lambda _: None).state == process.RIGHT
        assert next(processes)[1] is None
        assert running(made[1])
    assert len(made) == 2
    assert not running(made[1])
    assert unit.name == "right"


def test_units_are_skipped_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--plan", "--only", "environment", "models"]) == 0
    every = capsys.readouterr().out
    assert check.main(["--plan", "--only", "environment", "models", "--skip", "eager|compiled"]) == 0
    some = capsys.readouterr().out

    def counts(text: str) -> list[int]:
        return [int(line.split()[1]) for line in text.splitlines()]

    with pytest.raises(SystemExit):
        check.main(["--plan", "--skip", "eager("])
    assert "'eager(' is not a regular expression" in capsys.readouterr().err
    names = [unit.name for unit in plan.plan(["models"], ["base", "tiny"])]
    without = [name for name in names if "eager" not in name and "compiled" not in name]
    assert counts(every) == [1, len(names)]
    assert counts(some) == [1, len(without)]
    assert len(without) < len(names)
