"""The error of a request that cannot be served, whichever server was asked."""

from __future__ import annotations

from .tasks import Failed


class RequestError(Exception):
    """A request that cannot be served.

    Attributes:
        failed: why.
        headers: of the answer.
    """

    def __init__(self, failed: Failed, headers: dict[str, str] | None = None) -> None:
        super().__init__(failed.message)
        self.failed, self.headers = failed, headers or {}


def bad(message: str, status: int = 400, kind: str = "RequestError") -> RequestError:
    """Return the error of a request that is wrong; ``message`` says what is, and what to send instead."""
    return RequestError(Failed(kind, message, status))
