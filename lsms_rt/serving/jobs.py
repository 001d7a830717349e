"""Tasks that were asked for: where each stands, and what came of it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from .tasks import Cancelled, Done, Failed, Progress, Reply, Task

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDS: dict[type, str] = {Done: DONE, Failed: FAILED, Cancelled: CANCELLED}


@dataclass(eq=False)
class Job:
    """A task and its state.  The pool changes it, requests read it and wait for it, all on the event loop.

    Attributes:
        task: what to do.
        id: by which requests name it.
        image: id of the upload that it is about; None for one without.
        progress: slices that are done, and their number.
        reply: the last reply of the worker; None before the end.
        created: time.monotonic() at the beginning, ``started`` when a worker has begun, and ``ended`` at the end.
    """

    task: Task
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    image: str | None = None
    progress: Progress = field(default_factory=lambda: Progress(0, 0))
    reply: Done | Failed | Cancelled | None = None
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    ended: float | None = None

    def __post_init__(self) -> None:
        # Who waits, and whether that is for the end alone.
        self._waiting: list[tuple[asyncio.Future[None], bool]] = []

    @property
    def state(self) -> str:
        """Where it stands: "queued", "running", "done", "failed" or "cancelled"."""
        if self.reply is not None:
            return ENDS[type(self.reply)]
        return QUEUED if self.started is None else RUNNING

    @property
    def over(self) -> bool:
        return self.reply is not None

    def start(self) -> None:
        """Note that a worker has begun."""
        self.started = time.monotonic()
        self._wake()

    def tell(self, reply: Reply) -> None:
        """Note what a worker said; what comes after the end is ignored."""
        if self.over:
            return
        if isinstance(reply, Progress):
            self.progress = reply
        elif isinstance(reply, (Done, Failed, Cancelled)):
            self.ended = time.monotonic()
            self.reply = reply
        self._wake()

    def drop_value(self) -> None:
        """Forget a result that lies in files, so that memory does not grow with the jobs that are kept."""
        if isinstance(self.reply, Done):
            self.reply = replace(self.reply, value=None)

    def _wake(self) -> None:
        for waiter, end_alone in self._waiting:
            if self.over or not end_alone:
                _wake(waiter)

    async def changes(self, timeout: float | None = None) -> AsyncIterator[Job]:
        """Yield the job now, and whenever it has changed, until it is over; also every ``timeout`` seconds."""
        over = False
        while not over:
            over = self.over
            # Before the job is shown: what happens meanwhile is a change, too.
            with self._waits(timeout) as waiter:
                yield self
                if not over:
                    await waiter

    async def finished(self, timeout: float | None = None) -> Done | Failed | Cancelled | None:
        """Wait for the end, without being woken by other changes; None if it takes longer than ``timeout`` seconds."""
        if not self.over:
            with self._waits(timeout, end_alone=True) as waiter:
                await waiter
        return self.reply

    @contextmanager
    def _waits(self, timeout: float | None, end_alone: bool = False) -> Iterator[asyncio.Future[None]]:
        """Give a future that ends with the next change, or after ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        entry = loop.create_future(), end_alone
        self._waiting.append(entry)
        timer = None if timeout is None else loop.call_later(timeout, _wake, entry[0])
        try:
            yield entry[0]
        finally:
            self._waiting.remove(entry)
            if timer is not None:
                timer.cancel()

    def to_dict(self) -> dict[str, Any]:
        """Return the state, in plain types for JSON."""
        progress = {"done": self.progress.done, "total": self.progress.total}
        error = {} if not isinstance(self.reply, Failed) else {"error": self.reply.message, "kind": self.reply.kind}
        return {"job_id": self.id, "state": self.state, **progress, **error}


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
