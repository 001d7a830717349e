"""The application: routes, who may ask, and how errors are told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from lsms_rt import __version__

from . import replies, routes_docs, routes_images, routes_jobs, routes_kserve, routes_page, routes_state, worker
from .guard import Guard
from .pool import ClosedError, QueueFullError
from .server import Server
from .settings import Settings
from .stopping import CutOff

DESCRIPTION = "A sentence and a CT slice in, a lesion mask out. Research software, not a medical device."


def create_app(settings: Settings, work: Callable[..., None] = worker.main) -> FastAPI:
    """Return the application; its workers start with it.

    Args:
        settings: what the server is started with.
        work: what a worker process runs, see ``Pool``.

    Raises:
        EngineError: an engine cannot be read.
    """
    server = Server(settings, work)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with server.running():
            yield

    app = FastAPI(
        title="lsms-rt", version=__version__, description=DESCRIPTION, lifespan=lifespan, redoc_url=None, docs_url=None,
    )  # fmt: skip
    app.state.server = server
    app.state.bodies = routes_kserve.bodies()
    # First what is asked most.
    app.include_router(routes_kserve.router)
    app.include_router(routes_page.router)
    app.include_router(routes_state.router)
    app.include_router(routes_docs.router)
    app.include_router(routes_images.router)
    app.include_router(routes_jobs.router)
    app.add_exception_handler(replies.RequestError, replies.on_request_error)
    app.add_exception_handler(QueueFullError, replies.on_queue_full)
    app.add_exception_handler(ClosedError, replies.on_closed)
    app.add_exception_handler(MemoryError, replies.on_memory)
    app.add_exception_handler(RequestValidationError, replies.on_validation)
    app.add_exception_handler(HTTPException, replies.on_http)
    app.add_middleware(CutOff)
    app.add_middleware(Guard, key=settings.api_key)
    return app
