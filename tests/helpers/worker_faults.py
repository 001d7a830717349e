"""Let everything fail while workers do series of a real Orthanc, and count the results.

    python tests/helpers/worker_faults.py -o DIR [--series 50] [--kills 20] [--seed 1]

Two workers share one queue.  At random moments one of them is killed (SIGKILL) and started again; Orthanc is killed and
started again; the disk for temporary files is full for a while (a tmpfs, so only for root); one series is damaged, one
gets a late slice, one is of no rule.  At the end every series must have its result once, or its refusal, and no
temporary data may be left.  Prints figures as JSON; ends with status 1 if a series has no result, or several.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# So that it runs as a script, too.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from orthanc import Archive, Server
from pydicom import dcmread
from worker_series import OTHER, damage, rules_text, uids, write_series

from lsms_rt import __version__
from lsms_rt.archive_worker import retry

WORKERS, TMPFS_MIB = 2, 96
# of work between two kills; for a worker to start, or to notice a fault
LONGEST_S, PATIENCE_S = 4.0, 30.0
DAMAGED, LATE, FOREIGN = "damaged", "late", "foreign"
# A worker that waits as long as is said before it tries something again.
WORKER = (
    "import sys\n"
    "from lsms_rt.archive_worker import retry\n"
    "from lsms_rt.cli.main import main\n"
    "retry.FIRST_S = float(sys.argv.pop(1))\n"
    "sys.exit(main())"
)


class Site:
    """An Orthanc, two workers, and the folders of both."""

    def __init__(self, folder: Path, series: int, seed: int, retry_s: float) -> None:
        folder.mkdir(parents=True)
        self.retry_s = retry_s
        self.folder, self.tmp, self.state = folder, folder / "tmp", folder / "state"
        self.tmp.mkdir()
        self.random, self.count = random.Random(seed), Counter[str]()
        self.server = Server(folder / "orthanc")
        self.archive = self.server.start()
        self.rules = folder / "rules.yaml"
        self.rules.write_text(rules_text(self.server.port, max_attempts=50))
        self.workers: list[subprocess.Popen[bytes]] = []
        names = [f"s{n}" for n in range(series - 3)]
        self.files = {name: write_series(folder / "in", name, self.random.randint(2, 4)) for name in (*names, LATE)}
        self.files[DAMAGED] = write_series(folder / "in", DAMAGED, 2)
        for path in self.files[DAMAGED]:
            damage(path)
        self.files[FOREIGN] = write_series(folder / "in", FOREIGN, 2, SeriesDescription=OTHER)
        self.unsent = [path for name in self.random.sample(list(self.files), series) for path in self.files[name]]

    def send(self, count: int) -> None:
        """Send some images, as scanners do, also while workers are busy."""
        for path in self.unsent[:count]:
            self.archive.store(path)
        del self.unsent[:count]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WORKER, str(self.retry_s), "worker", *arguments, str(self.rules)]
        with (self.folder / "workers.log").open("ab") as log:
            environment = os.environ | {"TMPDIR": str(self.tmp)}
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def kill_a_worker(self) -> None:
        number = self.random.randrange(len(self.workers))
        worker = self.workers[number]
        self.wait_for_start(worker)
        time.sleep(self.random.uniform(0, LONGEST_S))
        alive = worker.poll() is None
        worker.kill()
        worker.wait()
        self.count["kills" if alive else "ended by itself"] += 1
        self.workers[number] = self.start()

    def wait_for_start(self, worker: subprocess.Popen[bytes]) -> None:
        """Return when a worker has its engine and looks for series, or has ended."""
        started = f'started", "process": {worker.pid},'
        self.wait(lambda: worker.poll() is not None or self.told(started) > 0)

    def told(self, event: str) -> int:
        """Return how often workers told of an event."""
        audit = self.state / "audit.jsonl"
        return audit.read_text().count(f'"event": "{event}') if audit.exists() else 0

    def wait(self, condition: Callable[[], bool]) -> None:
        """Return when something is so, or after a time that is long enough for it."""
        end = time.monotonic() + PATIENCE_S
        while not condition() and time.monotonic() < end:
            time.sleep(0.05)

    def kill_orthanc(self) -> None:
        seen = self.told("look failed") + self.told("put back")
        self.server.kill()
        self.wait(lambda: self.told("look failed") + self.told("put back") > seen)
        self.archive = self.server.start()
        self.count["kills of Orthanc"] += 1

    def fill_disk(self) -> None:
        filler = self.tmp / "filler"
        try:
            with filler.open("wb") as file:
                while file.write(b"\0" * 2**20):
                    file.flush()
        except OSError:
            seen = self.told("put back")
            self.wait(lambda: self.told("put back") > seen)
            self.count["full disks"] += 1
        filler.unlink()

    def states(self) -> dict[str, int]:
        if not (self.state / "ledger.sqlite").exists():
            return {}
        base = sqlite3.connect(self.state / "ledger.sqlite", timeout=30)
        try:
            return dict(base.execute("SELECT state, COUNT(*) FROM series GROUP BY state").fetchall())
        except sqlite3.OperationalError:
            # A worker has just created it.
            return {}
        finally:
            base.close()

    def open(self) -> int:
        """Return the number of series that are not finished."""
        states = self.states()
        return len(self.files) - sum(states.get(state, 0) for state in ("done", "skipped", "dead"))


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Make a folder a small disk of its own; yield whether that is allowed."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MIB}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def faults(
    folder: Path, *, series: int, kills: int, seed: int, limit_s: float, retry_s: float = retry.FIRST_S
) -> dict[str, Any]:
    """Run it all in a new folder; return the figures, with what is wrong under "problems"."""
    begin, site = time.monotonic(), Site(folder, series, seed, retry_s)
    try:
        with small_disk(site.tmp) as small:
            _run(site, kills, small, begin + limit_s)
            seconds = time.monotonic() - begin
            problems, versions = _problems(site), site.archive.versions
    finally:
        for worker in site.workers:
            worker.kill()
            worker.wait()
        site.server.kill()
    events = Counter(json.loads(line)["event"] for line in (site.state / "audit.jsonl").read_text().splitlines())
    return {
        "versions": {"lsms-rt": __version__, **versions},
        "series": series,
        "workers": WORKERS,
        **site.count,
        "states": site.states(),
        "events": dict(events),
        "seconds": round(seconds, 1),
        "problems": problems,
    }


def _run(site: Site, kills: int, small: bool, end: float) -> None:
    others = [site.kill_orthanc, site.kill_orthanc, *([site.fill_disk] if small else [])]
    site.workers = [site.start() for _ in range(WORKERS)]
    share = -(-len(site.unsent) // max(kills, 1))
    for number in range(kills):
        site.send(share)
        site.kill_a_worker()
        # The others are spread among the kills.
        if others and (number + 1) * (len(others) + 1) >= (site.count["others"] + 1) * kills:
            site.count["others"] += 1
            others.pop()()
    for other in others:
        other()
    del site.count["others"]
    site.send(len(site.unsent))
    _wait(site, end)
    taken = site.told("taken")
    for path in write_series(site.folder / "in", LATE, 1, first=len(site.files[LATE])):
        site.files[LATE].append(path)
        site.archive.store(path)
    site.wait(lambda: site.told("taken") > taken)
    _wait(site, end)
    for worker in site.workers:
        worker.send_signal(signal.SIGTERM)
    for worker in site.workers:
        assert worker.wait(60) == 0, "a worker did not end as asked"
    # What the last killed one left is swept by the next.
    assert site.start("--once").wait(120) == 0


def _wait(site: Site, end: float) -> None:
    while site.open() and time.monotonic() < end:
        time.sleep(0.1)


def _problems(site: Site) -> list[str]:
    """Return what is not as it should be."""
    found, reports = list[str](), _reports(site.archive, site.folder)
    for name, files in site.files.items():
        study, series = uids(name)
        wanted = 0 if name in (DAMAGED, FOREIGN) else 1
        images = [seen for seen in reports.get(study, ()) if series in seen]
        if len(images) != wanted:
            found.append(f"{name}: {len(images)} reports instead of {wanted}")
        elif wanted and images[0][series] != {str(dcmread(path).SOPInstanceUID) for path in files}:
            found.append(f"{name}: the report is of {len(images[0][series])} of {len(files)} images")
    states = site.states()
    if (states.get("dead"), states.get("skipped")) != (1, 1):
        found.append(f"states are {states}")
    kinds = Counter(
        (row["ParentStudy"], row["MainDicomTags"]["Modality"]) for row in site.archive.request("/series?expand")
    )
    found += [f"{number} series {kind} in a study" for (_, kind), number in kinds.items() if number > 1]
    # ONNX Runtime's own, a random number
    left = [path.name for path in site.tmp.iterdir() if path.name != ".ses"] + [
        path.name for path in site.state.glob("worker*.lock")
    ]
    return found + [f"left behind: {name}" for name in left]


def _reports(archive: Archive, folder: Path) -> dict[str, list[dict[str, set[str]]]]:
    """Return for each study the images, by series, that its reports are of."""
    found: dict[str, list[dict[str, set[str]]]] = {}
    for row in archive.request("/series?expand"):
        if row["MainDicomTags"]["Modality"] != "SR":
            continue
        for key in row["Instances"]:
            path = folder / "report.dcm"
            path.write_bytes(archive.content(f"/instances/{key}/file"))
            ds = dcmread(path)
            (study,) = ds.CurrentRequestedProcedureEvidenceSequence
            images = {
                str(item.SeriesInstanceUID): {str(one.ReferencedSOPInstanceUID) for one in item.ReferencedSOPSequence}
                for item in study.ReferencedSeriesSequence
            }
            found.setdefault(str(ds.StudyInstanceUID), []).append(images)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="let everything fail while workers do series of a real Orthanc")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--series", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=float, default=3600, metavar="S", help="seconds until what is open is missing")
    given = parser.parse_args()
    figures = faults(given.output, series=given.series, kills=given.kills, seed=given.seed, limit_s=given.limit)
    print(json.dumps(figures, indent=2))
    return int(bool(figures["problems"]))


if __name__ == "__main__":
    sys.exit(main())
