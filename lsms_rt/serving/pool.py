"""Worker processes, and the queue before them.

Engines run in processes of their own, so that what ends one (a library that faults, the kernel that needs its memory)
ends the task that it was doing and no other: the pool replaces it.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from . import worker
from .jobs import Job
from .settings import Settings
from .tasks import Cancelled, Failed, Opened, Progress

_log = logging.getLogger("lsms_rt")
# seconds: how soon a cancellation, a shutdown or a dead worker is noticed
POLL = 0.05
# seconds that a worker may take to open its engines: a GPU's first start compiles
OPENING = 600.0
# seconds before a worker that could not open its engines is tried again
RETRY = 5.0


class QueueFullError(Exception):
    """As many tasks wait as may.

    Attributes:
        seconds: after which a place may be free.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class Pool:
    """Runs jobs on worker processes, in the order in which they come.

    Args:
        settings: the server's settings.
        ended: called with every job that is over.
        work: what a worker process runs, see ``worker.main``.

    Attributes:
        models: what a worker told of the engines; empty until the first has opened them.
        problem: why the last worker could not open them; None if it could.
        answered: time.monotonic() when a worker last did a task well.
    """

    def __init__(
        self, settings: Settings, ended: Callable[[Job], None] = lambda job: None,
        work: Callable[..., None] = worker.main,
    ) -> None:  # fmt: skip
        self._settings, self._ended, self._work = settings, ended, work
        self._queue: queue.Queue[Job] = queue.Queue(settings.queue)
        self._closing = threading.Event()
        self._cut = threading.Event()
        self.models: dict[str, dict[str, Any]] = {}
        self.problem: Failed | None = None
        self.answered = 0.0
        self._usual = 1.0
        self._workers = [_Worker(self, n) for n in range(settings.workers)]

    def start(self) -> None:
        for one in self._workers:
            one.thread.start()

    @property
    def waiting(self) -> int:
        """Number of jobs in the queue."""
        return self._queue.qsize()

    @property
    def ready(self) -> int:
        """Number of workers that have opened their engines and live."""
        return sum(one.is_open for one in self._workers)

    @property
    def running(self) -> int:
        """Number of jobs that workers are doing."""
        return sum(one.job is not None for one in self._workers)

    @property
    def pids(self) -> list[int]:
        """The process of each worker that lives."""
        return [one.pid for one in self._workers if one.pid is not None]

    def submit(self, job: Job) -> Job:
        """Put a job into the queue.

        Raises:
            QueueFullError: there is no place.
        """
        try:
            if self._closing.is_set():
                raise queue.Full
            self._queue.put_nowait(job)
        except queue.Full:
            raise QueueFullError(max(1.0, self._usual * self.waiting / len(self._workers))) from None
        return job

    def close(self) -> list[Job]:
        """Take no more jobs, let the running ones end within the grace time, and stop the workers.

        Returns:
            The jobs that were cut off.
        """
        self._closing.set()
        left = []
        while True:
            try:
                left.append(self._queue.get_nowait())
            except queue.Empty:
                break
        for job in left:
            self._over(job, Failed("ShutdownError", "the server is being stopped; send the request again later", 503))
        deadline = time.monotonic() + self._settings.grace
        for one in self._workers:
            one.thread.join(max(0.0, deadline - time.monotonic()))
        self._cut.set()
        for one in self._workers:
            if one.thread.is_alive():
                one.thread.join(self._settings.grace)
        return left + [one.cut for one in self._workers if one.cut is not None]

    def _over(self, job: Job, reply: Any) -> None:
        job.tell(reply)
        if job.started is not None and job.ended is not None:
            self._usual += 0.2 * (job.ended - job.started - self._usual)
        self._ended(job)


class _Worker:
    """One worker process at a time, and the thread that feeds it."""

    def __init__(self, pool: Pool, number: int) -> None:
        self._pool, self._settings, self._number = pool, pool._settings, number
        self.thread = threading.Thread(target=self._run, name=f"worker {number}", daemon=True)
        self._process: Any = None
        self._pipe: Connection | None = None
        self.is_open = False
        self.job: Job | None = None
        # the job that a shutdown cut off
        self.cut: Job | None = None

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.pid

    def _run(self) -> None:
        while not self._pool._closing.is_set():
            if not self.is_open and not self._open():
                self._pool._closing.wait(RETRY)
                continue
            try:
                job = self._pool._queue.get(timeout=POLL)
            except queue.Empty:
                if not self._process.is_alive():
                    self._lost("while it had nothing to do")
                continue
            if job.cancelled.is_set():
                self._pool._over(job, Cancelled())
                continue
            self.job = job
            try:
                self._do(job)
            finally:
                self.job = None
        self._stop()

    def _open(self) -> bool:
        """Start a process, and wait until it has opened its engines."""
        settings = self._settings
        device = settings.devices[self._number % len(settings.devices)] if settings.devices else None
        threads = settings.threads or max(1, (os.cpu_count() or 1) // settings.workers)
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, settings.models, device, threads, settings.runtime)
        self._process = context.Process(target=self._pool._work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        deadline = time.monotonic() + OPENING
        while not self._pool._closing.is_set() and time.monotonic() < deadline:
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

    def _do(self, job: Job) -> None:
        """Run a job to its end, whatever that is."""
        assert self._pipe is not None
        deadline = time.monotonic() + self._settings.time_limit
        stop_at, reason = None, None
        try:
            self._pipe.send(job.task)
            job.start()
            while True:
                if self._pipe.poll(POLL):
                    reply = self._pipe.recv()
                    if isinstance(reply, Progress):
                        job.tell(reply)
                        continue
                    if isinstance(reply, Cancelled) and reason is not None:
                        reply = reason
                    elif not (isinstance(reply, Failed) and reply.status >= 500):
                        self._pool.answered = time.monotonic()
                    self._pool._over(job, reply)
                    return
                now = time.monotonic()
                if stop_at is None:
                    reason = self._reason(job, now > deadline)
                    if reason is not None or job.cancelled.is_set():
                        self._pipe.send(worker.CANCEL)
                        stop_at = now + (0 if self._pool._cut.is_set() else self._settings.grace)
                elif now > stop_at:
                    # It does not listen: it is in a library's call.
                    self._stop()
                    self._pool._over(job, reason or Cancelled())
                    return
        except (EOFError, OSError):
            self._lost("in the middle of a task")
            self._pool._over(
                job, Failed("WorkerError", "the process that computed this ended; send the request again", 503)
            )

    def _reason(self, job: Job, late: bool) -> Failed | None:
        """Why a running job must stop, if it must."""
        if self._pool._cut.is_set():
            self.cut = job
            return Failed("ShutdownError", "the server was stopped before this was done; send the request again", 503)
        if late:
            limit = self._settings.time_limit
            return Failed(
                "TimeLimitError", f"the task took longer than the limit of {limit:g} s; send less at once", 504
            )
        return None

    def _lost(self, when: str) -> None:
        process = self._process
        process.join(1)
        _log.error("worker %d ended %s (exit code %s); another one is started", self._number, when, process.exitcode)
        self._stop()

    def _stop(self) -> None:
        """End the process, which is not to do any more."""
        self.is_open = False
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        process, self._process = self._process, None
        if process is not None:
            # It ends by itself when its pipe closes, unless it is in the middle of something.
            process.join(0.5)
            if process.is_alive():
                process.kill()
                process.join()
