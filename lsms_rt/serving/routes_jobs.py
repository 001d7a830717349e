"""Questions about images that were sent: job, progress, results.

The routes and forms that VoxTell's server has are answered as there, so that its remote clients work: an upload is
``.nii.gz`` or any other image that we read, and masks come as (sentences, slices, rows, columns) in RAS order.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import iterate_in_threadpool, run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from lsms_rt.runs.folder import RESULTS
from lsms_rt.runs.journal import NAME as JOURNAL
from lsms_rt.runs.request import SWITCHES

from .archive import zipped
from .arrays import pack
from .jobs import DONE, FAILED, RUNNING, Job
from .replies import RequestError, bad
from .routes_images import NOT_READ
from .server import server_of
from .tasks import Failed, Segment
from .uploads import READING, VIEW
from .volume import IMAGE, in_ras, mask_name, read_volume

router = APIRouter(tags=["jobs"])
MAX_SENTENCES = 16
HEARTBEAT = 1.0
# seconds after which the last line is said again: proxies cut a stream that is silent for a minute
REPEAT = 15.0


class Asked(BaseModel):
    """What a job is asked for.  ``prompts`` and ``keep_largest`` are VoxTell's; the latter has no effect here."""

    # A misspelled one would be missed only in the results.
    model_config = ConfigDict(extra="forbid")

    image_id: str
    sentences: list[str] | str = Field(default_factory=list)
    prompts: list[str] | str = Field(default_factory=list)
    model: str | None = None
    files: list[str] = Field(default_factory=list)
    keep_largest: bool = False


@router.post("/jobs")
async def ask(request: Request, asked: Asked) -> dict[str, str]:
    """Ask about an image: one or more sentences.  The answer is the job's id."""
    server = server_of(request)
    upload = server.uploads.get(asked.image_id)
    if upload.uses[READING]:
        raise bad("this image is being read; ask again when that has ended", 409)
    if upload.about is None or upload.reading is None:
        raise bad(NOT_READ, 409)
    server.uploads.check_not_full()
    given = asked.sentences or asked.prompts
    sentences = (given,) if isinstance(given, str) else tuple(given)
    if not 1 <= len(sentences) <= MAX_SENTENCES:
        raise bad(f"sentences: give 1 to {MAX_SENTENCES}")
    if unknown := set(asked.files) - set(SWITCHES):
        raise bad(f"files: {len(unknown)} unknown; there are {', '.join(SWITCHES)}")
    model = server.model(asked.model or server.settings.models[0].name)
    task = Segment(
        model=model, source=upload.source, output=upload.reading, grid=upload.reading / IMAGE,
        sentences=sentences, series=upload.series, stated=upload.stated, files=tuple(asked.files),
    )  # fmt: skip
    return {"job_id": server.ask(upload, task).id}


@router.get("/jobs/{id}")
async def state(request: Request, id: str) -> dict[str, Any]:
    """Where a job stands."""
    return _job(request, id).to_dict()


@router.get("/jobs/{id}/events")
async def events(request: Request, id: str) -> Response:
    """Progress as it happens: lines of JSON, ``{"done", "total"}``, and at the end ``{"status"}``.

    The last line comes again every 15 s.
    """
    return StreamingResponse(_lines(_job(request, id)), media_type="application/x-ndjson")


@router.post("/jobs/{id}/cancel")
async def cancel(request: Request, id: str) -> dict[str, str]:
    """Ask a job to end; one that waits does so at once, one that runs after the slices that are being computed."""
    job = _job(request, id)
    server_of(request).pool.cancel(job)
    return {"job_id": id, "state": job.state}


@router.get("/jobs/{id}/result")
async def result(request: Request, id: str) -> Response:
    """The masks of a finished job in VoxTell's form: uint8 (sentences, slices, rows, columns) in RAS order."""
    async with _viewed(request, id) as job:
        body = await run_in_threadpool(_packed_masks, job)
    return Response(body, media_type="application/octet-stream")


@router.get("/jobs/{id}/results.json")
async def results(request: Request, id: str) -> Response:
    """What was found: per slice and per sentence, as ``lsms-rt predict`` writes it."""
    return FileResponse(_folder(_finished(request, id)) / RESULTS, media_type="application/json")


@router.get("/jobs/{id}/files")
async def files(request: Request, id: str) -> dict[str, list[str]]:
    """Names of a finished job's files."""
    return {"files": await run_in_threadpool(_files, _finished(request, id))}


@router.get("/jobs/{id}/files/{name}")
async def file(request: Request, id: str, name: str) -> Response:
    """One of a finished job's files: pictures, masks, DICOM, NIfTI."""
    job = _finished(request, id)
    if name not in await run_in_threadpool(_files, job):
        raise bad("this job has no file of this name; see GET /jobs/ID/files", 404)
    return FileResponse(_folder(job) / name)


@router.get("/jobs/{id}/files.zip")
async def all_files(request: Request, id: str) -> Response:
    """All of a finished job's files."""
    parts = _zipped(request, id)
    # Begun here: what is wrong is still told by the status, and the files are kept from now on.
    first = await anext(parts)

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for part in parts:
            yield part

    return StreamingResponse(body(), media_type="application/zip")


async def _zipped(request: Request, id: str) -> AsyncIterator[bytes]:
    async with _viewed(request, id) as job:
        async for part in iterate_in_threadpool(zipped(_folder(job), await run_in_threadpool(_files, job))):
            yield part


async def _lines(job: Job) -> AsyncIterator[bytes]:
    said: dict[str, Any] = {}
    at = time.monotonic()
    async for now in job.changes(timeout=HEARTBEAT):
        if now.over:
            break
        line = (
            {"done": now.progress.done, "total": now.progress.total} if now.state == RUNNING else {"event": now.state}
        )
        if line != said or time.monotonic() - at >= REPEAT:
            said, at = line, time.monotonic()
            yield json.dumps(line).encode() + b"\n"
    if job.state == DONE:
        last = {"status": DONE}
    elif job.state == FAILED and isinstance(job.reply, Failed):
        last = {"status": "error", "message": job.reply.message, "kind": job.reply.kind}
    else:
        last = {"status": job.state}
    yield json.dumps(last).encode() + b"\n"


def _job(request: Request, id: str) -> Job:
    job = server_of(request).jobs.get(id)
    if job is None:
        raise bad("there is no job of this id, or it was deleted; ask again with POST /jobs", 404)
    return job


def _finished(request: Request, id: str) -> Job:
    job = _job(request, id)
    if isinstance(job.reply, Failed):
        raise RequestError(job.reply)
    if job.state != DONE:
        raise bad(f"this job is {job.state}; wait for GET /jobs/ID/events to say done", 409)
    return job


@asynccontextmanager
async def _viewed(request: Request, id: str) -> AsyncIterator[Job]:
    """Keep the files of a finished job while they are read."""
    job, uploads = _finished(request, id), server_of(request).uploads
    assert job.image is not None
    async with uploads.used(uploads.get(job.image), VIEW):
        yield job


def _folder(job: Job) -> Path:
    assert isinstance(job.task, Segment)
    return job.task.output


def _files(job: Job) -> list[str]:
    return sorted(path.name for path in _folder(job).glob("*") if path.is_file() and path.name != JOURNAL)


def _packed_masks(job: Job) -> bytes:
    assert isinstance(job.task, Segment)
    count = len(job.task.sentences)
    masks = [read_volume(_folder(job) / mask_name(n)) for n in range(1, count + 1)]
    return pack(in_ras(np.stack(masks)).astype(np.uint8))
