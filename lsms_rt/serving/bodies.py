"""Bodies of requests in memory: each is bounded, and all together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from .pool import QueueFullError
from .replies import bad
from .settings import MIB

# seconds after which one who is refused may ask again
AGAIN = 1.0


class Bodies:
    """Counts the bytes of bodies that are read or worked on.

    Args:
        each: bytes of one body.
        all: bytes of all bodies.
    """

    def __init__(self, *, each: int, all: int) -> None:
        self._each, self._all = each, all
        self.held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Read a body; it counts until the end of the block.

        Raises:
            RequestError: it is too large, as soon as it is.
            QueueFullError: there is no room for it beside the others.
        """
        stated = int(request.headers.get("content-length", 0))
        parts: list[bytes] = []
        size = 0
        try:
            if stated > self._each:
                raise self._too_large()
            async for chunk in request.stream():
                size += len(chunk)
                self.held += len(chunk)
                if size > self._each:
                    raise self._too_large()
                if self.held > self._all:
                    raise QueueFullError(AGAIN)
                parts.append(chunk)
            body = b"".join(parts)
            parts.clear()
            yield body
        finally:
            self.held -= size

    def _too_large(self) -> Exception:
        return bad(f"the body is over the limit of {self._each / MIB:g} MiB; send fewer slices", 413)
