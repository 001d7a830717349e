"""What requests get as an answer when something is wrong: one form for both contracts, and for every route.

``{"error": "what happened and what to do", "kind": "InputError"}``; KServe v2 asks for the first key.  Of an image with
several series they are listed in ``series``, so that one can be chosen.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from .feeder import SHUTDOWN
from .pool import QueueFullError
from .request_error import RequestError as RequestError
from .request_error import bad as bad
from .tasks import Failed, failed

# pydantic's word for a field that a form has not
UNKNOWN = "extra_forbidden"


def reply_of(failed: Failed, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the answer that tells of a failure."""
    series = {"series": list(failed.series)} if failed.series else {}
    return JSONResponse({"error": failed.message, "kind": failed.kind} | series, failed.status, headers)


async def on_request_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return reply_of(error.failed, error.headers)


async def on_queue_full(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, QueueFullError)
    full = Failed("QueueFullError", "too many requests wait; send this one again after Retry-After seconds", 429)
    return reply_of(full, {"Retry-After": str(round(error.seconds))})


async def on_memory(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MemoryError)
    return reply_of(failed(error))


async def on_closed(request: Request, error: Exception) -> JSONResponse:
    return reply_of(SHUTDOWN)


async def on_validation(request: Request, error: Exception) -> JSONResponse:
    """Name the fields that are wrong, without what was sent: a sentence may hold a patient's name."""
    assert isinstance(error, RequestValidationError)
    named = {".".join(map(str, one["loc"])) for one in error.errors() if one["type"] != UNKNOWN}
    unknown = sum(one["type"] == UNKNOWN for one in error.errors())
    wrong = [f"these fields are missing or of another type: {', '.join(sorted(named))}"] if named else []
    wrong += [f"unknown fields: {unknown}, whose names may be misspelled"] if unknown else []
    return reply_of(Failed("RequestError", f"{'; '.join(wrong)}; see /openapi.json", 422))


async def on_http(request: Request, error: Exception) -> JSONResponse:
    """A path or method that there is not, and the like."""
    assert isinstance(error, HTTPException)
    return reply_of(Failed("RequestError", f"{error.detail}; see /docs", error.status_code), dict(error.headers or {}))
