"""Requests to the archive; what fails becomes an error that says whether to try again."""

from __future__ import annotations

import json
import logging
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from lsms_rt.errors import InputError

from .retry import ArchiveAwayError, ArchiveDeniedError, ArchiveError, ArchiveFailedError, ArchiveRefusedError

_log = logging.getLogger("lsms_rt")
CONNECT_S, ANSWER_S = 10.0, 120.0
JSON = "application/dicom+json"
# of an answer that is held in memory: a page of series has less than 1 MiB, metadata of a thousand frames have a few
MAX_JSON = 64 * 2**20
USER, PASSWORD, TOKEN = (f"LSMS_RT_ARCHIVE_{name}" for name in ("USER", "PASSWORD", "TOKEN"))


@dataclass(frozen=True, kw_only=True)
class Login:
    """By what the archive knows the worker: user and password, or a token, or nothing."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Login:
        return cls(user=environment.get(USER), password=environment.get(PASSWORD), token=environment.get(TOKEN))


class Http:
    """Speaks with one server.

    Args:
        url: its address, before all paths.
        login: how to log in.
        ca: file with the certificates to trust; None for the system's.
        transport: takes the place of the network in tests.
    """

    def __init__(
        self, url: str, login: Login, ca: Path | None = None, transport: httpx.BaseTransport | None = None
    ) -> None:
        parts = urlsplit(url)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme == "http" and not local:
            _log.warning("images go over http:// to another machine, where others can read them; use https://")
        # A few packed bytes may become gigabytes before their size is seen.
        headers = {"Accept-Encoding": "identity"}
        if login.token is not None:
            headers["Authorization"] = f"Bearer {login.token}"
        auth = None if login.user is None else httpx.BasicAuth(login.user, login.password or "")
        try:
            verify = True if ca is None else ssl.create_default_context(cafile=str(ca))
        except OSError as error:
            raise InputError("the rules file, archive: ca cannot be read as certificates; check the path") from error
        limits = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        # Images are not for a proxy that the environment names.
        self._http = httpx.Client(
            base_url=url, headers=headers, auth=auth, timeout=limits, verify=verify, trust_env=False,
            transport=transport,
        )  # fmt: skip

    def close(self) -> None:
        self._http.close()

    def json(self, path: str, params: Mapping[str, Any] | None = None, *, method: str = "GET", body: str = "") -> Any:
        """Return the JSON of an answer; None if the answer is empty.

        Raises:
            ArchiveError: there is none.
        """
        with self.request(method, path, params=params, content=body or None, headers={"Accept": JSON}) as answer:
            content = body_of(answer)
        if not content:
            return None
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ArchiveFailedError("the archive's answer is not JSON; check the URL") from error

    @contextmanager
    def request(
        self, method: str, path: str, allowed: tuple[int, ...] = (), **options: Any
    ) -> Iterator[httpx.Response]:
        """Yield an answer whose body is not read yet.

        Args:
            method: of the request.
            path: of the request, below the server's URL.
            allowed: statuses from 400 on that are no errors here.
            options: see ``httpx.Client.stream``.

        Raises:
            ArchiveError: it is none of success; also while its body is read.
        """
        try:
            with self._http.stream(method, path, **options) as answer:
                if not answer.is_success and answer.status_code not in allowed:
                    raise _error(answer.status_code)
                if answer.headers.get("Content-Encoding", "identity") != "identity":
                    raise ArchiveFailedError("the archive packs its answer, which was not asked for; see its settings")
                yield answer
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ArchiveAwayError("the archive cannot be reached; it is waited for") from error
        except httpx.TimeoutException as error:
            raise ArchiveFailedError("the archive did not answer in time") from error
        except httpx.HTTPError as error:
            raise ArchiveFailedError(f"the connection to the archive failed ({type(error).__name__})") from error


def body_of(answer: httpx.Response) -> bytes:
    """Return the body of an answer, which may be endless.

    Raises:
        ArchiveFailedError: it is larger than ``MAX_JSON``.
    """
    content = bytearray()
    for chunk in answer.iter_bytes(2**16):
        content += chunk
        if len(content) > MAX_JSON:
            raise ArchiveFailedError(f"the archive's answer is larger than {MAX_JSON >> 20} MiB; check the URL")
    return bytes(content)


def _error(status: int) -> ArchiveError:
    if status in (401, 403):
        return ArchiveDeniedError(
            f"the archive refuses this worker (HTTP {status}); set {USER} and {PASSWORD}, or {TOKEN}"
        )
    if status >= 500:
        return ArchiveFailedError(f"the archive failed (HTTP {status})")
    # Redirections, too: images go nowhere but where the rules say.
    return ArchiveRefusedError(f"the archive refused (HTTP {status})")
