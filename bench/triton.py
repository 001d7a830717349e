"""``lsms-rt serve`` and Triton's server with the same engine, under the same load, one after the other.

The load is that of ``bench serve``'s closed loop, and NVIDIA's perf_analyzer if its command is given: both ask for one
slice of 512 x 512 and a sentence by KServe v2 over HTTP.  Each server has one instance with the same number of threads.
The two take turns, and the one that is not asked does nothing.

    tests/services/triton.sh
    python -m lsms_rt.bench.triton demo --threads 2 --perf-analyzer perf_analyzer
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.data import demo_engine
from lsms_rt.datasets.phantom.case import generate_case
from lsms_rt.errors import InputError
from lsms_rt.triton_server.config import TritonOptions
from lsms_rt.triton_server.export import export_model

from .options import ServeOptions
from .records import SERVERS, add_output_options, put, record_of
from .serve import MATRIX, SEED, TEXT, closed_loop, request_of, server, workers_of
from .tables import markdown
from .tritonserver import TritonServer

NAME = "engine"
OURS, TRITON = "lsms-rt serve", "Triton"
# the server's own CPU time per request: what others do on the machine changes it little
CPU = "CPU of the server, ms"


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time that processes have used; Linux tells it."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def perf_analyzer(command: Sequence[str], url: str, data: Path, clients: int, requests: int) -> dict[str, float]:
    """Let perf_analyzer send requests; return their rate and latencies.

    Raises:
        InputError: it did not measure.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        options = ["-m", NAME, "-u", url.removeprefix("http://"), "-i", "http", "--input-data", str(data)]
        options += ["--concurrency-range", str(clients), "--request-count", str(requests), "-f", str(table)]
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        if done.returncode != 0 or not table.is_file():
            raise InputError(f"perf_analyzer ended with code {done.returncode}; run it by hand: {shlex.join(options)}")
        with table.open(newline="") as file:
            (row,) = csv.DictReader(file)
    latencies = {f"p{share}, ms": float(row[f"p{share} latency"]) / 1000 for share in (50, 95, 99)}
    return {"per second": float(row["Inferences/Second"])} | latencies | {"answered": requests}


def measure(engine: Path, options: ServeOptions, command: Sequence[str]) -> list[dict[str, Any]]:
    """Measure both servers; return a row for each load."""
    hu = np.rint(generate_case(SEED, 1, MATRIX).slices[0].hu).astype(np.int16)
    body, headers = request_of(hu)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="lsms-triton-") as name:
        folder = Path(name)
        threads = options.threads
        export_model(engine, folder / "models", TritonOptions(name=NAME, threads=threads, queue=64))
        tensors = {
            "IMAGE": {"content": hu.ravel().tolist(), "shape": [1, *hu.shape]},
            "TEXT": {"content": [TEXT], "shape": [1]},
        }
        data = folder / "data.json"
        data.write_text(json.dumps({"data": [tensors]}))
        with server(engine, options) as ours, TritonServer(folder / "models", folder) as triton:
            urls = {OURS: ours, TRITON: f"http://{triton.http}"}
            pids = {OURS: workers_of(ours, with_parent=True), TRITON: triton.pids()}
            for turn, clients in enumerate(options.clients):
                # The one that comes first has no advantage.
                for which in list(urls)[:: -1 if turn % 2 else 1]:
                    url, names = urls[which], {"clients": clients, "server": which}
                    asyncio.run(closed_loop(url, body, headers, clients, 0.5))
                    begin = cpu_seconds(pids[which])
                    tally = asyncio.run(closed_loop(url, body, headers, clients, options.seconds))
                    cpu = (cpu_seconds(pids[which]) - begin) * 1000 / max(1, len(tally.times))
                    rows.append(tally.row(**names, generator="bench serve") | {CPU: cpu})
                    if command:
                        count = max(20, len(tally.times))
                        found = perf_analyzer(command, url, data, clients, count)
                        rows.append(names | {"generator": "perf_analyzer"} | found)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", help="engine directory; 'demo' is the bundled engine")
    parser.add_argument("--threads", type=int, default=1, help="of each server's instance (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8], help="(default: 1 2 4 8)")
    parser.add_argument("--perf-analyzer", default="", metavar="COMMAND", help="how perf_analyzer is started")
    add_output_options(parser)
    given = parser.parse_args(argv)
    engine = demo_engine() if given.engine == "demo" else Path(given.engine)
    options = ServeOptions(threads=given.threads, seconds=given.seconds, clients=tuple(given.clients))
    rows = measure(engine, options, shlex.split(given.perf_analyzer))
    rows.sort(key=lambda row: (row["clients"], row["generator"], row["server"]))
    for ours, triton in zip(rows[1::2], rows[::2], strict=True):
        triton["to lsms-rt serve"] = triton["per second"] / ours["per second"]
    what = (
        f"one slice of {MATRIX}x{MATRIX} and a sentence per request, {options.seconds:g} s a row; one instance in each "
        f"server, threads: {given.threads}; all on one machine"
    )
    record = record_of(SERVERS, ("onnxruntime", "fastapi", "uvicorn"), what=what, engine=engine.name, rows=rows)
    put(record, markdown(record), given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
