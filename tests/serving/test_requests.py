"""Who may ask, what a busy or broken server says, and what it tells about itself."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lsms_rt.api_key import VARIABLE, read_key
from lsms_rt.errors import InputError
from lsms_rt.serving.access import check_host

KEY = "0123456789abcdef0123"
SENTENCE = "Mr. Miller"
IMAGE = {"name": "IMAGE", "datatype": "INT16", "shape": [1, 32, 32], "data": [0] * 1024}


def infer(live: Any, sentence: str) -> Any:
    text = {"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": [sentence]}
    return live.http.post("/v2/models/demo/infer", json={"inputs": [IMAGE, text]})


def beside(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    return thread, found


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_another_address_needs_a_key() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        check_host(host, None)
    for host in ("0.0.0.0", "192.168.0.1", "::", "example.org"):
        with pytest.raises(InputError, match="give a key"):
            check_host(host, None)
        check_host(host, KEY)


def test_a_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert read_key(file, {}) == KEY
    assert read_key(None, {VARIABLE: KEY}) == KEY
    assert read_key(None, {}) is None
    for wrong in ("short", f"{KEY} {KEY}", f"{KEY}\u00e4"):
        file.write_text(wrong)
        with pytest.raises(InputError):
            read_key(file, {})
    with pytest.raises(InputError):
        read_key(tmp_path / "none", {})


def test_the_key_is_asked_for(fakes: Callable[..., Any]) -> None:
    live = fakes(api_key=KEY)
    assert live.http.get("/healthz").status_code == 200
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {KEY}"}, {"Authorization": KEY}):
        for path in ("/readyz", "/metrics", "/capabilities", "/docs", "/openapi.json", "/jobs/x", "/v2/models/demo"):
            response = live.http.get(path, headers=headers)
            assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    headers = {"Authorization": f"Bearer {KEY}", "Host": "radiology.example"}
    assert live.http.get("/capabilities", headers=headers).status_code == 200


def test_without_a_key_pages_of_other_sites_are_refused(demo: Any) -> None:
    port = demo.url.rpartition(":")[2]
    good = [{}, {"Origin": demo.url}, {"Host": f"localhost:{port}"}, {"Host": f"[::1]:{port}"}, {"Host": "[::1]"}]
    bad = [{"Origin": "https://example.org"}, {"Origin": "null"}, {"Host": "example.org"}, {"Host": f"evil.org:{port}"}]
    assert [demo.http.get("/capabilities", headers=headers).status_code for headers in good] == [200] * 5
    assert [demo.http.get("/capabilities", headers=headers).status_code for headers in bad] == [403] * 4


@pytest.mark.slow
def test_a_full_queue_is_429_with_retry_after(fakes: Callable[..., Any]) -> None:
    live = fakes(queue=1)
    threads = [beside(lambda: infer(live, "slow 75"))[0]]
    until(lambda: live.core.pool.running == 1)
    threads.append(beside(lambda: infer(live, "slow 1"))[0])
    until(lambda: live.core.pool.waiting == 1)
    response = infer(live, "slow 1")
    assert response.status_code == 429
    assert int(response.headers["Retry-After"]) >= 1
    for thread in threads:
        thread.join()
    assert "lsms_rejected_total 1.0" in live.http.get("/metrics").text


@pytest.mark.slow
def test_a_full_queue_refuses_before_it_reads(fakes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    live = fakes(queue=1)
    thread, _ = beside(lambda: infer(live, "slow 75"))
    until(lambda: live.core.pool.running == 1)
    other, _ = beside(lambda: infer(live, "slow 1"))
    until(lambda: live.core.pool.waiting == 1)
    monkeypatch.setattr(live.app.state.bodies, "read", lambda request: pytest.fail("the body was read"))
    response = infer(live, "slow 1")
    assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
    thread.join()
    other.join()


@pytest.mark.slow
def test_bodies_are_bounded_together(fakes: Callable[..., Any]) -> None:
    from lsms_rt.serving.bodies import Bodies

    live = fakes(queue=8)
    live.app.state.bodies = Bodies(each=2**20, all=4000)
    thread, found = beside(lambda: infer(live, "slow 75"))
    until(lambda: live.core.pool.running == 1)
    assert live.app.state.bodies.held > 2000
    assert infer(live, "slow 1").status_code == 429
    thread.join()
    assert found[0].status_code == 200
    assert live.app.state.bodies.held == 0
    assert infer(live, "slow 1").status_code == 200
    live.app.state.bodies = Bodies(each=2000, all=2**20)
    assert infer(live, "slow 1").status_code == 413


def test_a_client_that_leaves_cancels_its_request(fakes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    from lsms_rt.serving import server

    monkeypatch.setattr(server, "LEFT_EVERY", 0.02)
    live = fakes()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{live.url}/v2/models/demo/infer", timeout=0.2, trust_env=False,
            json={"inputs": [IMAGE, {"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["slow 2000"]}]},
        )  # fmt: skip
    until(lambda: live.core.pool.running == 0)
    assert infer(live, "slow 1").status_code == 200


def test_a_killed_worker_costs_one_request(fakes: Callable[..., Any]) -> None:
    live = fakes(workers=2)
    until(lambda: live.core.pool.ready == 2)
    thread, found = beside(lambda: infer(live, "slow 20"))
    until(lambda: live.core.pool.running == 1)
    assert infer(live, "die").status_code == 503
    thread.join()
    assert found[0].status_code == 200
    until(lambda: live.core.pool.ready == 2)


def test_health_fails_without_a_workers_feeder(fakes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    live = fakes()
    assert live.http.get("/healthz").json() == {"ok": True}
    (one,) = live.core.pool._workers
    monkeypatch.setattr(one, "task", SimpleNamespace(done=lambda: True))
    response = live.http.get("/healthz")
    assert (response.status_code, response.json()) == (503, {"ok": False})
    monkeypatch.undo()


def test_a_stopped_busy_worker_is_not_ready(fakes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from lsms_rt.serving import feeder

    monkeypatch.setattr(feeder, "READING", 0.3)
    live = fakes()
    (pid,) = live.core.pool.pids
    os.kill(pid, signal.SIGSTOP)
    thread, _ = beside(lambda: infer(live, "slow 1"))
    until(lambda: live.core.pool.running == 1)
    live.core.pool.answered = 0.0
    assert live.http.get("/readyz").status_code == 200
    until(lambda: live.http.get("/readyz").status_code == 503)
    os.kill(pid, signal.SIGCONT)
    thread.join()
    assert live.http.get("/readyz").status_code == 200


def test_readiness_is_an_inference(fakes: Callable[..., Any]) -> None:
    live = fakes()
    assert live.http.get("/readyz").json() == {"ready": True}
    live.core.pool.answered = 0.0
    assert live.http.get("/readyz").json() == {"ready": True}
    assert live.core.pool.answered > 0
    (pid,) = live.core.pool.pids
    os.kill(pid, signal.SIGSTOP)
    live.core.pool.answered = 0.0
    from lsms_rt.serving import server

    limit, server.PROBE_LIMIT = server.PROBE_LIMIT, 0.1
    try:
        response = live.http.get("/readyz")
    finally:
        server.PROBE_LIMIT = limit
        os.kill(pid, signal.SIGCONT)
    assert (response.status_code, response.json()["ready"]) == (503, False)


def test_engines_that_cannot_be_opened_are_not_ready(fakes: Callable[..., Any]) -> None:
    live = fakes(runtime={"broken": True})
    response = live.http.get("/v2/health/ready")
    assert response.status_code == 503
    assert "cannot be opened" in response.json()["error"]
    assert live.http.get("/healthz").status_code == 200


def test_metrics_hold_no_sentence(fakes: Callable[..., Any]) -> None:
    live = fakes()
    infer(live, "slow 1")
    infer(live, "raise")
    text = live.http.get("/metrics").text
    assert 'lsms_requests_total{model="demo",outcome="nothing"} 1.0' in text
    assert 'lsms_requests_total{model="demo",outcome="error"} 1.0' in text
    assert 'lsms_nothing_found_total{model="demo"} 1.0' in text
    assert "slow" not in text
    assert "lsms_workers_ready 1.0" in text
    assert "lsms_engine_info{" in text


def test_errors_of_ours_are_told_without_their_text(
    fakes: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    live = fakes()

    def broken(name: Any) -> str:
        raise RuntimeError(SENTENCE)

    monkeypatch.setattr(live.core, "model", broken)
    with caplog.at_level(logging.ERROR):
        response = infer(live, SENTENCE)
    assert (response.status_code, response.json()["kind"]) == (500, "RuntimeError")
    assert "Miller" not in response.text + caplog.text
    assert "routes_kserve.py" in caplog.text


def test_every_answer_has_the_headers(demo: Any) -> None:
    for path in ("/healthz", "/nothing", "/docs", "/v2"):
        headers = demo.http.get(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "server" not in headers


def test_words_and_reading(demo: Any) -> None:
    words = demo.http.get("/models/demo/words").json()
    assert words["max_tokens"] == 32
    reading = demo.http.post("/models/demo/read", json={"text": "the leison in the liver"}).json()
    assert reading["unknown"] == [{"text": "leison", "number": 2, "nearest": "lesion", "private": True}]
    assert demo.http.post("/models/demo/read", json={"text": ""}).status_code == 400
    assert demo.http.post("/models/demo/read", json={}).json()["error"].startswith("these fields")


def test_the_page_of_routes_loads_nothing(demo: Any) -> None:
    text = demo.http.get("/docs").text
    assert "POST /v2/models/{name}/infer" in text
    assert "http" not in text.replace("https://json-schema", "").replace("lsms-rt", "")
