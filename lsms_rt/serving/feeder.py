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
# seconds that a worker may take to open its engines: a GPU's first start compiles
OPENING = 600.0
# seconds before a worker that could not open its engines, or met an error that nobody expected, is followed by another
RETRY = 5.0
# A busy worker works if it was heard within so many seconds: first it reads the image, then a slice follows the other.
READING, QUIET = 60.0, 30.0
LATE = Failed("WorkerError", f"a worker took longer than {OPENING:g} s to open the engines", 503)
SHUTDOWN = Failed("ShutdownError", "the server is being stopped; send the request again later", 503)


@dataclass(eq=False, kw_only=True)
class _Run:
    """A job in a worker.  ``heard``: when the process last said something of it, ``silence``: how long it may not."""

    job: Job
    heard: float
    silence: float
    # Fires at the time limit; once the job must stop, when a process that goes on is killed.
    timer: asyncio.TimerHandle
    reason: Failed | Cancelled | None = None


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
        # Gives up a process that has not opened its engines; None: it has.
        self._opening: asyncio.TimerHandle | None = None
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
        limit = self._settings.time_limit
        late = Failed("TimeLimitError", f"the task took longer than the limit of {limit:g} s; send less at once", 504)
        timer = asyncio.get_running_loop().call_later(limit, self.stop, late, self._settings.grace)
        self._run = _Run(job=job, heard=time.monotonic(), silence=READING, timer=timer)
        job.start()
        self._line.send(job.task)

    def settle(self) -> None:
        """Let an idle process go if it was killed or the pool closes; else it takes the next job."""
        if self._run is not None:
            return
        if self._pool.closing.is_set() or (self._opening is None and not self.is_open):
            self._leave()
        else:
            self._pool.hand_out()

    def stop(self, reason: Failed | Cancelled, grace: float) -> None:
        """Ask the process to end its job, and kill it if it goes on after ``grace`` seconds.

        Of several calls the first reason counts, and the earliest end.
        """
        run, loop = self._run, asyncio.get_running_loop()
        if run is None or self._line is None or (run.reason is not None and run.timer.when() <= loop.time() + grace):
            return
        run.timer.cancel()
        run.timer = loop.call_later(grace, self._kill)
        if run.reason is None:
            run.reason = reason
            self._line.send(worker.CANCEL)

    def _kill(self) -> None:
        """End a process that does not listen: it is in a library's call, or stopped.  Its last reply may be there."""
        self.is_open = False
        self._process.kill()

    async def _feed(self) -> None:
        """Start one process after the other, until the pool closes."""
        while not self._pool.closing.is_set():
            self._gone = asyncio.get_running_loop().create_future()
            try:
                await self._open()
            except Exception as error:
                self._failed(error)
            pause, when = await self._gone
            code = None
            try:
                code = await self._stop()
            except Exception as error:
                # Waiting takes a thread, and starting one may fail.  The next process must start regardless.
                _log.error("worker %d was not ended: unexpected %s", self._number, type(error).__name__)
                pause = max(pause, RETRY)
            # Told to the one who asked, where it is cut off because the pool closes.
            if when and not self._pool.closing.is_set():
                _log.error("worker %d ended %s (exit code %s); another one is started", self._number, when, code)
            await self._pool.pause(pause)

    async def _open(self) -> None:
        """Start a process; it is heard when it has opened its engines."""
        settings = self._settings
        device = settings.devices[self._number % len(settings.devices)] if settings.devices else None
        threads = settings.threads or max(1, cpu_count() // settings.workers)
        ours, theirs = wire.pair()
        self._line = wire.Line(ours, self._heard, self._lost)
        self._opening = asyncio.get_running_loop().call_later(OPENING, self._not_opened, LATE)
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
            if self._gone is None or self._gone.done():
                # Too late: it is about to be replaced.
                return
            self.is_open = True
            if self._opening is not None:
                self._opening.cancel()
                self._opening = None
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
        if self._gone is None or self._gone.done():
            return
        if error is not None:
            self._failed(error)
        elif self._opening is not None:
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
            run.timer.cancel()
            self._pool.over(run.job, reply)

    def _leave(self, pause: float = 0.0, when: str = "") -> None:
        """Let the process be replaced after ``pause`` seconds; only the first call counts."""
        self.is_open = False
        if self._opening is not None:
            self._opening.cancel()
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
