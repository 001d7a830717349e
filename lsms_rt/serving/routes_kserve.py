"""KServe v2: tensors in, tensors out, one request and one answer."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from lsms_rt import __version__
from lsms_rt.ct_slice import HU_MAX, HU_MIN
from lsms_rt.errors import InputError
from lsms_rt.reading.limits import check_spacing

from .bodies import AGAIN, Bodies
from .kserve import JSON_LENGTH, Wanted, answer, check_values, parse, wanted
from .pool import QueueFullError
from .replies import bad
from .routes_state import readyz
from .server import server_of
from .settings import MAX_MASK_VOXELS, MIB
from .tasks import Infer

router = APIRouter(prefix="/v2", tags=["KServe v2"])
# 512 slices of 512 x 512 in int16, and a sentence
BODY_LIMIT = 257 * MIB
# of all requests that are read or computed
BODIES_LIMIT = 4 * BODY_LIMIT
MAX_SENTENCES = 16
# bytes of a sentence
MAX_SENTENCE = 4096
INPUTS = [
    {"name": "IMAGE", "datatype": "INT16", "shape": [-1, -1, -1]},
    {"name": "TEXT", "datatype": "BYTES", "shape": [-1]},
    {"name": "SPACING", "datatype": "FP32", "shape": [2]},
    {"name": "DICOM", "datatype": "BYTES", "shape": [1]},
]
OUTPUTS = [
    {"name": "MASK", "datatype": "UINT8", "shape": [-1, -1, -1, -1]},
    {"name": "SCORE", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "FOUND", "datatype": "BOOL", "shape": [-1, -1]},
    {"name": "READ_AS", "datatype": "BYTES", "shape": [-1]},
    {"name": "NOTES", "datatype": "BYTES", "shape": [-1]},
]
OUTPUT_NAMES = [str(one["name"]) for one in OUTPUTS]


def bodies() -> Bodies:
    """Return what bounds the bodies of a server's requests."""
    return Bodies(each=BODY_LIMIT, all=BODIES_LIMIT)


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


@router.get("/models/{name}/ready")
@router.get("/models/{name}/versions/{version}/ready")
async def model_ready(request: Request, name: str, response: Response) -> dict[str, Any]:
    server_of(request).model(name)
    return await readyz(request, response)


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
        asked, task = await run_in_threadpool(_parsed, name, body, request.headers.get(JSON_LENGTH))
        value = (await server.result(request, task)).value
        outputs = {
            "MASK": value["mask"], "SCORE": value["score"], "FOUND": value["found"], "READ_AS": value["read_as"],
            "NOTES": value["notes"],
        }  # fmt: skip
        content, headers = await run_in_threadpool(answer, name, asked, outputs, value["engine"])
    return Response(content, headers=headers)


def _parsed(name: str, body: bytes, json_length: str | None) -> tuple[Wanted, Infer]:
    """Return what is wanted, and the task; whatever can be known to be wrong is told here."""
    request, inputs = parse(body, json_length)
    asked = wanted(request, OUTPUT_NAMES)
    task = _task(name, inputs)
    if isinstance(task.image, np.ndarray):
        voxels = len(task.sentences) * task.image.size
        if voxels > MAX_MASK_VOXELS:
            raise bad(
                f"masks of {voxels} voxels are over the limit of {MAX_MASK_VOXELS}; send fewer slices or sentences", 413
            )
        if not asked.binary.get("MASK", True):
            check_values(voxels)
    return asked, task


def _task(name: str, inputs: dict[str, Any]) -> Infer:
    unknown = set(inputs) - {one["name"] for one in INPUTS}
    if unknown or "TEXT" not in inputs or ("IMAGE" in inputs) == ("DICOM" in inputs):
        raise bad("the inputs are TEXT, one of IMAGE and DICOM, and optionally SPACING")
    texts = inputs["TEXT"]
    if not isinstance(texts, list) or not 1 <= len(texts) <= MAX_SENTENCES:
        raise bad(f"TEXT is BYTES: 1 to {MAX_SENTENCES} sentences")
    if any(len(text) > MAX_SENTENCE for text in texts):
        raise bad(f"a sentence in TEXT is over the limit of {MAX_SENTENCE} bytes; describe one lesion in each")
    try:
        sentences = tuple(text.decode() for text in texts)
    except UnicodeDecodeError:
        raise bad("TEXT is not in UTF-8") from None
    mm = _spacing(inputs["SPACING"]) if "SPACING" in inputs else None
    if "DICOM" in inputs:
        if mm is not None:
            raise bad("SPACING is for IMAGE; leave it out with DICOM, whose own is used")
        files = inputs["DICOM"]
        if not isinstance(files, list) or len(files) != 1:
            raise bad("DICOM is BYTES [1]: the content of one file")
        return Infer(model=name, image=files[0], sentences=sentences)
    image = inputs["IMAGE"]
    if (
        not isinstance(image, np.ndarray)
        or image.dtype not in (np.int16, np.float32)
        or image.ndim != 3
        or not image.size
    ):
        raise bad(f"IMAGE is INT16 or FP32 (slices, rows, columns), HU from {HU_MIN:g} to {HU_MAX:g}")
    return Infer(model=name, image=image, sentences=sentences, spacing=mm)


def _spacing(given: Any) -> tuple[float, float]:
    if not isinstance(given, np.ndarray) or given.shape != (2,) or given.dtype not in (np.float32, np.float64):
        raise bad("SPACING is FP32 or FP64 [2]: mm between rows, and between columns")
    mm = float(given[0]), float(given[1])
    try:
        check_spacing(mm, "SPACING", "the request", "give mm between rows and between columns")
    except InputError as error:
        raise bad(str(error)) from None
    return mm
