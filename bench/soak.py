"""A server under mixed load, good and bad requests: ``python -m lsms_rt.bench.soak --minutes 60``.

Afterwards: every request has an answer of the expected kind, the memory of all processes is flat, no file is left, and
the server answers as before.  Bad requests are images that are none, sentences that are not understood, too large
bodies, broken JSON, clients that leave, jobs that are cancelled, and, once a minute, a worker that is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx
import numpy as np

from lsms_rt.data import demo_engine
from lsms_rt.datasets.phantom.case import generate_case
from lsms_rt.datasets.phantom.dicom import write_slice

from .options import ServeOptions
from .serve import INFER, request_of, server, workers_of

SEED, SLICES = 189, 4
CLIENTS = 6
# Memory is flat if the last third's least is at most so much above the middle third's, in MiB.  The first third fills
# caches: engines keep memory for every batch size that was asked for.
GROWTH = 60
KILL_EVERY = 60.0
# Statuses that a kind of request may get; 429 and 503 tell to send it again.
AGAIN = {429, 503}


class Load:
    """Clients that send requests of all kinds, and what they got.

    Args:
        url: of the server.
        folder: DICOM files of a series.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.files = url, [path.read_bytes() for path in sorted(folder.iterdir())]
        hu = np.zeros((256, 256), np.int16)
        self.good, self.refused = request_of(hu), request_of(hu, "no cyst in the liver")
        self.got: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.chance = random.Random(SEED)

    async def client(self, until: float) -> None:
        """Send one request after the other."""
        kinds: Sequence[Callable[[httpx.AsyncClient], Awaitable[None]]] = (
            self.infer, self.infer, self.infer, self.series, self.not_understood, self.no_image, self.broken,
            self.leave, self.cancel, self.unknown,
        )  # fmt: skip
        async with httpx.AsyncClient(base_url=self.url, timeout=120, trust_env=False) as http:
            while time.monotonic() < until:
                await self.chance.choice(kinds)(http)

    async def infer(self, http: httpx.AsyncClient) -> None:
        self.expect("infer", await http.post(INFER, content=self.good[0], headers=self.good[1]), 200)

    async def not_understood(self, http: httpx.AsyncClient) -> None:
        self.expect("not understood", await http.post(INFER, content=self.refused[0], headers=self.refused[1]), 422)

    async def no_image(self, http: httpx.AsyncClient) -> None:
        self.expect("no image", await http.post("/images", content=os.urandom(1000)), 415)
        raw = self.files[0][:200] + os.urandom(2000)
        self.expect("broken DICOM", await http.post("/images", content=raw), 400)

    async def broken(self, http: httpx.AsyncClient) -> None:
        self.expect("broken JSON", await http.post(INFER, content=b"{"), 400)
        self.expect("broken question", await http.post("/jobs", content=b"[1"), 422)

    async def unknown(self, http: httpx.AsyncClient) -> None:
        self.expect("unknown job", await http.get("/jobs/none/result"), 404)

    async def leave(self, http: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=0.05, trust_env=False) as other:
            try:
                await other.post(INFER, content=self.good[0], headers=self.good[1])
            except httpx.TimeoutException:
                self.got["left"] += 1

    async def series(self, http: httpx.AsyncClient) -> None:
        image = await self._sent(http)
        if image is None:
            return
        body = {"image_id": image, "sentences": ["the lesion in the liver"], "files": ["seg"]}
        asked = await http.post("/jobs", json=body)
        if self.expect("job", asked, 200):
            job = asked.json()["job_id"]
            events = (await http.get(f"/jobs/{job}/events")).text.splitlines()
            done = '"done"' in events[-1]
            self.got["job done" if done else "job failed"] += 1
            if done:
                self.expect("result", await http.get(f"/jobs/{job}/files.zip"), 200)
        self.expect("delete", await http.delete(f"/images/{image}"), 200)

    async def cancel(self, http: httpx.AsyncClient) -> None:
        image = await self._sent(http)
        if image is None:
            return
        asked = await http.post("/jobs", json={"image_id": image, "sentences": ["the lesion in the liver"]})
        if self.expect("job", asked, 200):
            job = asked.json()["job_id"]
            self.expect("cancel", await http.post(f"/jobs/{job}/cancel"), 200)
            await http.get(f"/jobs/{job}/events")
        self.expect("delete", await http.delete(f"/images/{image}"), 200)

    async def _sent(self, http: httpx.AsyncClient) -> str | None:
        first, *others = self.files
        answer = await http.post("/images", params={"more": True}, content=first)
        if not self.expect("upload", answer, 200):
            return None
        image = str(answer.json()["image_id"])
        for raw in others:
            self.expect("file", await http.post(f"/images/{image}/files", content=raw), 200)
        if not self.expect("complete", await http.post(f"/images/{image}/complete"), 200):
            self.expect("delete", await http.delete(f"/images/{image}"), 200)
            return None
        return image

    def expect(self, what: str, response: httpx.Response, status: int) -> bool:
        """Count an answer; one that is not as expected is kept."""
        self.got[f"{what}: {response.status_code}"] += 1
        if response.status_code not in {status, *AGAIN}:
            self.wrong.append(f"{what}: {response.status_code} {response.text[:200]}")
        return response.status_code == status


def memory(url: str) -> int:
    """Return the resident memory of a server and its workers, in MiB."""
    pids = workers_of(url, with_parent=True)
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/statm").read_text().split()
        except OSError:
            continue
        total += int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    return total >> 20


async def load(url: str, folder: Path, seconds: float, kill_every: float = KILL_EVERY) -> tuple[Load, list[int]]:
    """Put a server under load; return what the clients got, and the memory over time."""
    sent, sizes = Load(url, folder), []
    until = time.monotonic() + seconds
    clients = [asyncio.create_task(sent.client(until)) for _ in range(CLIENTS)]
    killed = time.monotonic()
    while not all(client.done() for client in clients):
        await asyncio.sleep(min(2.0, seconds / 10))
        sizes.append(memory(url))
        if time.monotonic() - killed > kill_every:
            killed = time.monotonic()
            os.kill(sent.chance.choice(workers_of(url)), signal.SIGKILL)
            sent.got["worker killed"] += 1
    for client in clients:
        client.result()
    return sent, sizes


def problems(sent: Load, sizes: Sequence[int], url: str) -> list[str]:
    """Return what is not as it should be after the load."""
    found = list(dict.fromkeys(sent.wrong))
    third = len(sizes) // 3
    before, after = (min(part, default=0) for part in (sizes[third : 2 * third], sizes[2 * third :]))
    if third and after > before + GROWTH:
        found.append(f"the memory grew from {before} to {after} MiB")
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        end = time.monotonic() + 60
        while http.get("/readyz").status_code != 200 and time.monotonic() < end:
            time.sleep(0.2)
        if http.post(INFER, content=sent.good[0], headers=sent.good[1]).status_code != 200:
            found.append("the server no longer answers")
        if "lsms_running 0.0" not in http.get("/metrics").text:
            found.append("a task still runs")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--engine", type=Path, default=demo_engine(), help="engine directory (default: the bundled one)"
    )
    parser.add_argument("--minutes", type=float, default=60, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="(default: %(default)s)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lsms-soak-") as name:
        case = generate_case(SEED, SLICES, 128)
        for index in range(len(case.slices)):
            write_slice(Path(name) / f"{index}.dcm", case, index, "case")
        with server(options.engine, ServeOptions(), workers=options.workers, queue=16) as url:
            sent, sizes = asyncio.run(load(url, Path(name), options.minutes * 60))
            found = problems(sent, sizes, url)
    for what, count in sorted(sent.got.items()):
        print(f"{count:8} {what}")
    print(
        f"memory of all processes, MiB: {sizes[len(sizes) // 3]} after a third, {sizes[-1]} at last, {max(sizes)} most"
    )
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
