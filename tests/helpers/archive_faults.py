"""``lsms-rt archive`` with actors that die, for ``python -c "import archive_faults; archive_faults.main()" ARGUMENTS``.

The environment says where: ``ALWAYS`` and ``ONCE`` are numbers of series, ``SLOW`` seconds that each series takes more,
``LISTENING`` a file for the addresses, other than loopback ones, at which the processes of Ray listen.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

from lsms_rt.archive import cluster
from lsms_rt.archive.worker import SeriesWorker
from lsms_rt.cli.main import main as cli

# as /proc/net/tcp and tcp6 write 127.0.0.1, ::1 and ::ffff:127.0.0.1
LOOPBACK = re.compile(r"0100007F|0{24}01000000|0{16}FFFF00000100007F")


class Dying(SeriesWorker):
    """Kills its process in the midst of a series."""

    def _predicted(self, segmenter: Any, number: int, *rest: Any) -> dict[str, Any]:
        if "LISTENING" in os.environ and not Path(os.environ["LISTENING"]).exists():
            Path(os.environ["LISTENING"]).write_text(json.dumps(listening()))
        record = super()._predicted(segmenter, number, *rest)
        time.sleep(float(os.environ.get("SLOW", 0)))
        if str(number) in os.environ.get("ALWAYS", "").split():
            os.kill(os.getpid(), signal.SIGKILL)
        if str(number) in os.environ.get("ONCE", "").split() and self._state.tries(number) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return record


def listening() -> dict[str, list[str]]:
    """All listening sockets of the processes of Ray; "open" are those that other machines reach."""
    sockets: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                sockets[fields[9]] = fields[1]
    raylet = os.getppid()
    driver = int(Path(f"/proc/{raylet}/stat").read_text().rpartition(")")[2].split()[1])
    token = f"RAY_AUTH_TOKEN={os.environ['RAY_AUTH_TOKEN']}".encode()
    found: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(process.name) == driver or token in (process / "environ").read_bytes().split(b"\0"):
                links = (os.readlink(link) for link in (process / "fd").iterdir())
                found |= {sockets[inode] for link in links if (inode := link[8:-1]) in sockets}
        except OSError:
            # It has ended, or a descriptor was closed.
            continue
    return {"all": sorted(found), "open": sorted(a for a in found if not LOOPBACK.fullmatch(a.partition(":")[0]))}


def main() -> None:
    cluster.SeriesWorker = Dying  # type: ignore[misc]
    sys.exit(cli(sys.argv[1:]))
