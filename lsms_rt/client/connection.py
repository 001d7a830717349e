"""The way to a server: its address, key and certificates, a full queue, and what its errors mean."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lsms_rt.api_key import VARIABLE
from lsms_rt.errors import (
    InputError,
    LsmsError,
    MachineError,
    MissingDependencyError,
    SentenceNotUnderstoodError,
    SeveralSeriesError,
)

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger("lsms_rt")
# A full queue is asked again for so long, in seconds.
PATIENCE = 60.0
# What is deleted on the way out waits for so long, in seconds.
HURRY = 10.0
NOT_OURS = "the answer is not of lsms-rt serve; check the URL and proxies"


class ServerError(MachineError):
    """The server did not answer, or not with a result.

    Attributes:
        status: the HTTP status; None if there was no answer.
        kind: the kind of error that the server names; "" if it names none.
    """

    def __init__(self, message: str, status: int | None = None, kind: str = "") -> None:
        super().__init__(message)
        self.status, self.kind = status, kind


class Connection:
    """Sends requests to one server.  It may be used from several threads; for its arguments see :class:`Client`."""

    def __init__(self, url: str, api_key: str | None, timeout: float) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyError("the client needs httpx; pip install 'lsms-rt[client]'") from error
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError("the server's URL is none; write e.g. http://127.0.0.1:8765")
        key = os.environ.get(VARIABLE) if api_key is None else api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A proxy of the environment is for other machines.
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if key and parts.scheme == "http" and not local:
            _log.warning("the API key goes over http:// to another machine, where others can read it; use https://")
        self.url = url.rstrip("/")
        self._errors = httpx.HTTPError
        limits = httpx.Timeout(timeout, connect=10.0)
        # With the authorities of SSL_CERT_FILE, also where the environment's proxies are left out.  To read them takes
        # 20 ms, and http:// needs none: redirections to https:// are not followed.
        try:
            known = parts.scheme == "https" and httpx.create_ssl_context()
        except OSError as error:
            message = (
                f"SSL_CERT_FILE or SSL_CERT_DIR cannot be read ({error.strerror}); name a file of certificates in PEM"
            )
            raise InputError(message) from error
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=limits, trust_env=not local, verify=known)

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request; wait and send it again while the queue is full.

        Raises:
            InputError: the server says that what was sent cannot be used.
            ServerError: there is no answer, or another error.
        """
        end = time.monotonic() + PATIENCE
        while True:
            try:
                response = self._http.request(method, path, **options)
            except self._errors as error:
                raise self._no_answer(error) from error
            wait = _wait(response)
            if response.status_code != 429 or not wait or time.monotonic() + wait > end:
                break
            time.sleep(wait)
        if response.status_code >= 300:
            raise _error(response)
        return response

    def request_json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Return the object of a request whose answer is JSON; raises as ``request``."""
        try:
            found = self.request(method, path, **options).json()
        except ValueError:
            raise ServerError(NOT_OURS) from None
        if not isinstance(found, dict):
            raise ServerError(NOT_OURS)
        return found

    def succeeds(self, method: str, path: str) -> bool:
        """Send a request on the way out, which must be quick and hides no other error."""
        try:
            self.request(method, path, timeout=HURRY)
        except LsmsError:
            return False
        return True

    @contextmanager
    def stream(self, path: str, **options: Any) -> Iterator[httpx.Response]:
        """Yield the answer to a GET before its body has arrived; raises as ``request``."""
        try:
            with self._http.stream("GET", path, **options) as response:
                if response.status_code != 200:
                    response.read()
                    raise _error(response)
                yield response
        except self._errors as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: Exception) -> ServerError:
        hint = "start it with lsms-rt serve, and check the URL, proxies (HTTP_PROXY) and firewalls"
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            hint = (
                "its certificate is not trusted here: check the host's name, and let SSL_CERT_FILE name the authority's"
            )
        return ServerError(f"the server does not answer ({type(error).__name__}); {hint}")


def _error(response: httpx.Response) -> LsmsError:
    """Return what the server says is wrong; of what the user sent, an InputError."""
    try:
        said = response.json()
        message, kind = str(said["error"]), str(said["kind"])
        series = [dict(one) for one in said.get("series", ())]
    except (ValueError, KeyError, TypeError, AttributeError):
        series, message, kind = [], NOT_OURS, ""
    status = response.status_code
    if response.is_redirect:
        message = "it has another address, perhaps https:// in the place of http://; give that one"
    if series:
        return SeveralSeriesError(message, series)
    if status in (400, 413, 415, 422):
        return SentenceNotUnderstoodError(message) if kind == "SentenceNotUnderstoodError" else InputError(message)
    if status == 401:
        message += f" (here: the environment variable {VARIABLE}, or --api-key-file)"
    return ServerError(f"the server answered {status}: {message}", status, kind)


def _wait(response: httpx.Response) -> float:
    """Return for how many seconds a server asks to wait; 0 where it does not say, or names a date as proxies may."""
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
