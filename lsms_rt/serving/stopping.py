"""The end of a server: first the jobs, then the connections, within one deadline."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import socket
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .feeder import SHUTDOWN
from .replies import reply_of

# seconds that answers may take to arrive after the last job; with the grace time well below a service's 30
FLUSH = 5.0
# connections at the same time; more are answered with 503 by uvicorn
CONNECTIONS = 512
# bytes of a request that may arrive before they are read: a slice of 512 x 512, and more
ROOM = 2**20
# exit code of a server that could not start, e.g. because its port is in use
NOT_STARTED = 3


class CutOff:
    """Answers a request that the end of the server cancels.

    Args:
        app: what answers all others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except asyncio.CancelledError:
            if not begun:
                await reply_of(SHUTDOWN, {"Connection": "close"})(scope, receive, send)


def make_room(listener: Any) -> None:
    """Let connections receive a slice at once, where the kernel begins with less and the sender waits for its answers.

    SO_RCVLOWAT makes the kernel widen its buffer; with SO_RCVBUF, the buffer would keep that size and never grow.
    """
    # It saves half a millisecond; a system that does not know it serves as well.
    with contextlib.suppress(OSError, AttributeError):
        for size in (ROOM, 1):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)


def listen(app: Any, host: str, port: int, grace: float, flush: float = FLUSH) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then no job is taken, running ones may end, and their answers are sent.

    A second Ctrl-C cuts them off.

    Args:
        app: from ``create_app``.
        host: address to listen on.
        port: of it.
        grace: seconds that running jobs may take to end.
        flush: seconds that answers may take after that.

    Raises:
        SystemExit: the server could not start.
    """
    uvicorn: Any = importlib.import_module("uvicorn")

    class Stopping(uvicorn.Server):  # type: ignore[misc]
        force_exit: bool = False
        loop: asyncio.AbstractEventLoop | None = None

        async def startup(self, sockets: Any = None) -> None:
            self.loop = asyncio.get_running_loop()
            await super().startup(sockets)
            for one in self.servers if self.started else ():
                for listener in one.sockets:
                    make_room(listener)

        def handle_exit(self, *signal: Any) -> None:
            super().handle_exit(*signal)
            if self.force_exit and self.loop is not None:
                # uvicorn would drop all where it is.  Running jobs are cut off, and their senders told.
                self.force_exit = False
                self.loop.call_soon_threadsafe(app.state.server.pool.hurry.set)

        async def shutdown(self, sockets: Any = None) -> None:
            deadline = time.monotonic() + grace + flush
            # While uvicorn still listens: whoever waits, or comes now, gets an answer that says why.
            await app.state.server.stop()
            if app.state.server.pool.hurry.is_set():
                deadline = time.monotonic() + flush
            self.config.timeout_graceful_shutdown = max(1.0, deadline - time.monotonic())
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, server_header=False, date_header=False,
        limit_concurrency=CONNECTIONS,
    )  # fmt: skip
    server = Stopping(config)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise SystemExit(NOT_STARTED)
