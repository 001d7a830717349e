"""The parts of a running server, as routes use them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import Request

from lsms_rt.engine import open_directory
from lsms_rt.reading.stated import Stated
from lsms_rt.sentences import Reader, open_reader

from . import worker
from .jobs import Job
from .metrics import Metrics
from .pool import Pool, QueueFullError
from .replies import RequestError, bad
from .settings import MIB, Settings
from .tasks import Describe, Done, Failed, Infer, Probe, Segment, Task
from .uploads import JOB, READING, Upload, Uploads

_log = logging.getLogger("lsms_rt")
# An inference that is not older shows that the server works; seconds.
FRESH = 15.0
# seconds that a readiness probe waits for a worker
PROBE_LIMIT = 10.0
REAP_EVERY = 30.0
# seconds after which a client that waits is looked for
LEFT_EVERY = 0.5
# jobs that are kept with their results
MAX_JOBS = 256


class Server:
    """A pool of workers, the uploads and the jobs.

    Args:
        settings: what the server was started with.
        work: what a worker process runs, see ``Pool``.
    """

    def __init__(self, settings: Settings, work: Callable[..., None] = worker.main) -> None:
        self.settings = settings
        self.uploads = Uploads(settings)
        self.jobs: dict[str, Job] = {}
        self._beside: set[asyncio.Task[None]] = set()
        self.readers: dict[str, Reader] = {}
        self.limits: dict[str, int] = {}
        for model in settings.models:
            directory = open_directory(model.path, model.digest)
            self.readers[model.name] = open_reader(directory)
            self.limits[model.name] = directory.manifest.max_tokens
        self.pool = Pool(settings, self._ended, work)
        self.metrics = Metrics(self.pool)
        self._stopped = False

    def _ended(self, job: Job) -> None:
        self.metrics.count(job)
        if isinstance(job.task, Segment):
            # It is in results.json.
            job.drop_value()
        if isinstance(job.task, Infer) and job.task.scratch is not None:
            self._keep(asyncio.to_thread(shutil.rmtree, job.task.scratch, ignore_errors=True))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the workers; at the end let jobs finish, stop the workers, and delete everything that was sent."""
        self.pool.start()
        reaper = asyncio.create_task(self._reap())
        try:
            yield
        finally:
            reaper.cancel()
            await self.stop()
            self.uploads.close()

    async def stop(self) -> None:
        """Take no more jobs and stop the workers; running jobs may end within the grace time.  Once is enough."""
        if self._stopped:
            return
        self._stopped = True
        cut = await self.pool.close()
        if cut:
            _log.warning("stopped before %d of the tasks were done; their senders are told", len(cut))

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(min(REAP_EVERY, self.settings.idle))
            try:
                await self._delete_idle()
            except Exception as error:
                # Without its text, which may hold a path.
                _log.error("what is not used could not be deleted: unexpected %s", type(error).__name__)

    async def _delete_idle(self) -> None:
        for upload in self.uploads.idle():
            # While others were deleted it may have come into use.
            if not upload.busy:
                await self.delete(upload)
        now = time.monotonic()
        for job in [job for job in self.jobs.values() if job.ended and now - job.ended > self.settings.idle]:
            await self.forget(job)

    def ask(self, upload: Upload, task: Segment) -> Job:
        """Put a question about an upload into the queue; its results go to a folder of the upload's reading.

        Raises:
            QueueFullError: there is no place.
            ClosedError: the server is being stopped.
        """
        assert upload.reading is not None
        job = Job(task, image=upload.id)
        job.task = replace(task, output=upload.reading / job.id)
        self.submit_job(job)
        self.jobs[job.id] = job
        self.uploads.hold(upload, JOB)
        self._keep(self._finish(job, upload, job.task.output))
        return job

    async def _finish(self, job: Job, upload: Upload, output: Path) -> None:
        await job.finished()
        await self.uploads.release(upload, JOB)
        await self.uploads.note(upload, output)
        # The oldest go first; those that run are at the end.
        while len(self.jobs) > MAX_JOBS and next(iter(self.jobs.values())).over:
            await self.forget(next(iter(self.jobs.values())))

    async def read(self, request: Request, upload: Upload, series: str | None, stated: Stated) -> None:
        """Read an upload anew.  Only if that succeeds, it takes the place of the former reading and of its jobs.

        Raises:
            QueueFullError: there is no place in the queue.
            RequestError: it failed.
        """
        folder = upload.folder / f"reading-{uuid.uuid4().hex}"
        job = Job(Describe(source=upload.source, output=folder, series=series, stated=stated))
        self.submit_job(job)
        self.uploads.hold(upload, READING)
        # Beside the request, which may end before the worker does.
        ended = self._keep(self._switch(job, upload, folder, series, stated))
        try:
            await self._wait(request, job)
        finally:
            await asyncio.shield(ended)
        if upload.deleted:
            raise bad("this image was deleted while it was read; send it again with POST /images", 404)

    async def _switch(self, job: Job, upload: Upload, folder: Path, series: str | None, stated: Stated) -> None:
        try:
            reply = await job.finished()
            if not isinstance(reply, Done) or upload.deleted:
                await self.uploads.forget(upload, folder)
                return
            await self.uploads.note(upload, folder)
            former, upload.reading = upload.reading, folder
            upload.about, upload.series, upload.stated = reply.value, series, stated
            for old in self._jobs_of(upload):
                del self.jobs[old.id]
            if former is not None:
                await self.uploads.forget(upload, former)
        finally:
            await self.uploads.release(upload, READING)

    def _jobs_of(self, upload: Upload) -> list[Job]:
        return [job for job in self.jobs.values() if job.image == upload.id]

    async def forget(self, job: Job) -> None:
        """Delete a job and its results."""
        self.jobs.pop(job.id, None)
        if isinstance(job.task, Segment):
            await self.uploads.forget(self.uploads.find(job.image), job.task.output)

    async def delete(self, upload: Upload) -> None:
        """Delete an upload, its jobs and their results; what runs is cancelled."""
        for job in self._jobs_of(upload):
            self.pool.cancel(job)
            del self.jobs[job.id]
        await self.uploads.delete(upload)

    def model(self, name: str | None) -> str:
        """Return an engine's name; the only one if none is given.

        Raises:
            RequestError: there is none of this name, or there are several.
        """
        names = [model.name for model in self.settings.models]
        if name is None and len(names) == 1:
            return names[0]
        if name not in names:
            raise bad(f"name a model; there are {', '.join(names)}", 404)
        return name

    def submit(self, task: Task) -> Job:
        """Put a task into the queue.

        Raises:
            QueueFullError: there is no place.
            ClosedError: the server is being stopped.
        """
        return self.submit_job(Job(task))

    def submit_job(self, job: Job) -> Job:
        """Put a job into the queue; errors as for ``submit``."""
        if isinstance(job.task, Infer) and isinstance(job.task.image, bytes):
            job.task = replace(job.task, scratch=self.uploads.root / f"scratch-{job.id}")
        try:
            return self.pool.submit(job)
        except QueueFullError:
            self.metrics.rejected()
            raise

    def drop(self, upload: Upload) -> None:
        """Delete an upload beside the request: its answer, which may be the server's last, does not wait."""
        self.uploads.withdraw(upload)
        self._keep(self.delete(upload))

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the requests."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    async def result(self, request: Request, task: Task) -> Done:
        """Do a task and wait for it; a client that leaves cancels it.

        Raises:
            QueueFullError: there is no place in the queue.
            ClosedError: the server is being stopped.
            RequestError: it failed.
        """
        return await self._wait(request, self.submit(task))

    async def _wait(self, request: Request, job: Job) -> Done:
        try:
            # Not at once: the worker has the cores.
            while await job.finished(LEFT_EVERY) is None:
                if await request.is_disconnected():
                    self.pool.cancel(job)
        except asyncio.CancelledError:
            self.pool.cancel(job)
            raise
        if isinstance(job.reply, Done):
            return job.reply
        if isinstance(job.reply, Failed):
            raise RequestError(job.reply)
        raise bad("the request was cancelled", 499, "CancelledError")

    async def is_ready(self) -> tuple[bool, str]:
        """Whether a worker works: its last inference is fresh, it is busy and was heard, or a slice is segmented."""
        if self.pool.closing.is_set():
            return False, "the server is being stopped"
        if self.pool.ready == 0:
            if self.pool.running:
                return False, "no worker has said anything of its task for too long"
            problem = self.pool.problem
            return False, "the engines are being opened" if problem is None else problem.message
        if time.monotonic() - self.pool.answered < FRESH or self.pool.idle == 0:
            return True, ""
        job = self.submit(Probe())
        reply = await job.finished(PROBE_LIMIT)
        if reply is None:
            self.pool.cancel(job)
            return False, f"a slice took longer than {PROBE_LIMIT:g} s"
        return isinstance(reply, Done), "" if isinstance(reply, Done) else getattr(reply, "message", "cancelled")


async def body_of(request: Request, limit: int) -> bytes:
    """Return a request's body, which is refused as soon as it exceeds ``limit`` bytes.

    Raises:
        RequestError: it is too large.
    """
    parts: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise bad(f"the body is over the limit of {limit / MIB:g} MiB; send fewer slices", 413)
        parts.append(chunk)
    return b"".join(parts)


def server_of(request: Request) -> Server:
    server: Any = request.app.state.server
    assert isinstance(server, Server)
    return server
