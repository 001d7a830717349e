"""Images are sent once, then asked about: upload, job, progress, results.

The routes and forms that VoxTell's server has are answered as there, so that its remote clients work: an upload is
``.nii.gz`` or any other image that we read, and masks come as (sentences, slices, rows, columns) in RAS order.
"""

from __future__ import annotations

import gzip
import importlib
import io
import json
import math
import time
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field

from lsms_rt.errors import InputError
from lsms_rt.reading.stated import Stated
from lsms_rt.runs.folder import RESULTS
from lsms_rt.runs.journal import NAME as JOURNAL
from lsms_rt.runs.request import SWITCHES

from .arrays import pack, unpack
from .jobs import DONE, FAILED, RUNNING, Job
from .replies import RequestError, bad
from .server import Server, body_of, server_of
from .settings import MIB
from .tasks import Failed, Segment, failed
from .uploads import ADDING, READING, VIEW, Upload
from .volume import IMAGE, in_ras, mask_name

router = APIRouter(tags=["jobs"])
MAX_SENTENCES = 16
NOT_READ = "this image was not read yet; POST /images/ID/complete"
HEARTBEAT = 1.0
# seconds after which the last line is said again: proxies cut a stream that is silent for a minute
REPEAT = 15.0
# bytes of the largest type of labels
LABEL = 8


class Asked(BaseModel):
    """What a job is asked for.  ``prompts`` and ``keep_largest`` are VoxTell's; the latter has no effect here."""

    image_id: str
    sentences: list[str] | str = Field(default_factory=list)
    prompts: list[str] | str = Field(default_factory=list)
    model: str | None = None
    files: list[str] = Field(default_factory=list)
    keep_largest: bool = False


class Facts(BaseModel):
    """What an image does not hold, as for ``lsms-rt predict``: which of several series, and facts that are stated."""

    series: str | None = None
    window: tuple[float, float] | None = None
    orientation: str | None = None
    rescale: tuple[float, float] | None = None
    spacing: tuple[float, float] | None = None
    as_one_series: bool = False


@router.post("/images")
async def send_image(request: Request, include_image: bool = True, more: bool = False) -> Response:
    """Send an image: the bytes of a file.  With ``more=true`` other files of the series follow.

    The answer's header ``X-Meta`` is JSON: image_id, spacing in mm and shape, both (slice, row, column); its body is
    the image in VoxTell's form, unless ``include_image=false``.
    """
    server = server_of(request)
    upload = server.uploads.create()
    try:
        await server.uploads.add(upload, request.stream())
        if more:
            return Response(json.dumps({"image_id": upload.id}), media_type="application/json")
        await _describe(request, server, upload, Facts())
    except BaseException:
        server.drop(upload)
        raise
    about, reading = upload.about, upload.reading
    assert about is not None and reading is not None
    body = b""
    if include_image:
        async with server.uploads.used(upload, VIEW):
            body = await run_in_threadpool(_packed, reading / IMAGE)
    meta = {"image_id": upload.id, "spacing": about["spacing"], "shape": about["shape"]}
    headers = {"X-Meta": json.dumps(meta)}
    return Response(body, media_type="application/octet-stream", headers=headers)


@router.post("/images/{id}/files")
async def send_file(request: Request, id: str) -> dict[str, Any]:
    """Send another file of an image that was begun with ``more=true``."""
    server = server_of(request)
    upload = server.uploads.get(id)
    await server.uploads.add(upload, request.stream())
    return {"image_id": id, "files": upload.count}


@router.post("/images/{id}/complete")
async def complete(request: Request, id: str, facts: Facts | None = None) -> dict[str, Any]:
    """Read an image whose files are all sent; again with other facts, or another one of its series."""
    server = server_of(request)
    upload = server.uploads.get(id)
    await _describe(request, server, upload, facts or Facts())
    return {"image_id": id} | (upload.about or {})


@router.get("/images/{id}")
async def image(request: Request, id: str) -> dict[str, Any]:
    """What an image is: shape, spacing, whether its side is known, and notes."""
    return {"image_id": id} | (server_of(request).uploads.get(id).about or {})


@router.get("/images/{id}/volume.nii.gz")
async def volume(request: Request, id: str) -> Response:
    """The image for a viewer: int16 in HU, whatever was sent."""
    reading = server_of(request).uploads.get(id).reading
    if reading is None:
        raise bad(NOT_READ, 409)
    return FileResponse(reading / IMAGE, media_type="application/gzip")


@router.delete("/images/{id}")
async def delete_image(request: Request, id: str) -> dict[str, bool]:
    """Delete an image and the results of its jobs; a job that runs is cancelled."""
    server = server_of(request)
    upload = server.uploads.get(id)
    await server.delete(upload)
    return {"deleted": True}


@router.post("/images/{id}/export")
async def export(request: Request, id: str) -> Response:
    """Write labels, of the image's shape and in VoxTell's form and order, as NIfTI with the volume's geometry."""
    server = server_of(request)
    upload = server.uploads.get(id)
    if upload.about is None or upload.reading is None:
        raise bad(NOT_READ, 409)
    volume = upload.reading / IMAGE
    limit = math.prod(upload.about["shape"]) * LABEL
    # What cannot be compressed has headers besides.
    async with server.uploads.used(upload, VIEW):
        body = await body_of(request, limit + MIB)
        content = await run_in_threadpool(_exported, volume, body, limit)
    return Response(content, media_type="application/gzip")


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
    async with _viewed(request, id) as job:
        body = await run_in_threadpool(_zipped, job)
    return Response(body, media_type="application/zip")


async def _describe(request: Request, server: Server, upload: Upload, facts: Facts) -> None:
    if not upload.count:
        raise bad("no file was sent; POST /images/ID/files", 409)
    try:
        stated = Stated(**facts.model_dump(exclude={"series"}))
    except InputError as error:
        raise RequestError(failed(error)) from None
    if upload.uses[ADDING]:
        raise bad("a file of this image is still arriving; wait for its end", 409)
    if upload.busy:
        # A new reading takes the place of what is in use.
        raise bad("this image is in use; wait for the end of its jobs and requests, or cancel them", 409)
    await server.read(request, upload, facts.series, stated)


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


def _zipped(job: Job) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _files(job):
            archive.write(_folder(job) / name, name)
    return buffer.getvalue()


def _volume(path: Path) -> np.ndarray:
    """Read one of our own volumes as (slices, rows, columns)."""
    nib: Any = importlib.import_module("nibabel")
    return np.asarray(np.asanyarray(nib.load(path).dataobj).transpose(2, 1, 0))


def _packed(path: Path) -> bytes:
    return pack(in_ras(_volume(path)))


def _packed_masks(job: Job) -> bytes:
    assert isinstance(job.task, Segment)
    count = len(job.task.sentences)
    masks = [_volume(_folder(job) / mask_name(n)) for n in range(1, count + 1)]
    return pack(in_ras(np.stack(masks)).astype(np.uint8))


def _exported(volume: Path, body: bytes, limit: int) -> bytes:
    nib: Any = importlib.import_module("nibabel")
    labels = unpack(body, limit)
    image: Any = nib.load(volume)
    if labels.shape != image.shape[::-1]:
        raise bad(f"the labels are {labels.shape}, the image is {image.shape[::-1]}; send one label per voxel")
    back = np.ascontiguousarray(in_ras(labels).transpose(2, 1, 0)).astype(np.uint8)
    out: Any = nib.Nifti1Image(back, image.affine)
    return gzip.compress(out.to_bytes(), 1)
