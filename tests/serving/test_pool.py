"""Worker processes: one that ends, hangs or is too slow costs its own task and no other."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fake_worker
import numpy as np
import pytest

from lsms_rt.errors import MachineError
from lsms_rt.serving import feeder
from lsms_rt.serving.jobs import CANCELLED, DONE, FAILED, RUNNING, Job
from lsms_rt.serving.pool import ClosedError, Pool, QueueFullError
from lsms_rt.serving.settings import Model, Settings
from lsms_rt.serving.tasks import Failed, Infer
from lsms_rt.serving.worker import logged_failure

WAIT = 20.0


def asked(text: str) -> Job:
    return Job(Infer(model="m", image=np.zeros((1, 32, 32), np.int16), sentences=(text,)))


def wait(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


@pytest.fixture
def pools() -> Iterator[Callable[..., Pool]]:
    made: list[Pool] = []

    def make(**fields: Any) -> Pool:
        settings = Settings(models=(Model(name="m", path=Path("m")),), **{"grace": 2.0} | fields)
        made.append(Pool(settings, work=fake_worker.main))
        made[-1].start()
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def test_jobs_are_done_in_their_order(pools: Callable[..., Pool]) -> None:
    pool = pools()
    jobs = [pool.submit(asked("slow 2")) for _ in range(3)]
    wait(lambda: all(job.over for job in jobs))
    assert [job.state for job in jobs] == [DONE] * 3
    assert sorted(jobs, key=lambda job: job.ended or 0) == jobs
    assert (jobs[0].progress.done, jobs[0].progress.total) == (2, 2)


def test_a_worker_that_dies_costs_its_own_job_only(pools: Callable[..., Pool]) -> None:
    pool = pools(workers=2)
    wait(lambda: pool.ready == 2)
    jobs = [pool.submit(asked(text)) for text in ("slow 10", "die", "slow 2", "slow 2")]
    wait(lambda: all(job.over for job in jobs))
    assert [job.state for job in jobs] == [DONE, FAILED, DONE, DONE]
    assert isinstance(jobs[1].reply, Failed)
    assert (jobs[1].reply.status, jobs[1].reply.kind) == (503, "WorkerError")
    wait(lambda: pool.ready == 2)


def test_an_idle_worker_that_is_killed_is_replaced(pools: Callable[..., Pool]) -> None:
    pool = pools()
    wait(lambda: pool.ready == 1)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGKILL)
    wait(lambda: pool.pids not in ([pid], []))
    job = pool.submit(asked("slow 1"))
    wait(lambda: job.over)
    assert job.state == DONE


@pytest.mark.slow
def test_cancel(pools: Callable[..., Pool]) -> None:
    pool = pools()
    running, waiting, after = (pool.submit(asked(text)) for text in ("slow 400", "slow 400", "slow 1"))
    wait(lambda: running.state == RUNNING)
    pool.cancel(running)
    pool.cancel(waiting)
    wait(lambda: after.over)
    assert [job.state for job in (running, waiting, after)] == [CANCELLED, CANCELLED, DONE]
    assert waiting.started is None


def test_a_worker_that_does_not_listen_is_ended(pools: Callable[..., Pool]) -> None:
    pool = pools(grace=0.3)
    job = pool.submit(asked("deaf 400"))
    wait(lambda: job.state == RUNNING)
    pool.cancel(job)
    wait(lambda: job.over)
    assert job.state == CANCELLED
    after = pool.submit(asked("slow 1"))
    wait(lambda: after.over)
    assert after.state == DONE


def test_the_time_limit(pools: Callable[..., Pool]) -> None:
    pool = pools(time_limit=0.3)
    job = pool.submit(asked("slow 400"))
    wait(lambda: job.over)
    assert isinstance(job.reply, Failed)
    assert (job.reply.status, job.reply.kind) == (504, "TimeLimitError")


@pytest.mark.slow
def test_a_full_queue_says_when_to_come_back(pools: Callable[..., Pool]) -> None:
    pool = pools(queue=2)
    first = pool.submit(asked("slow 400"))
    wait(lambda: first.state == RUNNING)
    pool.submit(asked("slow 1"))
    pool.submit(asked("slow 1"))
    with pytest.raises(QueueFullError) as error:
        pool.submit(asked("slow 1"))
    assert error.value.seconds >= 1


def test_shutdown_finishes_what_runs_and_tells_what_it_cut(pools: Callable[..., Pool]) -> None:
    pool = pools(grace=3.0)
    short, waiting = pool.submit(asked("slow 8")), pool.submit(asked("slow 1"))
    wait(lambda: short.state == RUNNING)
    assert pool.close() == [waiting]
    assert (short.state, waiting.state) == (DONE, FAILED)
    with pytest.raises(ClosedError):
        pool.submit(asked("slow 1"))


def test_shutdown_does_not_wait_for_ever(pools: Callable[..., Pool]) -> None:
    pool = pools(grace=0.3)
    long = pool.submit(asked("slow 4000"))
    wait(lambda: long.state == RUNNING)
    assert pool.close() == [long]
    assert isinstance(long.reply, Failed)
    assert long.reply.kind == "ShutdownError"


def test_an_unexpected_error_tells_its_kind_only(pools: Callable[..., Pool]) -> None:
    job = pools().submit(asked("raise"))
    wait(lambda: job.over)
    assert isinstance(job.reply, Failed)
    assert (job.reply.status, job.reply.kind) == (500, "ValueError")
    assert "Miller" not in job.reply.message


def test_engines_that_cannot_be_opened_are_told(pools: Callable[..., Pool]) -> None:
    pool = pools(runtime={"broken": True})
    wait(lambda: pool.problem is not None)
    assert pool.ready == 0
    assert pool.problem is not None
    assert "cannot be opened" in pool.problem.message


@pytest.mark.parametrize("where", ["recv", "start", "send"])
def test_a_workers_thread_survives_any_error(
    pools: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feeder, "RETRY", 0.1)
    pool = pools()
    wait(lambda: pool.ready == 1)
    if where == "start":
        (pid,) = pool.pids
        context = get_context("spawn").Process
        real, left = context.start, [OSError(errno.EMFILE, "Mr. Miller")]
        monkeypatch.setattr(context, "start", lambda self: fail(left) if left else real(self))
        os.kill(pid, signal.SIGKILL)
        wait(lambda: not left)
    else:
        kind = {"recv": pickle.UnpicklingError, "send": MemoryError}[where]
        real, left = getattr(Connection, where), [kind("Mr. Miller")]
        monkeypatch.setattr(Connection, where, lambda self, *args: fail(left) if left else real(self, *args))
        job = pool.submit(asked("slow 1"))
        wait(lambda: job.over)
        assert isinstance(job.reply, Failed)
        assert (job.reply.status, job.reply.kind) == (503, "WorkerError")
    after = pool.submit(asked("slow 1"))
    wait(lambda: after.over)
    assert after.state == DONE
    assert (pool.alive, pool.running) == (True, 0)
    assert "Miller" not in caplog.text


def fail(left: list[Exception]) -> None:
    raise left.pop()


def test_what_counts_jobs_cannot_stop_them() -> None:
    def broken(job: Job) -> None:
        raise KeyError("outcome")

    pool = Pool(Settings(models=(Model(name="m", path=Path("m")),)), broken, fake_worker.main)
    pool.start()
    jobs = [pool.submit(asked("slow 1")) for _ in range(2)]
    wait(lambda: all(job.over for job in jobs))
    assert [job.state for job in jobs] == [DONE, DONE]
    pool.close()


@pytest.mark.slow
def test_a_cancelled_job_leaves_its_place(pools: Callable[..., Pool]) -> None:
    pool = pools(queue=1)
    running = pool.submit(asked("slow 400"))
    wait(lambda: running.state == RUNNING)
    for _ in range(3):
        waiting = pool.submit(asked("slow 1"))
        pool.cancel(waiting)
        assert (waiting.state, pool.waiting) == (CANCELLED, 0)
    assert running.state == RUNNING


def test_a_stopped_worker_is_not_ready(pools: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "QUIET", 0.5)
    pool = pools(grace=0.2)
    job = pool.submit(asked("slow 4000"))
    wait(lambda: job.progress.done)
    assert pool.ready == 1
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    wait(lambda: pool.ready == 0)
    assert (job.state, pool.idle) == (RUNNING, 0)
    pool.cancel(job)
    wait(lambda: pool.ready == 1)
    assert job.state == CANCELLED


def test_a_task_that_the_worker_does_not_even_read_ends_at_its_limit(pools: Callable[..., Pool]) -> None:
    pool = pools(grace=0.2, time_limit=0.3)
    wait(lambda: pool.ready == 1)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    # More than a pipe holds: sending it waits.
    image = np.zeros((64, 512, 512), np.int16)
    job = pool.submit(Job(Infer(model="m", image=image, sentences=("slow 1",))))
    wait(lambda: job.over)
    assert isinstance(job.reply, Failed)
    assert job.reply.kind == "TimeLimitError"
    wait(lambda: pool.ready == 1)


def test_a_process_that_was_killed_gets_no_other_job() -> None:
    def ended(job: Job) -> None:
        if job is first:
            # Its last reply is there; before the worker is free, it is cancelled and its process killed.
            job.cancelled.set()
            run = pool._workers[0]._run
            wait(lambda: run is not None and run.killed)

    pool = Pool(Settings(models=(Model(name="m", path=Path("m")),), grace=0.0), ended, fake_worker.main)
    first, after = asked("slow 1"), asked("slow 1")
    pool.start()
    pool.submit(first)
    pool.submit(after)
    wait(lambda: after.over)
    assert [first.state, after.state] == [DONE, DONE]
    pool.close()


def test_where_is_told_of_unexpected_errors_only(caplog: pytest.LogCaptureFixture) -> None:
    """A device that is absent is told in one line, whenever a worker is started again."""
    assert logged_failure(MachineError("no such device; choose another")).status == 503
    assert [record.getMessage() for record in caplog.records] == ["no such device; choose another"]
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError
    logged_failure(caught.value)
    assert "test_pool.py" in caplog.text
