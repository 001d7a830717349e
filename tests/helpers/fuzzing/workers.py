"""Cases judged in processes of their own: one that dies, or hangs in compiled code, is a finding and not the end."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, NamedTuple

from fuzzing.harness import SECONDS, Verdict, judge, make_case

# Seconds after the alarm until a process that does not answer is ended.
_GRACE = 15.0
# Bytes that a worker may allocate beyond those it starts with; more is a MemoryError, which counts as a crash.
_ADDRESSES = 4 * 2**30


class Job(NamedTuple):
    form: str
    seed: int
    index: int


def judge_all(jobs: Iterable[Job], workers: int = 2) -> Iterator[tuple[Job, Verdict]]:
    """Verdicts as they come. The caller saves what failed: a job makes its case again."""
    waiting, pool = iter(jobs), [_Worker() for _ in range(workers)]
    try:
        for worker in pool:
            worker.give(next(waiting, None))
        while busy := [worker for worker in pool if worker.job is not None]:
            wait([worker.connection for worker in busy], timeout=1.0)
            for worker in busy:
                answer = worker.answer()
                if answer is not None:
                    yield answer
                    worker.give(next(waiting, None))
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    """One process; it is started again when it has died."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self._trace: IO[str] = tempfile.NamedTemporaryFile("w+", suffix=".trace")  # noqa: SIM115
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._trace.name), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, job: Job | None) -> None:
        self.job, self._begin = job, time.monotonic()
        if job is not None:
            self.connection.send(job)

    def answer(self) -> tuple[Job, Verdict] | None:
        """The verdict, if there is one; a death or a long silence is one, too."""
        assert self.job is not None
        try:
            if self.connection.poll():
                return self.job, self.connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            return self.job, self._dead(f"the process died with exit code {self._process.exitcode}", "crash")
        if time.monotonic() - self._begin > SECONDS + _GRACE:
            self._process.kill()
            self._process.join(5)
            return self.job, self._dead("no answer, not even to the alarm", "hang")
        return None

    def _dead(self, detail: str, outcome: str) -> Verdict:
        trace = Path(self._trace.name).read_text(errors="replace")[-3000:]
        Path(self._trace.name).write_text("")
        self.connection.close()
        self._start()
        lines = [line.strip() for line in trace.splitlines() if line.strip().startswith("File ")]
        where = next((line for line in lines if "lsms_rt" in line), "")
        return Verdict(outcome, f"{detail}\n{trace}", f"native {lines[0] if lines else ''} {where}")

    def stop(self) -> None:
        self._process.kill()
        self._process.join(5)
        self.connection.close()
        self._trace.close()


def serve(connection: Connection, trace: str) -> None:
    """A worker's life: a job, its verdict, the next job."""
    file = open(trace, "a")  # noqa: SIM115 - as long as the process
    faulthandler.enable(file)
    quiet = os.open(os.devnull, os.O_WRONLY)
    # Decoders of compiled code write their complaints there.
    os.dup2(quiet, 2)
    os.dup2(quiet, 1)
    # Imports count neither as time nor as memory of a case.
    for form in ("dicom", "engine"):
        judge(make_case(form, 0, 0), seconds=120)
    _limit_addresses()
    while True:
        try:
            job: Job = connection.recv()
        except EOFError:
            return
        connection.send(judge(make_case(*job)))


def _limit_addresses() -> None:
    if sys.platform != "linux":
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
