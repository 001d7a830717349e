"""One worker process at a time, and what feeds it: what goes wrong there ends a job, never the feeder."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from lsms_rt.machine.cpu import cpu_count

from . import wire, worker
from .jobs import Job
from .tasks import Cancelled, Done, Failed, Opened, Progress, Reply

if TYPE_CHECKING:
    from .pool import Pool

_log = logging.getLogger("lsms_rt")
# seconds: how soon a cancellation or a shutdown is noticed
POLL = 0.05
# seconds that a worker may take to open its engines: a GPU's first start compiles
OPENING = 600.0
# seconds before a worker that could not open its engines, or met an error that nobody expected, is followed by another
RETRY = 5.0
# A busy worker works if it was heard within so many seconds: first it reads the image, then a slice follows the other.
READING, QUIET = 60.0, 30.0
SHUTDOWN = Failed("ShutdownError", "the server is being stopped; send the request again later", 503)


@dataclass(eq=False, kw_only=True)
class _Run:
    """A job in a worker.  ``heard``: when the process last said something of it, ``silence``: how long it may not."""

    job: Job
    deadline: float
    heard: float
    silence: float
    # Why the job must stop, and when the process that goes on all the same is killed.
    reason: Failed | Cancelled | None = None
    kill_at: float = 0.0


class Feeder:
    """Gives a pool's jobs to its process, which it replaces when it ends.

    Args:
        pool: whose jobs these are.
        number: of this worker, from 0.

    Attributes:
        task: starts one process after the other; None before ``start``.
        is_open: whether the process has opened its engines, and may get jobs.
    """

    def __init__(self, pool: Pool, number: int) -> None:
        self._pool, self._settings, self._number = pool, pool.settings, number
        self.task: asyncio.Task[None] | None = None
        self.is_open = False
        self._process: Any = None
        self._line: wire.Line | None = None
        self._run: _Run | None = None
        # When a process that has not opened its engines is given up; None: it has.
        self._open_by: float | None = None
        # Set when the process is to be replaced: seconds to wait before, and when it ended if nobody asked it to.
        self._gone: asyncio.Future[tuple[float, str]] | None = None

    def start(self) -> None:
        self.task = asyncio.create_task(self._feed(), name=f"worker {self._number}")

    @property
    def job(self) -> Job | None:
        """What it is doing."""
        return None if self._run is None else self._run.job

    @property
    def free(self) -> bool:
        """Whether it could begin a job now."""
        return self.is_open and self._run is None

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    @property
    def works(self) -> bool:
        """Whether the process has open engines and, if it is busy, was heard lately."""
        run = self._run
        return self.is_open and (run is None or time.monotonic() - run.heard < run.silence)

    def begin(self, job: Job) -> None:
        """Give a job to the process, which is free."""
        assert self._line is not None
        now = time.monotonic()
        self._run = _Run(job=job, deadline=now + self._settings.time_limit, heard=now, silence=READING)
        job.start()
        self._line.send(job.task)

    def settle(self) -> None:
        """Let an idle process go if it was killed or the pool closes; else it takes the next job."""
        if self._run is not None:
            return
        if self._pool.closing.is_set() or (self._open_by is None and not self.is_open):
            self._leave()
        else:
            self._pool.hand_out()

    def watch(self) -> None:
        """End what takes too long, whatever the process does.  The pool calls this again and again."""
        run, now = self._run, time.monotonic()
        if run is None:
            if self._open_by is not None and now > self._open_by:
                self._leave(RETRY)
        elif run.reason is None:
            run.reason = self._why_stop(run, now)
            run.kill_at = now + (0.0 if self._pool.cut.is_set() else self._settings.grace)
            if run.reason is not None and self._line is not None:
                self._line.send(worker.CANCEL)
        elif now > run.kill_at or self._pool.cut.is_set():
            # It does not listen: it is in a library's call, or stopped.  Its last reply may be on its way.
            self.is_open = False
            self._process.kill()

    def _why_stop(self, run: _Run, now: float) -> Failed | Cancelled | None:
        if self._pool.cut.is_set():
            return SHUTDOWN
        if run.job.cancelled:
            return Cancelled()
        if now > run.deadline:
            limit = self._settings.time_limit
            return Failed(
                "TimeLimitError", f"the task took longer than the limit of {limit:g} s; send less at once", 504
            )
        return None

    async def _feed(self) -> None:
        """Start one process after the other, until the pool closes."""
        while not self._pool.closing.is_set():
            self._gone = asyncio.get_running_loop().create_future()
            try:
                await self._open()
            except Exception as error:
                self._failed(error)
            pause, when = await self._gone
            code = await self._stop()
            if when:
                _log.error("worker %d ended %s (exit code %s); another one is started", self._number, when, code)
            await self._pool.pause(pause)

    async def _open(self) -> None:
        """Start a process; it is heard when it has opened its engines."""
        settings = self._settings
        device = settings.devices[self._number % len(settings.devices)] if settings.devices else None
        threads = settings.threads or max(1, cpu_count() // settings.workers)
        ours, theirs = wire.pair()
        self._line = wire.Line(ours, self._heard, self._lost)
        self._open_by = time.monotonic() + OPENING
        arguments = (theirs, settings.models, device, threads, settings.runtime)
        self._process = get_context("spawn").Process(target=self._pool.work, args=arguments, daemon=True)
        try:
            await asyncio.to_thread(self._process.start)
        finally:
            theirs.close()

    def _heard(self, reply: Reply) -> None:
        now = time.monotonic()
        run = self._run
        if isinstance(reply, Opened):
            self.is_open, self._open_by = True, None
            self._pool.models, self._pool.problem, self._pool.answered = reply.models, None, now
            self.settle()
        elif run is None:
            assert isinstance(reply, Failed)
            self._not_opened(reply)
        elif isinstance(reply, Progress):
            run.heard, run.silence = now, QUIET
            run.job.tell(reply)
        else:
            if isinstance(reply, Cancelled) and run.reason is not None:
                reply = run.reason
            elif not (isinstance(reply, Failed) and reply.status >= 500):
                self._pool.answered = now
            self._over(reply)
            self.settle()

    def _lost(self, error: Exception | None) -> None:
        """Note that the process is gone, or with an error that it said what nobody understands."""
        if error is not None:
            self._failed(error)
        elif self._open_by is not None:
            ended = "a worker ended while it opened the engines; see the server's log"
            self._not_opened(Failed("WorkerError", ended, 503))
        else:
            run = self._run
            self._leave(when="while it had nothing to do" if run is None else "in the middle of a task")
            ended = "the process that computed this ended; send the request again"
            self._over((run and run.reason) or Failed("WorkerError", ended, 503))

    def _not_opened(self, reply: Failed) -> None:
        self._pool.problem = reply
        _log.error("worker %d: %s", self._number, reply.message)
        self._leave(RETRY)

    def _failed(self, error: Exception) -> None:
        """End the job and the process after an error that nobody expected; its text may hold a patient's data."""
        where = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
        kind = type(error).__name__
        _log.error("worker %d: unexpected %s; another one is started\n%s", self._number, kind, where.rstrip())
        self._leave(RETRY)
        message = f"unexpected {kind} while this was computed; send the request again"
        self._over(Failed("WorkerError", message, 503))

    def _over(self, reply: Done | Failed | Cancelled) -> None:
        run, self._run = self._run, None
        if run is not None:
            self._pool.over(run.job, reply)

    def _leave(self, pause: float = 0.0, when: str = "") -> None:
        """Let the process be replaced after ``pause`` seconds; only the first call counts."""
        self.is_open = False
        if self._gone is not None and not self._gone.done():
            self._gone.set_result((pause, when))

    async def _stop(self) -> int | None:
        """End the process, which is not to do any more; return its exit code."""
        if self._line is not None:
            self._line.close()
        process, self._process = self._process, None
        return None if process is None else await asyncio.to_thread(_end, process)


def _end(process: Any) -> int | None:
    if process.pid is not None:
        # It ends by itself when its socket closes, unless it is in the middle of something.
        process.join(0.5)
        if process.is_alive():
            process.kill()
            process.join()
    code: int | None = process.exitcode
    return code
