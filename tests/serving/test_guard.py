"""What stands before all routes, asked without a server between: ASGI messages in and out."""

from __future__ import annotations

from typing import Any

import pytest
from run_async import run_async

pytest.importorskip("fastapi", reason="fastapi is not installed; pip install 'lsms-rt[serve]'")

from starlette.datastructures import URL
from starlette.requests import HTTPConnection

from lsms_rt.serving.guard import JSON_LIMIT

KEY = "0123456789abcdef0123"
BEARER = ("authorization", f"Bearer {KEY}")


def status(app: Any, method: str, path: str, *headers: tuple[str, str], body: tuple[bytes, ...] = (b"",)) -> int:
    """Return the status of an answer; parts of the body that the server does not ask for are not sent."""
    parts, sent = list(body), []

    async def receive() -> dict[str, Any]:
        if not parts:
            return {"type": "http.disconnect"}
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1), "headers": [(name.encode(), value.encode()) for name, value in headers],
    }  # fmt: skip
    run_async(app(scope, receive, send))
    return int(sent[0]["status"])


@pytest.fixture(scope="module")
def locked() -> Any:
    """The application with a key; its workers are not started."""
    from lsms_rt.data import demo_engine
    from lsms_rt.serving.app import create_app
    from lsms_rt.serving.settings import Model, Settings

    app = create_app(Settings(models=(Model(name="demo", path=demo_engine()),), api_key=KEY))
    yield app
    app.state.server.uploads.close()


def test_the_host_opens_no_route(locked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Starlette before 1.0.1 put the Host before the path, whatever it was.
    def joined(self: HTTPConnection) -> URL:
        return URL(f"http://{self.headers['host']}{self.scope['path']}")

    monkeypatch.setattr(HTTPConnection, "url", property(joined))
    for host in ("a/page/?", "a/page/", "a/healthz?", "a/?"):
        assert status(locked, "GET", "/capabilities", ("host", host)) == 401
    assert status(locked, "GET", "/capabilities", ("host", "a/page/?"), BEARER) == 200
    # No worker has been started.
    assert status(locked, "GET", "/healthz", ("host", "a")) == 503


@pytest.mark.parametrize("path", ["/jobs", "/images/x/complete", "/models/demo/read"])
def test_json_is_bounded(locked: Any, path: str) -> None:
    large = ("content-length", str(JSON_LIMIT + 1))
    assert status(locked, "POST", path, ("host", "a"), BEARER, large) == 413
    part = b" " * (JSON_LIMIT // 4)
    json = ("content-type", "application/json")
    assert status(locked, "POST", path, ("host", "a"), BEARER, json, body=(part,) * 5) == 413
    assert status(locked, "POST", path, ("host", "a"), BEARER, json, body=(b"[",) * 5) in (404, 422)


def test_images_are_not_json(locked: Any) -> None:
    large = ("content-length", str(JSON_LIMIT + 1))
    assert status(locked, "POST", "/images/x/files", ("host", "a"), BEARER, large) == 404
    assert status(locked, "POST", "/v2/models/x/infer", ("host", "a"), BEARER, large) == 404


def test_a_length_that_is_none_or_stated_twice_is_refused(locked: Any) -> None:
    chunked, length = ("transfer-encoding", "chunked"), ("content-length", "2")
    for path in ("/jobs", "/images", "/v2/models/demo/infer"):
        assert status(locked, "POST", path, ("host", "a"), BEARER, chunked, length) == 400
        assert status(locked, "POST", path, ("host", "a"), BEARER, ("content-length", "9" * 5000)) == 400


def test_websockets_are_closed(locked: Any) -> None:
    sent = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "subprotocols": []}
    run_async(locked(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
