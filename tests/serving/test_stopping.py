"""SIGTERM: a server in a process of its own ends its jobs, tells every sender, and is gone within one deadline."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from lsms_rt.serving import settings, stopping

ROOT = Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"
IMAGE = {"name": "IMAGE", "datatype": "INT16", "shape": [1, 32, 32], "data": [0] * 1024}


class Process:
    """A server's process, and requests to it that are made beside each other."""

    def __init__(self, grace: float) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        command = [sys.executable, str(HELPERS / "fake_server.py"), port, str(grace)]
        self.process = subprocess.Popen(command, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
        self.threads = ThreadPoolExecutor(8)
        self.until(lambda: self.metric("lsms_workers_ready") == 1)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end
            assert self.process.poll() is None
            time.sleep(0.05)

    def metric(self, name: str) -> float:
        try:
            text = httpx.get(f"{self.url}/metrics", trust_env=False).text
        except httpx.TransportError:
            return -1
        found = re.search(rf"^{name} (\S+)", text, re.MULTILINE)
        return float(found[1]) if found else -1

    def infer(self, sentence: str) -> Future[Any]:
        text = {"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": [sentence]}
        return self.post("/v2/models/demo/infer", json={"inputs": [IMAGE, text]})

    def post(self, path: str, **more: Any) -> Future[Any]:
        return self.threads.submit(httpx.post, f"{self.url}{path}", timeout=60, trust_env=False, **more)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@pytest.fixture
def start() -> Iterator[Callable[[float], Process]]:
    made: list[Process] = []

    def make(grace: float) -> Process:
        made.append(Process(grace))
        return made[-1]

    yield make
    for one in made:
        one.process.kill()
        one.process.communicate()
        one.threads.shutdown()


def refused(answer: Any) -> bool:
    return (answer.status_code, answer.json()["kind"]) == (503, "ShutdownError")


@pytest.mark.slow
def test_running_jobs_end_and_the_others_are_told(start: Callable[[float], Process]) -> None:
    server = start(10.0)
    running = server.infer("slow 75")
    server.until(lambda: server.metric("lsms_running") == 1)
    waiting = [server.infer("slow 1") for _ in range(2)]
    server.until(lambda: server.metric("lsms_queue_waiting") == 2)
    server.stop()
    assert all(refused(one.result()) for one in waiting)
    assert refused(server.infer("slow 1").result())
    assert not running.done()
    assert running.result().status_code == 200
    _, log = server.process.communicate(timeout=10)
    assert "before 2 of the tasks" in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_second_ctrl_c_cuts_off_what_runs(start: Callable[[float], Process]) -> None:
    server = start(60.0)
    running = server.infer("slow 4000")
    server.until(lambda: server.metric("lsms_running") == 1)
    server.process.send_signal(signal.SIGINT)
    server.until(lambda: refused(server.infer("slow 1").result()))
    assert not running.done()
    begun = time.monotonic()
    server.process.send_signal(signal.SIGINT)
    assert refused(running.result())
    _, log = server.process.communicate(timeout=20)
    assert time.monotonic() - begun < 15
    assert server.process.returncode == 0
    assert re.search(r"stopped before \d+ of the tasks were done", log)
    assert "Traceback" not in log
    assert "another one is started" not in log


@pytest.mark.slow
def test_what_takes_longer_is_cut_off_and_told(start: Callable[[float], Process]) -> None:
    server = start(0.5)
    running = server.infer("deaf 4000")
    server.until(lambda: server.metric("lsms_running") == 1)
    # A sender that never comes to an end.
    host, port = server.url.removeprefix("http://").split(":")
    upload = socket.create_connection((host, int(port)), timeout=20)
    upload.sendall(f"POST /images HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n".encode())
    time.sleep(0.3)
    server.stop()
    begun = time.monotonic()
    assert refused(running.result())
    with upload, upload.makefile("rb") as file:
        answer = file.read()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"ShutdownError" in answer
    _, log = server.process.communicate(timeout=10)
    # The grace time, that of the answers, and the end of a process.
    assert time.monotonic() - begun < 0.5 + 1.0 + 3.0
    assert "before 1 of the tasks" in log
    assert "Traceback" not in log


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    seen: list[Any] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self: seen.append(self.config.limit_concurrency))
    with pytest.raises(SystemExit):
        stopping.listen(None, "127.0.0.1", 1, 1.0)
    assert seen == [stopping.CONNECTIONS]


def test_connections_have_room_for_a_slice_that_grows() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        usual = listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        stopping.make_room(listener)
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as accepted:
            # One byte is still told at once.
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= usual
            client.sendall(b"x")
            assert accepted.recv(2) == b"x"


def test_the_deadline_is_well_below_the_services() -> None:
    text = (ROOT / "deploy" / "lsms-rt.service").read_text()
    allowed = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert allowed is not None
    assert settings.Settings(models=()).grace + stopping.FLUSH <= int(allowed[1]) - 10
