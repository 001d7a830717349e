"""A server under mixed load, good and bad requests: ``python -m lsms_rt.bench.soak --minutes 60``.

Afterwards: every request has an answer of the expected kind, and what was found is, to the byte, what was found in the
same phantom before the load; the memory of all processes is flat, no file is left, and the server answers.

Bad requests are images that are none, sentences that are not understood, too large bodies, broken JSON, clients that
leave, jobs that are cancelled, and, once a minute, a worker that is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from lsms_rt.atomic import write_text
from lsms_rt.data import demo_engine
from lsms_rt.datasets.phantom.case import generate_case
from lsms_rt.datasets.phantom.dicom import write_slice
from lsms_rt.reading.load import load_slice

from .options import ServeOptions
from .provenance import provenance
from .serve import INFER, request_of, server, workers_of

SEEDS, SLICES = (189, 190), 4
# seconds in which what was cancelled is deleted
TIDY = 15.0
CLIENTS = 6
# Memory is flat if the last third's least is at most so much above the middle third's, in MiB.  The first third fills
# caches: engines keep memory for every batch size that was asked for.
GROWTH = 60
KILL_EVERY = 60.0
# Statuses that a kind of request may get; 429 and 503 tell to send it again.
AGAIN = {429, 503}


@dataclass(eq=False, kw_only=True)
class Phantom:
    """A series, and what the server answers about it when it does nothing else.

    Attributes:
        files: bytes of its DICOM files.
        requests: for one of its slices: as a tensor, and as a file.
        answers: to each of the requests.
        result: what is found in the series, see ``_found_in``.
    """

    files: list[bytes] = field(repr=False)
    requests: list[tuple[bytes, dict[str, str]]] = field(repr=False)
    answers: list[bytes] = field(default_factory=list, repr=False)
    result: Any = field(default=None, repr=False)

    @classmethod
    def of(cls, folder: Path) -> Phantom:
        paths = sorted(folder.iterdir())
        files = [path.read_bytes() for path in paths]
        middle = len(paths) // 2
        hu = np.rint(load_slice(paths[middle]).hu).astype(np.int16)
        return cls(files=files, requests=[request_of(hu), request_of(files[middle])])


class Load:
    """Clients that send requests of all kinds, and what they got.

    Args:
        url: of the server.
        folders: DICOM files of a series in each; no two are the same, so that an answer to another one is noticed.
    """

    def __init__(self, url: str, folders: Sequence[Path]) -> None:
        self.url, self.phantoms = url, [Phantom.of(folder) for folder in folders]
        self.refused = request_of(np.zeros((256, 256), np.int16), "no cyst in the liver")
        self.got: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.chance = random.Random(SEEDS[0])

    async def learn(self) -> None:
        """Ask about every phantom while the server does nothing else."""
        async with httpx.AsyncClient(base_url=self.url, timeout=120, trust_env=False) as http:
            for phantom in self.phantoms:
                for body, headers in phantom.requests:
                    answer = await http.post(INFER, content=body, headers=headers)
                    if self.expect("infer", answer, 200):
                        phantom.answers.append(answer.content)
                await self._ask_about(http, phantom)
        # One set for each kind of question: an answer about one phantom must not pass for another's.
        kinds = zip(*((*phantom.answers, repr(phantom.result)) for phantom in self.phantoms), strict=False)
        complete = all(len(one.answers) == len(one.requests) and one.result for one in self.phantoms)
        if not complete or any(len(set(kind)) < len(self.phantoms) for kind in kinds):
            self.wrong.append("the phantoms cannot be told apart by their answers; choose other seeds")

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
        phantom = self.chance.choice(self.phantoms)
        number = self.chance.randrange(len(phantom.requests))
        body, headers = phantom.requests[number]
        answer = await http.post(INFER, content=body, headers=headers)
        if self.expect("infer", answer, 200):
            self.same("infer", answer.content, phantom.answers[number])

    async def not_understood(self, http: httpx.AsyncClient) -> None:
        self.expect("not understood", await http.post(INFER, content=self.refused[0], headers=self.refused[1]), 422)

    async def no_image(self, http: httpx.AsyncClient) -> None:
        self.expect("no image", await http.post("/images", content=os.urandom(1000)), 415)
        raw = self.phantoms[0].files[0][:200] + os.urandom(2000)
        self.expect("broken DICOM", await http.post("/images", content=raw), 400)

    async def broken(self, http: httpx.AsyncClient) -> None:
        self.expect("broken JSON", await http.post(INFER, content=b"{"), 400)
        self.expect("broken question", await http.post("/jobs", content=b"[1"), 422)

    async def unknown(self, http: httpx.AsyncClient) -> None:
        self.expect("unknown job", await http.get("/jobs/none/result"), 404)

    async def leave(self, http: httpx.AsyncClient) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=0.05, trust_env=False) as other:
            try:
                body, headers = self.chance.choice(self.chance.choice(self.phantoms).requests)
                await other.post(INFER, content=body, headers=headers)
            except httpx.TimeoutException:
                self.got["left"] += 1

    async def series(self, http: httpx.AsyncClient) -> None:
        await self._ask_about(http, self.chance.choice(self.phantoms))

    async def _ask_about(self, http: httpx.AsyncClient, phantom: Phantom) -> None:
        image = await self._sent(http, phantom)
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
                results, archive = [await http.get(f"/jobs/{job}/{name}") for name in ("results.json", "files.zip")]
                if self.expect("result", results, 200) and self.expect("files", archive, 200):
                    found = _found_in(results.json(), archive.content)
                    phantom.result = phantom.result or found
                    self.same("job", found, phantom.result)
        self.expect("delete", await http.delete(f"/images/{image}"), 200)

    async def cancel(self, http: httpx.AsyncClient) -> None:
        image = await self._sent(http, self.chance.choice(self.phantoms))
        if image is None:
            return
        asked = await http.post("/jobs", json={"image_id": image, "sentences": ["the lesion in the liver"]})
        if self.expect("job", asked, 200):
            job = asked.json()["job_id"]
            self.expect("cancel", await http.post(f"/jobs/{job}/cancel"), 200)
            await http.get(f"/jobs/{job}/events")
        self.expect("delete", await http.delete(f"/images/{image}"), 200)

    async def _sent(self, http: httpx.AsyncClient, phantom: Phantom) -> str | None:
        first, *others = phantom.files
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

    def same(self, what: str, found: Any, known: Any) -> None:
        """Keep an answer that is not the one of its own request."""
        if found != known:
            self.wrong.append(f"{what}: not what was found before; another request's answer, or a wrong one")


def _found_in(results: dict[str, Any], archive: bytes) -> Any:
    """Return what is found in a series: the figures, and the checksum of each mask."""
    with zipfile.ZipFile(BytesIO(archive)) as files:
        masks = {one.filename: one.CRC for one in files.infolist() if one.filename.endswith("_mask.png")}
    records = [{key: value for key, value in one.items() if key != "timings_ms"} for one in results["results"]]
    return records, results["series"], masks


def kept_in(temporary: Path) -> list[Path]:
    """Return what is in a server's folder for temporary files, without hidden ones, which ONNX Runtime keeps there."""
    return [path for path in temporary.iterdir() if not path.name.startswith(".")]


def left_in(temporary: Path) -> int:
    """Return the number of temporary files, after the time in which what was cancelled is deleted."""
    end = time.monotonic() + TIDY
    while True:
        below = (path for one in kept_in(temporary) for path in (one, *one.rglob("*")))
        count = sum(path.is_file() for path in below)
        if not count or time.monotonic() > end:
            return count
        time.sleep(0.2)


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


async def load(
    url: str, folders: Sequence[Path], seconds: float, kill_every: float = KILL_EVERY
) -> tuple[Load, list[int]]:
    """Put a server under load; return what the clients got, and the memory over time."""
    sent, sizes = Load(url, folders), []
    await sent.learn()
    if sent.wrong:
        return sent, [memory(url)]
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


def problems(sent: Load, sizes: Sequence[int], url: str, temporary: Path) -> list[str]:
    """Return what is not as it should be after the load; ``temporary``: the server's folder for temporary files."""
    found = list(dict.fromkeys(sent.wrong))
    third = len(sizes) // 3
    before, after = (min(part, default=0) for part in (sizes[third : 2 * third], sizes[2 * third :]))
    if third and after > before + GROWTH:
        found.append(f"the memory grew from {before} to {after} MiB")
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        end = time.monotonic() + 60
        while http.get("/readyz").status_code != 200 and time.monotonic() < end:
            time.sleep(0.2)
        for phantom in sent.phantoms:
            for (body, headers), known in zip(phantom.requests, phantom.answers, strict=False):
                answer = http.post(INFER, content=body, headers=headers)
                # A worker that was killed last is noticed by the request that it costs.
                while answer.status_code in AGAIN and time.monotonic() < end:
                    time.sleep(0.2)
                    answer = http.post(INFER, content=body, headers=headers)
                if (answer.status_code, answer.content) != (200, known):
                    found.append(f"the server does not answer as before ({answer.status_code})")
        # What was cancelled last ends beside the requests, and so does the deletion of files.
        if not _within(end, lambda: "lsms_running 0.0" in http.get("/metrics").text):
            found.append("a task still runs")
    if not _within(end, lambda: not left_in(temporary)):
        found.append(f"{left_in(temporary)} temporary files are left, though all images were deleted")
    return found


def _within(end: float, condition: Callable[[], bool]) -> bool:
    """Wait for a condition, at most until ``end``; return whether it holds."""
    while not (held := condition()) and time.monotonic() < end:
        time.sleep(0.2)
    return held


def write_phantoms(folder: Path) -> list[Path]:
    """Write a series for each seed; return their folders."""
    folders = []
    for seed in SEEDS:
        case = generate_case(seed, SLICES, 128)
        folders.append(folder / str(seed))
        folders[-1].mkdir()
        for index in range(len(case.slices)):
            write_slice(folders[-1] / f"{index}.dcm", case, index, f"case {seed}")
    return folders


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--engine", type=Path, default=demo_engine(), help="engine directory (default: the bundled one)"
    )
    parser.add_argument("--minutes", type=float, default=60, help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, help="write what is printed as JSON, with its provenance")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="lsms-soak-") as name:
        temporary = Path(name) / "temporary"
        temporary.mkdir()
        folders = write_phantoms(Path(name))
        with server(options.engine, ServeOptions(), options.workers, queue=16, temporary=temporary) as url:
            sent, sizes = asyncio.run(load(url, folders, options.minutes * 60))
            found = problems(sent, sizes, url, temporary)
        if kept_in(temporary):
            found.append("the server left folders for temporary files when it ended")
    memory = {"after a third": sizes[len(sizes) // 3], "at last": sizes[-1], "most": max(sizes)}
    for what, count in sorted(sent.got.items()):
        print(f"{count:8} {what}")
    print("memory of all processes, MiB: " + ", ".join(f"{mib} {when}" for when, mib in memory.items()))
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    # Last: a folder that is missing must not cost what was found.
    if options.output:
        facts = {"minutes": options.minutes, "workers": options.workers, "got": dict(sorted(sent.got.items()))}
        facts |= {"memory_mib": memory, "errors": found, **provenance("onnxruntime", "fastapi", "uvicorn")}
        write_text(options.output, json.dumps(facts, indent=2) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
