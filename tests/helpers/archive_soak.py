"""``lsms-rt archive``, killed at random moments: ``archive_soak.py ARCHIVE OUT --python P --kills N``.

Actors are killed by SIGKILL, and the command by SIGKILL and SIGTERM, after which it is run again; P is a Python with
Ray.  At the end every series must have a row.  Prints what was killed, and how the series ended, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]


def actors(driver: int) -> list[int]:
    """Process numbers of the actors below a driver."""
    parents, names = {}, {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(process.name)] = (process / "cmdline").read_bytes()
        except OSError:
            continue
    found = []
    for number in parents:
        parent: int | None = number
        while parent and parent != driver:
            parent = parents.get(parent)
        if parent and names.get(number, b"").startswith(b"ray::MapWorker"):
            found.append(number)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--actors", default="2")
    given = parser.parse_args()
    chance, killed, begin = random.Random(given.seed), Counter[str](), time.monotonic()
    command = [
        given.python,
        "-m",
        "lsms_rt.cli",
        "archive",
        str(given.archive),
        "demo",
        "--text",
        "the lesion in the liver",
    ]
    command += ["-o", str(given.out), "--actors", given.actors, "--threads", "1"]
    driver: subprocess.Popen[bytes] | None = None
    while True:
        if driver is None:
            killed["starts"] += 1
            driver = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.5, 6))
        if driver.poll() in (0, 5):
            break
        assert driver.poll() is None, f"the command ended with {driver.returncode}"
        running = actors(driver.pid)
        if not running or sum(killed.values()) - killed["starts"] >= given.kills:
            continue
        what = chance.choices(("actor", "driver, SIGKILL", "driver, SIGTERM"), (8, 1, 1))[0]
        killed[what] += 1
        if what == "actor":
            os.kill(chance.choice(running), signal.SIGKILL)
            continue
        driver.send_signal(signal.SIGKILL if what.endswith("KILL") else signal.SIGTERM)
        driver.wait(60)
        driver = None
    state = [json.loads(path.read_text()) for path in (given.out / "state" / "ended").iterdir()]
    report = {
        "killed": killed, "seconds": round(time.monotonic() - begin, 1), "series": len(state),
        "ended": Counter(record["kind"] or "result" for record in state),
        "counts": json.loads((given.out / "archive.json").read_text())["counts"],
    }  # fmt: skip
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
