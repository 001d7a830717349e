"""Worker processes: one that ends, hangs or is too slow costs its own task and no other."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fake_worker
import numpy as np
import pytest
from run_async import on_a_loop

from lsms_rt.errors import MachineError
from lsms_rt.serving import feeder, wire
from lsms_rt.serving.jobs import CANCELLED, DONE, FAILED, RUNNING, Job
from lsms_rt.serving.pool import ClosedError, Pool, QueueFullError
from lsms_rt.serving.settings import Model, Settings
from lsms_rt.serving.tasks import Cancelled, Failed, Infer, Opened, Progress
from lsms_rt.serving.worker import logged_failure

WAIT = 20.0


def asked(text: str) -> Job:
    return Job(Infer(model="m", image=np.zeros((1, 32, 32), np.int16), sentences=(text,)))


async def wait(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.001)


def is_open(pool: Pool) -> bool:
    """Whether its only worker is ready.  Forked, it may say so before the one who started it knows its number."""
    return pool.ready == len(pool.pids) == 1


@asynccontextmanager
async def pool_of(ended: Callable[[Job], None] = lambda job: None, **fields: Any) -> AsyncIterator[Pool]:
    settings = Settings(models=(Model(name="m", path=Path("m")),), **{"grace": 2.0} | fields)
    pool = Pool(settings, ended, fake_worker.main)
    pool.start()
    try:
        yield pool
    finally:
        await pool.close()


@on_a_loop
async def test_jobs_are_done_in_their_order() -> None:
    async with pool_of() as pool:
        jobs = [pool.submit(asked("slow 2")) for _ in range(3)]
        await wait(lambda: all(job.over for job in jobs))
        assert [job.state for job in jobs] == [DONE] * 3
        assert sorted(jobs, key=lambda job: job.ended or 0) == jobs
        assert (jobs[0].progress.done, jobs[0].progress.total) == (2, 2)


@on_a_loop
async def test_a_worker_that_dies_costs_its_own_job_only() -> None:
    async with pool_of(workers=2) as pool:
        await wait(lambda: pool.ready == 2)
        jobs = [pool.submit(asked(text)) for text in ("slow 10", "die", "slow 2", "slow 2")]
        await wait(lambda: all(job.over for job in jobs))
        assert [job.state for job in jobs] == [DONE, FAILED, DONE, DONE]
        assert isinstance(jobs[1].reply, Failed)
        assert (jobs[1].reply.status, jobs[1].reply.kind) == (503, "WorkerError")
        await wait(lambda: pool.ready == 2)


@on_a_loop
async def test_an_idle_worker_that_is_killed_is_replaced() -> None:
    async with pool_of() as pool:
        await wait(lambda: is_open(pool))
        (pid,) = pool.pids
        os.kill(pid, signal.SIGKILL)
        await wait(lambda: pool.pids not in ([pid], []))
        job = pool.submit(asked("slow 1"))
        await wait(lambda: job.over)
        assert job.state == DONE


@pytest.mark.slow
@on_a_loop
async def test_cancel() -> None:
    async with pool_of() as pool:
        running, waiting, after = (pool.submit(asked(text)) for text in ("slow 1000", "slow 1000", "slow 1"))
        await wait(lambda: running.state == RUNNING)
        pool.cancel(running)
        pool.cancel(waiting)
        await wait(lambda: after.over)
        assert [job.state for job in (running, waiting, after)] == [CANCELLED, CANCELLED, DONE]
        assert waiting.started is None


@on_a_loop
async def test_a_worker_that_does_not_listen_is_ended() -> None:
    async with pool_of(grace=0.1) as pool:
        job = pool.submit(asked("deaf 400"))
        await wait(lambda: job.state == RUNNING)
        # As often as its client is found to have left: the first time counts.
        await wait(lambda: pool.cancel(job) or job.over)
        assert job.state == CANCELLED
        after = pool.submit(asked("slow 1"))
        await wait(lambda: after.over)
        assert after.state == DONE


@on_a_loop
async def test_the_time_limit() -> None:
    async with pool_of(time_limit=0.1) as pool:
        job = pool.submit(asked("slow 1000"))
        await wait(lambda: job.over)
        assert isinstance(job.reply, Failed)
        assert (job.reply.status, job.reply.kind) == (504, "TimeLimitError")


@pytest.mark.slow
@on_a_loop
async def test_a_full_queue_says_when_to_come_back() -> None:
    async with pool_of(queue=2) as pool:
        first = pool.submit(asked("slow 1000"))
        await wait(lambda: first.state == RUNNING)
        pool.submit(asked("slow 1"))
        pool.submit(asked("slow 1"))
        with pytest.raises(QueueFullError) as error:
            pool.submit(asked("slow 1"))
        assert error.value.seconds >= 1


@on_a_loop
async def test_shutdown_finishes_what_runs_and_tells_what_it_cut() -> None:
    async with pool_of(grace=3.0) as pool:
        short, waiting = pool.submit(asked("slow 8")), pool.submit(asked("slow 1"))
        await wait(lambda: short.state == RUNNING)
        assert await pool.close() == [waiting]
        assert (short.state, waiting.state) == (DONE, FAILED)
        with pytest.raises(ClosedError):
            pool.submit(asked("slow 1"))


@on_a_loop
async def test_shutdown_does_not_wait_for_ever() -> None:
    async with pool_of(grace=0.1) as pool:
        long = pool.submit(asked("slow 4000"))
        await wait(lambda: long.state == RUNNING)
        assert await pool.close() == [long]
        assert isinstance(long.reply, Failed)
        assert long.reply.kind == "ShutdownError"


@on_a_loop
async def test_an_unexpected_error_tells_its_kind_only() -> None:
    async with pool_of() as pool:
        job = pool.submit(asked("raise"))
        await wait(lambda: job.over)
        assert isinstance(job.reply, Failed)
        assert (job.reply.status, job.reply.kind) == (500, "ValueError")
        assert "Miller" not in job.reply.message


@on_a_loop
async def test_engines_that_cannot_be_opened_are_told() -> None:
    async with pool_of(runtime={"broken": True}) as pool:
        await wait(lambda: pool.problem is not None)
        assert pool.ready == 0
        assert pool.problem is not None
        assert "cannot be opened" in pool.problem.message


@pytest.mark.parametrize("where", ["recv", "start", "end", "send"])
@on_a_loop
async def test_a_feeder_survives_any_error(
    monkeypatch: pytest.MonkeyPatch, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feeder, "RETRY", 0.1)
    async with pool_of() as pool:
        await wait(lambda: is_open(pool))
        if where == "start":
            (pid,) = pool.pids
            context = feeder.get_context("spawn").Process
            real, left = context.start, [OSError(errno.EMFILE, "Mr. Miller")]
            monkeypatch.setattr(context, "start", lambda self: fail(left) if left else real(self))
            os.kill(pid, signal.SIGKILL)
            await wait(lambda: not left)
        elif where == "end":
            (pid,) = pool.pids
            end, left = feeder._end, [RuntimeError("can't start new thread, Mr. Miller")]
            monkeypatch.setattr(feeder, "_end", lambda process: fail(left) if left else end(process))
            os.kill(pid, signal.SIGKILL)
            await wait(lambda: "worker 0 was not ended: unexpected RuntimeError" in caplog.text)
        else:
            name, kind = {"recv": ("loads", pickle.UnpicklingError), "send": ("dumps", MemoryError)}[where]
            real, left = getattr(pickle, name), [kind("Mr. Miller")]
            monkeypatch.setattr(wire.pickle, name, lambda *args, **more: fail(left) if left else real(*args, **more))
            job = pool.submit(asked("slow 1"))
            await wait(lambda: job.over)
            assert isinstance(job.reply, Failed)
            assert (job.reply.status, job.reply.kind) == (503, "WorkerError")
        after = pool.submit(asked("slow 1"))
        await wait(lambda: after.over)
        assert after.state == DONE
        assert (pool.alive, pool.running) == (True, 0)
        assert "Miller" not in caplog.text


@on_a_loop
async def test_a_process_that_opens_too_late_gets_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "RETRY", 0.01)
    async with pool_of() as pool:
        await wait(lambda: is_open(pool))
        (worker,), pids = pool._workers, pool.pids
        worker._not_opened(feeder.LATE)
        worker._heard(Opened({}))
        assert not worker.free
        assert pool.ready == 0
        after = pool.submit(asked("slow 1"))
        await wait(lambda: after.over)
        assert after.state == DONE
        assert pool.pids != pids


def fail(left: list[Exception]) -> None:
    raise left.pop()


@on_a_loop
async def test_what_counts_jobs_cannot_stop_them() -> None:
    def broken(job: Job) -> None:
        raise KeyError("outcome")

    async with pool_of(broken) as pool:
        jobs = [pool.submit(asked("slow 1")) for _ in range(2)]
        await wait(lambda: all(job.over for job in jobs))
        assert [job.state for job in jobs] == [DONE, DONE]


@pytest.mark.slow
@on_a_loop
async def test_a_cancelled_job_leaves_its_place() -> None:
    async with pool_of(queue=1) as pool:
        running = pool.submit(asked("slow 1000"))
        await wait(lambda: running.state == RUNNING)
        for _ in range(3):
            waiting = pool.submit(asked("slow 1"))
            pool.cancel(waiting)
            assert (waiting.state, pool.waiting) == (CANCELLED, 0)
        assert running.state == RUNNING


@on_a_loop
async def test_a_stopped_worker_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "QUIET", 0.3)
    async with pool_of(grace=0.2) as pool:
        job = pool.submit(asked("slow 4000"))
        await wait(lambda: job.progress.done)
        assert pool.ready == 1
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        await wait(lambda: pool.ready == 0)
        assert (job.state, pool.idle) == (RUNNING, 0)
        pool.cancel(job)
        await wait(lambda: is_open(pool))
        assert job.state == CANCELLED


@on_a_loop
async def test_a_task_that_the_worker_does_not_even_read_ends_at_its_limit() -> None:
    async with pool_of(grace=0.1, time_limit=0.1) as pool:
        await wait(lambda: is_open(pool))
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        # More than a pipe holds: sending it waits.
        image = np.zeros((64, 512, 512), np.int16)
        job = pool.submit(Job(Infer(model="m", image=image, sentences=("slow 1",))))
        await wait(lambda: job.over)
        assert isinstance(job.reply, Failed)
        assert job.reply.kind == "TimeLimitError"
        await wait(lambda: is_open(pool))


@on_a_loop
async def test_a_process_that_was_killed_gets_no_other_job() -> None:
    async with pool_of(grace=0.0) as pool:
        first, after = pool.submit(asked("slow 2")), pool.submit(asked("slow 1"))
        await wait(lambda: first.progress.done)
        pids = pool.pids
        # Its last reply is there, but was not read, when it is cancelled and its process killed.
        time.sleep(0.2)
        pool.cancel(first)
        pool._workers[0]._kill()
        assert pool.ready == 0
        await wait(lambda: after.over)
        assert [first.state, after.state] == [DONE, DONE]
        assert pool.pids != pids


def test_where_is_told_of_unexpected_errors_only(caplog: pytest.LogCaptureFixture) -> None:
    """A device that is absent is told in one line, whenever a worker is started again."""
    assert logged_failure(MachineError("no such device; choose another")).status == 503
    assert [record.getMessage() for record in caplog.records] == ["no such device; choose another"]
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError
    logged_failure(caught.value)
    assert "test_pool.py" in caplog.text


@on_a_loop
async def test_who_waits_for_a_job_is_told_of_its_changes_or_of_its_end_alone() -> None:
    job = asked("slow 1")
    assert await job.finished(0.01) is None
    seen: list[str] = []

    async def look() -> None:
        async for now in job.changes():
            seen.append(f"{now.state} {now.progress.done}")

    looking, waiting = asyncio.create_task(look()), asyncio.create_task(job.finished())
    for change in (job.start, lambda: job.tell(Progress(1, 2)), lambda: job.tell(Progress(2, 2))):
        await asyncio.sleep(0.001)
        change()
    await asyncio.sleep(0.001)
    assert not waiting.done()
    job.tell(Cancelled())
    assert await asyncio.gather(looking, waiting) == [None, Cancelled()]
    assert seen == ["queued 0", "running 0", "running 1", "running 2", "cancelled 2"]
    assert await job.finished(0.0) == Cancelled()
    assert not job._waiting
