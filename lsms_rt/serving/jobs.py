"""Tasks that were asked for: where each stands, and what came of it."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from .tasks import Cancelled, Done, Failed, Progress, Reply, Task

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDS: dict[type, str] = {Done: DONE, Failed: FAILED, Cancelled: CANCELLED}


@dataclass(eq=False)
class Job:
    """A task and its state.  Workers' threads change it, requests read it and wait for it.

    Attributes:
        task: what to do.
        id: by which requests name it.
        image: id of the upload that it is about; None for one without.
        progress: slices that are done, and their number.
        reply: the last reply of the worker; None before the end.
        cancelled: set to ask the worker to stop.
        created: time.monotonic() at the beginning, ``started`` when a worker has begun, and ``ended`` at the end.
    """

    task: Task
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    image: str | None = None
    progress: Progress = field(default_factory=lambda: Progress(0, 0))
    reply: Done | Failed | Cancelled | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    ended: float | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        # A loop, its event, and whether that is for the end alone.
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event, bool]] = []

    @property
    def state(self) -> str:
        """Where it stands: "queued", "running", "done", "failed" or "cancelled"."""
        # One look at what another thread may change, so that a state and its reply always agree.
        reply = self.reply
        if reply is not None:
            return ENDS[type(reply)]
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
        with self._lock:
            for loop, event, end_alone in self._waiting:
                # At shutdown the loop may be gone.
                if (self.over or not end_alone) and not loop.is_closed():
                    loop.call_soon_threadsafe(event.set)

    async def changes(self, timeout: float | None = None, *, end_alone: bool = False) -> AsyncIterator[Job]:
        """Yield the job now, and whenever it has changed, until it is over; also every ``timeout`` seconds.

        Args:
            timeout: seconds; None: only when it has changed.
            end_alone: of the changes, only the end counts: who waits for it is not woken beside the computation.
        """
        event = asyncio.Event()
        entry = (asyncio.get_running_loop(), event, end_alone)
        with self._lock:
            self._waiting.append(entry)
        try:
            while True:
                event.clear()
                over = self.over
                yield self
                if over:
                    return
                try:
                    await asyncio.wait_for(event.wait(), timeout)
                except asyncio.TimeoutError:
                    continue
        finally:
            with self._lock:
                self._waiting.remove(entry)

    async def finished(self) -> Done | Failed | Cancelled:
        """Wait for the end."""
        async for _ in self.changes(end_alone=True):
            pass
        assert self.reply is not None
        return self.reply

    def to_dict(self) -> dict[str, Any]:
        """Return the state, in plain types for JSON."""
        progress = {"done": self.progress.done, "total": self.progress.total}
        error = {} if not isinstance(self.reply, Failed) else {"error": self.reply.message, "kind": self.reply.kind}
        return {"job_id": self.id, "state": self.state, **progress, **error}
