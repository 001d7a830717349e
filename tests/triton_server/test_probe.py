"""The probe: it asks every instance, and tells those that are busy from those that fail."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue

import pytest

from lsms_rt.triton_server import probe
from lsms_rt.triton_server.probe import main

Answers = Callable[[list[int | float | None]], str]
# Triton took the request out of its queue.
LATE = -503


@pytest.fixture
def server() -> Iterator[Answers]:
    """``server([200, 500])``: a server whose instances answer so; a fraction: after so many seconds; None: never."""
    made: list[ThreadingHTTPServer] = []

    def make(answers: list[int | float | None]) -> str:
        # Each takes the next request when it is free.
        free: SimpleQueue[int] = SimpleQueue()
        for number, what in enumerate(answers):
            if what is not None:
                free.put(number)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                groups = [{"count": len(answers) - 1, "gpus": []}, {"count": 1, "gpus": [0]}]
                self._send(200, json.dumps({"instance_group": groups}).encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                number = free.get()
                status = answers[number]
                assert status is not None
                time.sleep(status if isinstance(status, float) else 0.01)
                free.put(number)
                body = {"error": "Request timeout expired"} if status == LATE else {"outputs": [{"data": [number]}]}
                self._send(200 if isinstance(status, float) else abs(status), json.dumps(body).encode())

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(BrokenPipeError):
                    self.wfile.write(body)

            def log_message(self, *given: object) -> None: ...

        made.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=made[-1].serve_forever, args=(0.02,)).start()
        return f"http://127.0.0.1:{made[-1].server_address[1]}"

    yield make
    for one in made:
        one.shutdown()
        one.server_close()


@pytest.mark.parametrize(
    ("answers", "code", "code_if_busy_is_well"),
    [([200, 200], 0, 0), ([200, 500], 1, 1), ([200, 503], 1, 1), ([200, 0.5], 1, 0), ([0.5, 500], 1, 1),
     ([200, None], 1, 0), ([LATE, LATE], 1, 0)],
)  # fmt: skip
def test_every_instance_counts(
    server: Answers, monkeypatch: pytest.MonkeyPatch,
    answers: list[int | float | None], code: int, code_if_busy_is_well: int,
) -> None:  # fmt: skip
    # Asked once: whether busy instances are well is said of what was found.
    monkeypatch.setattr(probe, "probe", cache(probe.probe))
    command = ["demo", "--url", server(answers), "--timeout", "0.25"]
    assert main(command) == code
    assert main([*command, "--allow-busy"]) == code_if_busy_is_well


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--url", "http://127.0.0.1:1", "--allow-busy"]) == 1
    assert main(["demo", "--url", "http://127.0.0.1:1", "--allow-busy", "--instances", "1"]) == 1
    assert "no connection" in capsys.readouterr().out
