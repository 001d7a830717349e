"""Who may ask: with a key, those who bear it; without one, this machine only."""

from __future__ import annotations

import hmac
import ipaddress
import re

from fastapi import Request

from lsms_rt.errors import InputError

from .replies import RequestError
from .tasks import Failed

# Answered without a key: they say nothing but whether the server lives, and hold the page itself.
# /docs and /openapi.json are not among them.
OPEN = ("/healthz", "/", "/page/")


def check_host(host: str, key: str | None) -> None:
    """Raise InputError for an address that others can reach, if there is no key."""
    if key is None and not is_loopback(host):
        raise InputError(f"--host {host} can be reached from other machines; give a key with --api-key-file")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_key(request: Request, key: str | None) -> None:
    """Raise RequestError unless the request bears the key."""
    # What is routed by; request.url is made of the Host header, too, which is the sender's.
    path = request.scope["path"]
    if key is None or path in OPEN[:2] or path.startswith(OPEN[2]):
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # In constant time, whatever was sent.
    same = hmac.compare_digest(given.strip().encode(), key.encode())
    if scheme.lower() != "bearer" or not same:
        failed = Failed("KeyError", "this server needs its API key; send it as Authorization: Bearer KEY", 401)
        raise RequestError(failed, {"WWW-Authenticate": "Bearer"})


def check_origin(request: Request) -> None:
    """Raise RequestError for a request that another site's page makes a browser send, or that a rebound name reaches.

    Without a key nothing else protects a server on this machine from the pages that its user visits.
    """
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise RequestError(Failed("OriginError", "a page of another site sent this; open the server's own page", 403))
    named = re.fullmatch(r"(\[[^]]*\]|[^:]*)(:\d*)?", host)
    if named is None or not is_loopback(named[1].strip("[]")):
        raise RequestError(Failed("OriginError", "the Host is not this machine; use 127.0.0.1 or localhost", 403))
