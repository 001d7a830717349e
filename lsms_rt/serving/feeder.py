"""One worker process at a time, and the thread that feeds it: what goes wrong there ends a job, never the thread."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from lsms_rt.machine.cpu import cpu_count

from . import worker
from .jobs import Job
from .tasks import Cancelled, Failed, Opened, Progress

if TYPE_CHECKING:
    from .pool import Pool

_log = logging.getLogger("lsms_rt")
# seconds: how soon a cancellation, a shutdown or a dead worker is noticed
POLL = 0.05
# seconds that a worker may take to open its engines: a GPU's first start compiles
OPENING = 600.0
# seconds before a worker that could not open its engines, or whose thread met an error, is tried again
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
    killed: bool = False


class Feeder:
    """Takes jobs from a pool and gives them to its process, which it replaces when it ends.

    Args:
        pool: whose jobs these are.
        number: of this worker, from 0.

    Attributes:
        thread: does all of it.
        is_open: whether the process has opened its engines.
    """

    def __init__(self, pool: Pool, number: int) -> None:
        self._pool, self._settings, self._number = pool, pool.settings, number
        self.thread = threading.Thread(target=self._feed, name=f"worker {number}", daemon=True)
        self._process: Any = None
        self._pipe: Connection | None = None
        self.is_open = False
        # The watchdog may kill the process for this run only, not for the next one.
        self._run: _Run | None = None
        self._lock = threading.Lock()

    @property
    def job(self) -> Job | None:
        """What it is doing."""
        run = self._run
        return None if run is None else run.job

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    @property
    def works(self) -> bool:
        """Whether the process has open engines and, if it is busy, was heard lately."""
        run = self._run
        return self.is_open and (run is None or time.monotonic() - run.heard < run.silence)

    def watch(self) -> None:
        """End a job whose time is over, whatever the thread waits for.  The pool calls this again and again."""
        with self._lock:
            run, now = self._run, time.monotonic()
            if run is None:
                return
            if run.reason is None:
                run.kill_at = now + (0.0 if self._pool.cut.is_set() else self._settings.grace)
                # The thread sees it, and asks the process to stop.
                run.reason = self._why_stop(run, now)
            elif (now > run.kill_at or self._pool.cut.is_set()) and self._process is not None:
                # It does not listen: it is in a library's call, or stopped.
                run.killed = True
                self._process.kill()

    def _why_stop(self, run: _Run, now: float) -> Failed | Cancelled | None:
        if self._pool.cut.is_set():
            return SHUTDOWN
        if run.job.cancelled.is_set():
            return Cancelled()
        if now > run.deadline:
            limit = self._settings.time_limit
            return Failed(
                "TimeLimitError", f"the task took longer than the limit of {limit:g} s; send less at once", 504
            )
        return None

    def _feed(self) -> None:
        while not self._pool.closing.is_set():
            try:
                self._step()
            except Exception as error:
                self._failed(error)
                self._pool.closing.wait(RETRY)
        self._stop()

    def _step(self) -> None:
        """Open the engines, or do the next job, or look after the process."""
        if not self.is_open and not self._open():
            self._pool.closing.wait(RETRY)
            return
        if not self._process.is_alive():
            self._lost("while it had nothing to do")
            return
        job = self._pool.take(POLL)
        if job is None:
            return
        now = time.monotonic()
        run = _Run(job=job, deadline=now + self._settings.time_limit, heard=now, silence=READING)
        self._run = run
        self._do(run)
        self._end_run()
        if run.killed:
            # Its last reply may have come before.
            self._stop()

    def _end_run(self) -> None:
        with self._lock:
            self._run = None

    def _failed(self, error: Exception) -> None:
        """End the job and the process after an error that nobody expected; its text may hold a patient's data."""
        where = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
        kind = type(error).__name__
        _log.error("worker %d: unexpected %s; another one is started\n%s", self._number, kind, where.rstrip())
        job = self.job
        if job is not None:
            message = f"unexpected {kind} while this was computed; send the request again"
            self._pool.over(job, Failed("WorkerError", message, 503))
        self._end_run()
        self._stop()

    def _open(self) -> bool:
        """Start a process, and wait until it has opened its engines."""
        settings = self._settings
        device = settings.devices[self._number % len(settings.devices)] if settings.devices else None
        threads = settings.threads or max(1, cpu_count() // settings.workers)
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, settings.models, device, threads, settings.runtime)
        process = context.Process(target=self._pool.work, args=arguments, daemon=True)
        with theirs:
            process.start()
        self._process = process
        deadline = time.monotonic() + OPENING
        while not self._pool.closing.is_set() and time.monotonic() < deadline:
            try:
                if not self._pipe.poll(POLL):
                    continue
                reply = self._pipe.recv()
            except (EOFError, OSError):
                reply = Failed("WorkerError", "a worker ended while it opened the engines; see the server's log", 503)
            if isinstance(reply, Opened):
                self.is_open = True
                self._pool.models, self._pool.problem = reply.models, None
                self._pool.answered = time.monotonic()
                return True
            self._pool.problem = reply
            _log.error("worker %d: %s", self._number, reply.message)
            break
        self._stop()
        return False

    def _do(self, run: _Run) -> None:
        """Run a job to its end, whatever that is."""
        assert self._pipe is not None
        job = run.job
        asked_to_stop = False
        try:
            job.start()
            self._pipe.send(job.task)
            while True:
                if self._pipe.poll(POLL):
                    reply = self._pipe.recv()
                    run.heard = time.monotonic()
                    if isinstance(reply, Progress):
                        run.silence = QUIET
                        job.tell(reply)
                        continue
                    if isinstance(reply, Cancelled) and run.reason is not None:
                        reply = run.reason
                    elif not (isinstance(reply, Failed) and reply.status >= 500):
                        self._pool.answered = run.heard
                    self._pool.over(job, reply)
                    return
                if run.reason is not None and not asked_to_stop:
                    asked_to_stop = True
                    self._pipe.send(worker.CANCEL)
        except (EOFError, OSError):
            self._lost("in the middle of a task")
            ended = Failed("WorkerError", "the process that computed this ended; send the request again", 503)
            self._pool.over(job, run.reason or ended)

    def _lost(self, when: str) -> None:
        process = self._process
        process.join(1)
        _log.error("worker %d ended %s (exit code %s); another one is started", self._number, when, process.exitcode)
        self._stop()

    def _stop(self) -> None:
        """End the process, which is not to do any more."""
        self.is_open = False
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        process, self._process = self._process, None
        if process is not None:
            # It ends by itself when its pipe closes, unless it is in the middle of something.
            process.join(0.5)
            if process.is_alive():
                process.kill()
                process.join()
