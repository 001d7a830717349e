"""KServe v2: tensors in, tensors out, one request and one answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from lsms_rt import __version__

from .bodies import AGAIN, Bodies
from .kserve import JSON_LENGTH, Wanted, answer, check_values, json_length, parse, wanted
from .pool import QueueFullError
from .replies import bad
from .routes_state import readyz
from .server import server_of
from .settings import MIB
from .tasks import Infer
from .tensors import INPUTS, OUTPUTS, config_of, outputs_of, task_of

Value = TypeVar("Value")
router = APIRouter(prefix="/v2", tags=["KServe v2"])
# 512 slices of 512 x 512 in int16, and a sentence
BODY_LIMIT = 257 * MIB
# of all requests that are read or computed
BODIES_LIMIT = 4 * BODY_LIMIT
# Bytes of JSON that are read, or of a mask that is copied, on the event loop: more of them, and JSON that is written,
# would keep the other requests waiting longer than a thread takes to begin and to end.
AT_ONCE_JSON, AT_ONCE_MASK = 2**14, MIB
OUTPUT_NAMES = [str(one["name"]) for one in OUTPUTS]


def bodies() -> Bodies:
    """Return what bounds the bodies of a server's requests."""
    return Bodies(each=BODY_LIMIT, all=BODIES_LIMIT)


# First, so that no other path is compared with that of most requests.
@router.post("/models/{name}/infer")
@router.post("/models/{name}/versions/{version}/infer")
async def infer(request: Request, name: str) -> Response:
    """Segment slices.  Body and answer as KServe v2 describes, in JSON or with binary tensors."""
    server = server_of(request)
    name = server.model(name)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise bad("the body is compressed; send it as it is", 415)
    if server.pool.waiting >= server.settings.queue:
        # Before hundreds of MiB are read that nobody would look at.
        server.metrics.rejected()
        raise QueueFullError(AGAIN)
    async with request.app.state.bodies.read(request) as body:
        length = request.headers.get(JSON_LENGTH)
        asked, task = await _called(json_length(body, length) <= AT_ONCE_JSON, _parsed, name, body, length)
        value = (await server.result(request, task)).value
        quick = asked.binary.get("MASK", True) and value["mask"].nbytes <= AT_ONCE_MASK
        content, headers = await _called(quick, answer, name, asked, outputs_of(value), value["engine"])
    return Response(content, headers=headers)


@router.get("")
def server_metadata() -> dict[str, Any]:
    return {"name": "lsms-rt", "version": __version__, "extensions": ["binary_tensor_data"]}


@router.get("/health/live")
def live() -> dict[str, bool]:
    return {"live": True}


@router.get("/health/ready")
async def ready(request: Request, response: Response) -> dict[str, Any]:
    return await readyz(request, response)


@router.get("/models/{name}")
@router.get("/models/{name}/versions/{version}")
def model_metadata(request: Request, name: str) -> dict[str, Any]:
    """The tensors.  IMAGE: HU in the usual axial view, (slices, rows, columns); or DICOM: the bytes of a file.

    TEXT: one or more sentences.  SPACING: mm between rows and between columns, optional.  IMAGE may be FP32 and SPACING
    FP64, too.  MASK: (sentences, slices,
    rows, columns).
    """
    server = server_of(request)
    return {
        "name": server.model(name), "versions": ["1"], "platform": "lsms-rt", "inputs": INPUTS, "outputs": OUTPUTS,
        "parameters": server.pool.models.get(name, {}),
    }  # fmt: skip


@router.get("/models/{name}/config")
@router.get("/models/{name}/versions/{version}/config")
def model_config(request: Request, name: str) -> dict[str, Any]:
    """The tensors as Triton's clients ask for them, e.g. perf_analyzer."""
    return {"name": server_of(request).model(name), "platform": "lsms-rt", "max_batch_size": 0} | config_of()


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, response: Response) -> dict[str, Any]:
    server_of(request).model(name)
    return await readyz(request, response)


async def _called(at_once: bool, work: Callable[..., Value], *arguments: Any) -> Value:
    """Call a function, in a thread unless it takes less time than that."""
    return work(*arguments) if at_once else await run_in_threadpool(work, *arguments)


def _parsed(name: str, body: bytes, json_length: str | None) -> tuple[Wanted, Infer]:
    """Return what is wanted, and the task; whatever can be known to be wrong is told here."""
    request, inputs = parse(body, json_length)
    asked = wanted(request, OUTPUT_NAMES)
    task = task_of(name, inputs)
    if isinstance(task.image, np.ndarray) and not asked.binary.get("MASK", True):
        check_values(len(task.sentences) * task.image.size)
    return asked, task
