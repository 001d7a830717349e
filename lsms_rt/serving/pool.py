"""Worker processes, and the queue before them.  All of it happens on the event loop.

Engines run in processes of their own, so that what ends one (a library that faults, the kernel that needs its memory)
ends the task that it was doing and no other: the pool replaces it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from . import worker
from .feeder import SHUTDOWN, Feeder
from .jobs import Job
from .settings import Settings
from .tasks import Cancelled, Failed

_log = logging.getLogger("lsms_rt")
# seconds that workers which are cut off at the end may take, and of it those until one that does not listen is killed
CUT, LISTENING = 2.0, 0.05


class QueueFullError(Exception):
    """As many tasks wait as may.

    Attributes:
        seconds: after which a place may be free.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class ClosedError(Exception):
    """The pool takes no more jobs."""


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
        closing: set when no more jobs are taken.
    """

    def __init__(
        self, settings: Settings, ended: Callable[[Job], None] = lambda job: None,
        work: Callable[..., None] = worker.main,
    ) -> None:  # fmt: skip
        self.settings, self._ended, self.work = settings, ended, work
        self._queue: deque[Job] = deque()
        # ``hurry``: set by who does not wait for running jobs
        self.closing, self.hurry = asyncio.Event(), asyncio.Event()
        self._cut_off: list[Job] = []
        self.models: dict[str, dict[str, Any]] = {}
        self.problem: Failed | None = None
        self.answered = 0.0
        self._usual = 1.0
        self._workers = [Feeder(self, n) for n in range(settings.workers)]

    def start(self) -> None:
        for one in self._workers:
            one.start()

    @property
    def waiting(self) -> int:
        """Number of jobs in the queue."""
        return len(self._queue)

    @property
    def ready(self) -> int:
        """Number of workers that have opened their engines and work: a busy one was heard lately."""
        return sum(one.works for one in self._workers)

    @property
    def running(self) -> int:
        """Number of jobs that workers are doing."""
        return sum(one.job is not None for one in self._workers)

    @property
    def idle(self) -> int:
        """Number of workers that could begin a job now."""
        return sum(one.free for one in self._workers)

    @property
    def alive(self) -> bool:
        """Whether every task that the pool needs runs; after ``close`` none is needed."""
        tasks = [one.task for one in self._workers]
        return self.closing.is_set() or all(task is not None and not task.done() for task in tasks)

    @property
    def pids(self) -> list[int]:
        """The process of each worker that lives."""
        return [one.pid for one in self._workers if one.pid is not None]

    def submit(self, job: Job) -> Job:
        """Put a job into the queue.

        Raises:
            QueueFullError: there is no place.
            ClosedError: the server is being stopped.
        """
        if self.closing.is_set():
            raise ClosedError
        if len(self._queue) >= self.settings.queue:
            raise QueueFullError(max(1.0, self._usual * len(self._queue) / len(self._workers)))
        self._queue.append(job)
        self.hand_out()
        return job

    def cancel(self, job: Job) -> None:
        """End a job: one that waits at once, one that runs after the slices that are being computed."""
        if job in self._queue:
            self._queue.remove(job)
            self.over(job, Cancelled())
        for one in self._workers:
            if one.job is job:
                one.stop(Cancelled(), self.settings.grace)

    def hand_out(self) -> None:
        """Give the jobs that wait to the workers that are free."""
        for one in self._workers:
            if self._queue and one.free:
                one.begin(self._queue.popleft())

    def over(self, job: Job, reply: Any) -> None:
        """Note the end of a job; only the first counts."""
        if job.over:
            return
        job.tell(reply)
        if reply is SHUTDOWN:
            self._cut_off.append(job)
        if job.started is not None and job.ended is not None:
            self._usual += 0.2 * (job.ended - job.started - self._usual)
        # After the answer, which does not wait until it is counted.
        asyncio.get_running_loop().call_soon(self._count, job)

    def _count(self, job: Job) -> None:
        try:
            self._ended(job)
        except Exception as error:
            # What counts jobs must not stop them.
            _log.error("a job that ended was not counted: unexpected %s", type(error).__name__)

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer than until the pool closes."""
        if seconds:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.closing.wait(), seconds)

    async def close(self) -> list[Job]:
        """Take no more jobs, let the running ones end within the grace time, and stop the workers.

        It takes at most the grace time, which ends when ``hurry`` is set, and ``CUT`` seconds.

        Returns:
            The jobs that were cut off.
        """
        self.closing.set()
        while self._queue:
            self.over(self._queue.popleft(), SHUTDOWN)
        for one in self._workers:
            one.settle()
        grace, hurried = (asyncio.ensure_future(one) for one in (self._join(self.settings.grace), self.hurry.wait()))
        await asyncio.wait((grace, hurried), return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for one in self._workers:
            one.stop(SHUTDOWN, LISTENING)
        await self._join(CUT)
        for late in (one.job for one in self._workers):
            if late is not None:
                self.over(late, SHUTDOWN)
        return self._cut_off

    async def _join(self, seconds: float) -> None:
        tasks = [one.task for one in self._workers if one.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
