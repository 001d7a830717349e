"""Two processes on one folder with different sentences, killed and resumed."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from fake_segmenter import LEFT, RIGHT, fake_run, write_arrays
from race import hurry, work

from lsms_rt.errors import InputError
from lsms_rt.runs import journal
from lsms_rt.runs.folder import RESULTS
from lsms_rt.runs.journal import NAME
from lsms_rt.writing import overlay

SLICES = 3


def masks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*_mask.png")}


@pytest.fixture(scope="module")
def context() -> Any:
    """A server that has imported all and forks: a process takes no second to start."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["race"])
    # The server of Python 3.11 does not take over this process's path.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return context


@pytest.mark.parametrize("rounds", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_every_mask_is_that_of_a_fresh_run(
    tmp_path: Path, context: Any, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    monkeypatch.setattr(overlay, "_MIN_SIDE", overlay._MIN_SIDE)
    for name in ("ROUNDS", "request_digest"):
        monkeypatch.setattr(journal, name, getattr(journal, name))
    hurry()
    paths, chance = write_arrays(tmp_path / "in", SLICES), random.Random(0)
    fresh = {}
    for text in (LEFT, RIGHT):
        fake_run(paths, text, tmp_path / text[-30:])
        fresh[text] = masks(tmp_path / text[-30:])
    assert fresh[LEFT] != fresh[RIGHT]
    wins, kills = set(), 0
    for number in range(rounds):
        # Folders are resumed a few times, with either sentence.
        out = tmp_path / f"out{number // 5}"
        barrier = context.Barrier(3)
        processes = [
            context.Process(target=work, args=(paths, text, out, barrier))
            for text in chance.sample([LEFT, RIGHT], 2)
        ]  # fmt: skip
        for process in processes:
            process.start()
        barrier.wait(60)
        wait_for_lines(out, chance.randrange(SLICES + 2), processes)
        time.sleep(chance.uniform(0.0, 0.02))
        for process in processes:
            kills += process.is_alive()
            process.kill()
        for process in processes:
            process.join()
        found = masks(out)
        for text in (LEFT, RIGHT):
            if found and all(fresh[text][name] == data for name, data in found.items()):
                break
        else:
            assert not found, "masks of two sentences, or of none"
        if number % 5 == 4 or number == rounds - 1:
            owner = finish(paths, out)
            wins.add(owner)
            assert masks(out) == fresh[owner]
            assert {path.name for path in out.iterdir()} == {
                NAME, RESULTS, *fresh[owner], *(name.replace("mask", "overlay") for name in fresh[owner]),
            }  # fmt: skip
    assert kills and wins


def lines(out: Path) -> int:
    return (out / NAME).read_bytes().count(b"\n") if (out / NAME).exists() else 0


def wait_for_lines(out: Path, more: int, processes: list[Any]) -> None:
    """Wait until the journal has some lines more, or no process writes it."""
    end, before = time.monotonic() + 30, lines(out)
    while lines(out) < before + more and time.monotonic() < end and any(p.is_alive() for p in processes):
        time.sleep(0.001)


def finish(paths: list[Path], out: Path) -> str:
    """Resume with both sentences, of which one is refused; return the other."""
    done = []
    for text in (LEFT, RIGHT):
        with contextlib.suppress(InputError):
            fake_run(paths, text, out)
            done.append(text)
    (owner,) = done
    return owner
