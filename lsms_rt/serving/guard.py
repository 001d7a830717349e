"""What stands before all routes: who may ask, how much, every answer's headers, and errors that nothing else caught."""

from __future__ import annotations

import logging
import re
import traceback

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import check_key, check_origin
from .replies import RequestError, bad, reply_of
from .settings import MIB
from .tasks import Failed

_log = logging.getLogger("lsms_rt")
# Nothing but this server: no script, picture or font of another site, and no other site shows this one.
POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; connect-src 'self' blob: data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


# Routes that take images and tensors, and bound them by themselves; every other body is a few lines of JSON.
LARGE = re.compile(r"/images|/images/[^/]+/(files|export)|/v2/models/[^/]+(/versions/[^/]+)?/infer")
JSON_LIMIT = MIB


class Guard:
    """Asks for the key, or without one for a request from this machine; bounds bodies of JSON.

    Args:
        app: what answers.
        key: the key; None: none is asked for.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app, self._key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            # There are none; so that none is let in by mistake.
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            request = Request(scope)
            if self._key is None:
                check_origin(request)
            check_key(request, self._key)
            check_length(request)
            await self._app(scope, _bounded(request, receive), send_with_headers)
        except RequestError as error:
            await reply_of(error.failed, error.headers)(scope, receive, send_with_headers)
        except Exception as error:
            # Without its text, which may hold a patient's data.
            kind = type(error).__name__
            where = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
            _log.error("unexpected %s\n%s", kind, where.rstrip())
            if not begun:
                failed = Failed(kind, f"unexpected {kind}; the server's log has its trace", 500)
                await reply_of(failed)(scope, receive, send_with_headers)


def check_length(request: Request) -> None:
    """Raise RequestError for a body whose length is stated twice, as one smuggles requests by, or is too large."""
    length = request.headers.get("content-length")
    if length is not None and "transfer-encoding" in request.headers:
        raise bad("the request has both Content-Length and Transfer-Encoding; send one of them")
    if length is not None and not (length.isascii() and length.isdecimal() and len(length) < 16):
        raise bad("Content-Length is no number of bytes; send the body's")
    if length is not None and int(length) > JSON_LIMIT and not _takes_large(request):
        raise bad(_too_large(), 413)


def _bounded(request: Request, receive: Receive) -> Receive:
    """Return ``receive``, which counts the bytes of a body of JSON while they arrive."""
    if _takes_large(request):
        return receive
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > JSON_LIMIT:
            # Of this class, as FastAPI calls all others a broken body.
            raise HTTPException(413, _too_large())
        return message

    return counted


def _takes_large(request: Request) -> bool:
    return request.method == "POST" and LARGE.fullmatch(request.scope["path"]) is not None


def _too_large() -> str:
    return f"the body is over the limit of {JSON_LIMIT // MIB} MiB for JSON; send fewer or shorter values"
