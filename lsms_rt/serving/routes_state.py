"""Whether the server lives, what it serves, how it reads a sentence, and its counters."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from lsms_rt import __version__
from lsms_rt.errors import InputError
from lsms_rt.reading.limits import MAX_FILE_BYTES, MAX_FILES
from lsms_rt.sentences.listing import words_of

from .replies import RequestError
from .server import server_of
from .tasks import failed

router = APIRouter(tags=["state"])
NOT_FOR_DIAGNOSIS = "Research software, not a medical device."


class Sentence(BaseModel):
    """A sentence to read."""

    text: str


@router.get("/healthz")
def healthz(request: Request, response: Response) -> dict[str, bool]:
    """Answer while the server lives, 503 if it must be started again; no key is needed."""
    good = server_of(request).pool.alive
    response.status_code = 200 if good else 503
    return {"ok": good}


@router.get("/readyz")
async def readyz(request: Request, response: Response) -> dict[str, Any]:
    """Segment a bundled slice, unless a request was answered just now."""
    good, why = await server_of(request).is_ready()
    response.status_code = 200 if good else 503
    return {"ready": good} | ({} if good else {"error": why})


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """Counters for Prometheus."""
    found = server_of(request).metrics
    found.note_engines()
    return Response(generate_latest(found.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/capabilities")
def capabilities(request: Request) -> dict[str, Any]:
    """What is served; the first three keys are those of VoxTell's server."""
    server = server_of(request)
    names = [model.name for model in server.settings.models]
    about = server.pool.models.get(names[0], {})
    size = about.get("image_size", 0)
    return {
        "model": names[0], "patch_size": [1, size, size], "available_embeddings": [],
        "version": __version__, "models": server.pool.models, "notice": NOT_FOR_DIAGNOSIS,
        "limits": {"files": MAX_FILES, "file_bytes": MAX_FILE_BYTES, "upload_bytes": server.settings.upload_bytes},
    }  # fmt: skip


@router.get("/models/{name}/words")
def words(request: Request, name: str) -> dict[str, Any]:
    """The words that may be said to an engine."""
    server = server_of(request)
    name = server.model(name)
    return words_of(server.readers[name]) | {"max_tokens": server.limits[name]}


@router.post("/models/{name}/read")
def read(request: Request, name: str, sentence: Sentence) -> dict[str, Any]:
    """How an engine reads a sentence; nothing is computed."""
    server = server_of(request)
    try:
        reading = server.readers[server.model(name)].read(sentence.text)
    except InputError as error:
        raise RequestError(failed(error)) from None
    return reading.to_record()
