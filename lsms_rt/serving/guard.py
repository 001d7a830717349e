"""What stands before all routes: who may ask, headers of every answer, and errors that nothing else caught."""

from __future__ import annotations

import logging
import traceback

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import check_key, check_origin
from .replies import RequestError, reply_of
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


class Guard:
    """Asks for the key, or without one for a request from this machine.

    Args:
        app: what answers.
        key: the key; None: none is asked for.
    """

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app, self._key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            await self._app(scope, receive, send_with_headers)
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
