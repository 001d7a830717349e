"""``lsms-rt bench serve``: what a server costs over the engine alone, and what it does under load and faults.

The server is a process of its own; the requests are KServe v2 with binary tensors, one slice of 512 x 512 and a
sentence that is encoded already.  *Closed loop*: each client sends its next request when it has its answer.  *Open
loop*: requests come at random times (Poisson) whatever the answers do, as from a hospital's scanners.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from lsms_rt import kserve_request
from lsms_rt.datasets.phantom.case import generate_case
from lsms_rt.errors import LsmsError
from lsms_rt.kserve_request import bytes_tensor, image_tensor
from lsms_rt.segmenter import Segmenter

from .options import ServeOptions
from .records import SERVE, Record, record_of
from .samples import Samples
from .timing import rounds, seconds

Say = Callable[[str], None]
SEED, MATRIX = 189, 512
TEXT = "the lesion in the liver"
# Shares of the closed loop's best throughput at which requests come in the open loop.
LOADS = (0.5, 0.8, 1.2)
START_LIMIT = 120.0
# Calls in a turn.  In turns of one call both take 1.3 times as long: each finds the other's threads and data.
TURN = 10


class ServerDiedError(LsmsError):
    """The measured server ended, or did not start."""


@dataclass
class Tally:
    """What came of the requests of one setting.

    Attributes:
        times: seconds of each answered request.
        refused: answers 429.
        failed: other answers, and none at all.
        seconds: length of the measurement.
    """

    times: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0

    def row(self, **name: Any) -> dict[str, Any]:
        """Return a row of the record."""
        if not self.times:
            return name | {"answered": 0, "refused": self.refused, "failed": self.failed}
        found = Samples(tuple(t * 1000 for t in self.times))
        shares = {f"p{share}, ms": found.percentile(share) for share in (50, 95, 99)}
        rate = {"per second": len(self.times) / self.seconds}
        return name | rate | shares | {"answered": len(self.times), "refused": self.refused, "failed": self.failed}


def measure(engine: Path, options: ServeOptions, say: Say) -> Record:
    """Measure a server with one engine.

    Args:
        engine: the engine directory.
        options: how long and how much.
        say: told what is measured next.

    Raises:
        ServerDiedError: the server did not start.
    """
    hu = np.rint(generate_case(SEED, 1, MATRIX).slices[0].hu).astype(np.int16)
    body, headers = request_of(hu)
    rows: list[dict[str, Any]] = []
    with server(engine, options) as url:
        say("one client, and the engine alone")
        overhead = _overhead(engine, url, hu, body, headers, options)
        best = 0.0
        for clients in options.clients:
            say(f"closed loop, {clients} clients")
            tally = asyncio.run(closed_loop(url, body, headers, clients, options.seconds))
            rows.append(tally.row(loop="closed", clients=clients))
            best = max(best, len(tally.times) / tally.seconds)
        for share in LOADS:
            say(f"open loop, {share:g} of the best throughput")
            tally = asyncio.run(open_loop(url, body, headers, share * best, options.seconds))
            rows.append(tally.row(loop="open", clients=f"{share:g} of the best"))
    with server(engine, options, workers=2, queue=4) as url:
        say("faults")
        faults = asyncio.run(_faults(url, body, headers))
    what = (
        f"one slice of {MATRIX}x{MATRIX} and a sentence per request, {options.seconds:g} s a row; server, clients and "
        f"engine on one machine"
    )
    return record_of(
        SERVE, ("onnxruntime", "fastapi", "uvicorn"), what=what, engine=engine.name, overhead=overhead, faults=faults,
        rows=rows,
    )  # fmt: skip


def request_of(image: np.ndarray | bytes, text: str = TEXT) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request for one slice (H, W) in HU, or for the bytes of a DICOM file."""
    shown = bytes_tensor("DICOM", [image]) if isinstance(image, bytes) else image_tensor(image[None])
    return kserve_request.request_of([bytes_tensor("TEXT", [text.encode()]), shown])


@contextmanager
def server(
    engine: Path, options: ServeOptions, workers: int = 1, queue: int = 64, temporary: Path | None = None
) -> Iterator[str]:
    """Run a server on a free port; yield its URL once it is ready.  ``temporary``: its folder for temporary files."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "lsms_rt.cli", "serve", f"engine={engine}", "--port", str(port)]
    command += ["--workers", str(workers), "--queue", str(queue)]
    if options.threads:
        command += ["--threads", str(options.threads)]
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | ({} if temporary is None else {"TMPDIR": str(temporary)})
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    try:
        _wait_until_ready(url, process)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise ServerDiedError("the server did not start; run lsms-rt serve ENGINE to see why")


def _overhead(
    engine: Path, url: str, hu: np.ndarray, body: bytes, headers: dict[str, str], options: ServeOptions
) -> dict[str, Any]:
    """Compare a request with ``predict`` of the same slice in this process, in turns of ``TURN`` calls.

    The request is asked by Python's own ``http.client``, which does little beside it, and by httpx, as users may.
    """
    plain = HTTPConnection(url.removeprefix("http://"))
    with Segmenter(engine, threads=options.threads) as segmenter, httpx.Client(base_url=url, trust_env=False) as http:

        def ask() -> None:
            plain.request("POST", INFER, body, headers)
            answer = plain.getresponse()
            answer.read()
            if answer.status != 200:
                raise ServerDiedError(f"the server answered {answer.status}; run lsms-rt serve ENGINE to see why")

        def ask_with_httpx() -> None:
            http.post(INFER, content=body, headers=headers).raise_for_status()

        def here() -> None:
            segmenter.predict(hu, TEXT, orientation="axial")

        def turn_of_ask() -> float:
            # The server closes a connection that was quiet during the others' turns.
            plain.close()
            return _turn(ask)

        turns = {"http.client": turn_of_ask, "httpx": lambda: _turn(ask_with_httpx), "predict": lambda: _turn(here)}
        found = rounds(turns, options.rounds)
    plain.close()
    served, by_httpx, alone = (Samples(tuple(found[name])).median for name in turns)
    return {
        "request, ms": served, "request with httpx, ms": by_httpx, "predict, ms": alone,
        "overhead, ms": served - alone, "rounds": options.rounds,
    }  # fmt: skip


def _turn(call: Callable[[], None]) -> float:
    """Return the median of some calls, in ms.  Before them, the other's process gives back the cores and the caches."""
    for _ in range(2):
        call()
    return Samples(tuple(seconds(call) * 1000 for _ in range(TURN))).median


INFER = "/v2/models/engine/infer"


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False, limits=limits) as http:
        yield http


async def _one(http: httpx.AsyncClient, body: bytes, headers: dict[str, str], tally: Tally) -> None:
    begin = time.perf_counter()
    try:
        response = await http.post(INFER, content=body, headers=headers)
    except httpx.HTTPError:
        tally.failed += 1
        return
    if response.status_code == 200:
        tally.times.append(time.perf_counter() - begin)
    elif response.status_code == 429:
        tally.refused += 1
    else:
        tally.failed += 1


async def closed_loop(url: str, body: bytes, headers: dict[str, str], clients: int, duration: float) -> Tally:
    """Let clients ask one request after the other."""
    tally = Tally()
    async with _client(url) as http:
        begin = time.perf_counter()

        async def ask() -> None:
            while time.perf_counter() - begin < duration:
                await _one(http, body, headers, tally)

        await asyncio.gather(*(ask() for _ in range(clients)))
        tally.seconds = time.perf_counter() - begin
    return tally


async def open_loop(url: str, body: bytes, headers: dict[str, str], rate: float, duration: float) -> Tally:
    """Send requests at random times, ``rate`` per second on average."""
    tally, chance = Tally(), random.Random(SEED)
    async with _client(url) as http:
        begin = time.perf_counter()
        at, sent = 0.0, []
        while at < duration:
            await asyncio.sleep(max(0.0, begin + at - time.perf_counter()))
            sent.append(asyncio.create_task(_one(http, body, headers, tally)))
            at += chance.expovariate(rate)
        await asyncio.gather(*sent)
        tally.seconds = time.perf_counter() - begin
    return tally


async def _faults(url: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
    """Do to a server with two workers and a queue of four what happens in practice; say what came of it."""
    async with _client(url) as http:
        flood = Tally()
        await asyncio.gather(*(_one(http, body, headers, flood) for _ in range(32)))
        # a client that leaves in the middle of its request
        with_left = Tally()
        leaver = asyncio.create_task(_one(http, body, headers, Tally()))
        await asyncio.sleep(0.01)
        leaver.cancel()
        await _one(http, body, headers, with_left)
        # a worker that is killed while both compute
        pids = workers_of(url)
        killed = Tally()
        asked = [asyncio.create_task(_one(http, body, headers, killed)) for _ in range(4)]
        await asyncio.sleep(0.02)
        os.kill(pids[0], signal.SIGKILL)
        await asyncio.gather(*asked)
        begin = time.perf_counter()
        while (await http.get("/readyz")).status_code != 200 or len(workers_of(url)) < len(pids):
            await asyncio.sleep(0.05)
        back = time.perf_counter() - begin
        after = Tally()
        await _one(http, body, headers, after)
    return {
        "32 at once to a queue of 4": {"answered": len(flood.times), "refused": flood.refused, "failed": flood.failed},
        "after a client left": {"answered": len(with_left.times)},
        "worker killed during 4 requests": {"answered": len(killed.times), "failed": killed.failed},
        "all workers again after, s": round(back, 2),
        "after it": {"answered": len(after.times)},
    }


def workers_of(url: str, with_parent: bool = False) -> list[int]:
    """Return the processes of a server's workers, and of the server itself; Linux lists them."""
    port = url.rpartition(":")[2].encode()
    for folder in Path("/proc").glob("[0-9]*"):
        command = _command(folder)
        if b"serve" in command and port in command:
            # Each thread lists the processes that it started.
            children = [pid for one in folder.glob("task/*/children") for pid in one.read_text().split()]
            spawned = [int(pid) for pid in children if any(b"spawn_main" in word for word in _command(f"/proc/{pid}"))]
            return [int(folder.name), *spawned] if with_parent else spawned
    return []


def _command(folder: str | Path) -> list[bytes]:
    try:
        return (Path(folder) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
