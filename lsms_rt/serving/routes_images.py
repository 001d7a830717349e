"""Images are sent once, then asked about: upload, what they are, volumes for viewers."""

from __future__ import annotations

import gzip
import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict

from lsms_rt.errors import InputError
from lsms_rt.reading.stated import Stated

from .arrays import pack, unpack
from .replies import RequestError, bad
from .server import Server, body_of, server_of
from .settings import MIB
from .tasks import failed
from .uploads import ADDING, VIEW, Upload
from .volume import IMAGE, in_ras, read_volume

router = APIRouter(tags=["images"])
NOT_READ = "this image was not read yet; POST /images/ID/complete"
# bytes of the largest type of labels
LABEL = 8


class Facts(BaseModel):
    """What an image does not hold, as for ``lsms-rt predict``: which of several series, and facts that are stated."""

    # A fact whose name is misspelled must not be left out.
    model_config = ConfigDict(extra="forbid")

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


def _packed(path: Path) -> bytes:
    return pack(in_ras(read_volume(path)))


def _exported(volume: Path, body: bytes, limit: int) -> bytes:
    nib: Any = importlib.import_module("nibabel")
    labels = unpack(body, limit)
    image: Any = nib.load(volume)
    if labels.shape != image.shape[::-1]:
        raise bad(f"the labels are {labels.shape}, the image is {image.shape[::-1]}; send one label per voxel")
    back = np.ascontiguousarray(in_ras(labels).transpose(2, 1, 0)).astype(np.uint8)
    out: Any = nib.Nifti1Image(back, image.affine)
    return gzip.compress(out.to_bytes(), 1)
