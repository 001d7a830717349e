"""Servers on this machine, in threads of the test process: one with the bundled engine, others with fake workers."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_worker
import pytest

from lsms_rt.data import demo_engine
from lsms_rt.serving import feeder, worker
from lsms_rt.serving.settings import Model, Settings

httpx = pytest.importorskip("httpx", reason="httpx is not installed; pip install 'lsms-rt[serve]'")
uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed; pip install 'lsms-rt[serve]'")
WAIT = 60.0


class _Attentive:
    """``asyncio`` for uvicorn: it looks ten times as often whether to stop, or whether connections have closed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


class Live:
    """A server that runs."""

    def __init__(self, settings: Settings, work: Callable[..., None]) -> None:
        from lsms_rt.serving.app import create_app

        self.app = create_app(settings, work)
        # asyncio lets only sockets that say TCP answer at once; else the second request of a connection waits 40 ms.
        listener = socket.socket(proto=socket.IPPROTO_TCP)
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(self.app, log_level="error", access_log=False, server_header=False)
        )
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        self.http = httpx.Client(base_url=self.url, timeout=WAIT, trust_env=False, verify=False)
        end = time.monotonic() + WAIT
        # Forked, a worker may be ready before the one who started it knows its number.
        while not (self.core.pool.ready and self.core.pool.pids) and self.core.pool.problem is None:
            assert time.monotonic() < end, "no worker is ready"
            time.sleep(0.005)

    @property
    def core(self) -> Any:
        return self.app.state.server

    def stop(self) -> None:
        self.http.close()
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="session", autouse=True)
def servers_stop_soon() -> Iterator[None]:
    """Let each stop after 15 ms; it would be 150."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.server, "asyncio", _Attentive())
        yield


@pytest.fixture(scope="session")
def demo() -> Iterator[Live]:
    """The bundled engine; read it only, or delete what you send."""
    live = Live(Settings(models=(Model(name="demo", path=demo_engine()),), threads=1), worker.main)
    yield live
    live.stop()


@pytest.fixture(autouse=True)
def fake_workers_are_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork workers from a process that has imported what they need: a new Python takes 0.25 s.  ``demo``'s is new."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lsms_rt.serving.tasks", "lsms_rt.serving.volume", "lsms_rt.serving.wire"])
    monkeypatch.setattr(feeder, "get_context", lambda method: context)


@pytest.fixture
def fakes() -> Iterator[Callable[..., Live]]:
    """``fakes(queue=1, ...)``: a server whose workers do as the sentence says (``fake_worker``)."""
    made: list[Live] = []

    def make(**fields: Any) -> Live:
        models = (Model(name="demo", path=demo_engine()),)
        made.append(Live(Settings(models=models, **{"grace": 1.0} | fields), fake_worker.main))
        return made[-1]

    yield make
    for live in made:
        live.stop()


@pytest.fixture
def example() -> Path:
    return demo_engine().parent / "examples" / "phantom_1.dcm"
