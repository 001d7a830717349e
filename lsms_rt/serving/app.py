"""The application: routes, who may ask, and how errors are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from lsms_rt import __version__

from . import replies, routes_jobs, routes_kserve, routes_page, routes_state
from .access import check_key, check_origin
from .pool import QueueFullError
from .server import Server
from .settings import Settings

PAGE = Path(__file__).parent / "page"
DESCRIPTION = "A sentence and a CT slice in, a lesion mask out. Research software, not a medical device."
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


def create_app(settings: Settings) -> FastAPI:
    """Return the application; its workers start with it.

    Raises:
        EngineError: an engine cannot be read.
    """
    server = Server(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with server.running():
            yield

    app = FastAPI(
        title="lsms-rt", version=__version__, description=DESCRIPTION, lifespan=lifespan, redoc_url=None,
    )  # fmt: skip
    app.state.server = server
    app.include_router(routes_page.router)
    app.include_router(routes_state.router)
    app.include_router(routes_jobs.router)
    app.include_router(routes_kserve.router)
    app.add_exception_handler(replies.RequestError, replies.on_request_error)
    app.add_exception_handler(QueueFullError, replies.on_queue_full)
    app.add_exception_handler(RequestValidationError, replies.on_validation)
    app.add_exception_handler(HTTPException, replies.on_http)
    app.add_exception_handler(Exception, replies.on_unexpected)

    @app.middleware("http")
    async def guarded(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        try:
            if settings.api_key is None:
                check_origin(request)
            check_key(request, settings.api_key)
        except replies.RequestError as error:
            response: Response = replies.reply_of(error.failed, error.headers)
        else:
            response = await call(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return app
