"""``lsms-rt archive``: every series of an archive, with Ray Data."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lsms_rt.errors import InputError
from lsms_rt.reading.stated import Stated
from lsms_rt.runs.request import Request

from .arguments import add_engine, add_lenient, add_runtime, on_unknown, options_from, runtime_options, whole_number
from .exit_codes import ExitCode
from .libraries import check_libraries
from .parser import Command
from .predict.command import add_request
from .terminal import is_interactive, show_step, status

LIBRARIES = ("ray", "pyarrow")
# Seconds between lines of progress, where there is no terminal.
EVERY_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "archive", type=Path, metavar="ARCHIVE",
        help="Parquet table with a column input, paths of series, and if needed series; or a folder of series",
    )  # fmt: skip
    add_engine(parser)
    parser.add_argument(
        "--text",
        action="append",
        required=True,
        metavar="SENTENCE",
        help="what to segment; repeat it to ask for several",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR",
        help="write measurements.parquet, and a folder for each series, as predict does; resumes if it exists",
    )  # fmt: skip
    parser.add_argument(
        "--actors", type=whole_number(1, 10_000), metavar="N",
        help="processes, each with an engine, --threads CPUs and, with --device cuda, a GPU (default: all that fit)",
    )  # fmt: skip
    parser.add_argument(
        "--actors-per-gpu", type=whole_number(1, 64), default=1, metavar="K",
        help="with a GPU, so many processes share one: each reads, computes and writes by turns",
    )  # fmt: skip
    parser.add_argument(
        "--address", metavar="HOST:PORT",
        help="a Ray cluster with token authentication; all its machines need lsms-rt, and the same paths for archive, "
        "engine and output (default: start Ray on this machine, closed to others)",
    )  # fmt: skip
    parser.add_argument(
        "--retry", action="store_true",
        help="try again what has failed, also inputs that cannot be used and what processes died of",
    )  # fmt: skip
    parser.add_argument(
        "--time-limit", type=whole_number(1, 604_800), metavar="S",
        help="seconds that a series may take in all; its process is ended then, as if it had died (default: none)",
    )  # fmt: skip
    add_request(parser)
    parser.add_argument(
        "--names", action="store_true",
        help="include paths, file names and sentences in messages and outputs; they may identify a patient",
    )  # fmt: skip
    add_lenient(parser)
    add_runtime(parser)


def run(arguments: argparse.Namespace) -> int:
    check_libraries("archive", LIBRARIES, "ray")
    from lsms_rt.archive.archive import run_archive
    from lsms_rt.archive.cluster import Actors
    from lsms_rt.archive.worker import Settings
    from lsms_rt.engine import open_directory
    from lsms_rt.engine.registry import find_backend, parse_device
    from lsms_rt.machine.cpu import cpu_count

    stated = options_from(Stated, arguments)
    output = arguments.output.absolute()
    request = options_from(Request, arguments, stated=stated, series=None, shard=None, texts=False, output=output)
    kind, index = parse_device(arguments.device)
    if index:
        raise InputError(f"--device names GPU {index}, and Ray chooses a GPU for each process; give cuda")
    backend = open_directory(arguments.engine, arguments.digest).manifest.backend
    gpu = kind not in (None, "cpu") or find_backend(backend, "the engine").needs_gpu
    threads = arguments.threads or min(4, cpu_count())
    options = runtime_options(arguments) | {
        "digest": arguments.digest, "on_unknown": on_unknown(arguments), "threads": threads,
        "device": kind or ("cuda" if gpu else "cpu"),
    }  # fmt: skip
    settings = Settings(
        engine=arguments.engine.absolute(), options=options, texts=tuple(arguments.text), request=request,
        names=arguments.names, time_limit=arguments.time_limit,
    )  # fmt: skip
    actors = Actors(count=arguments.actors, threads=threads, gpus=1 / arguments.actors_per_gpu if gpu else 0)
    done = run_archive(
        arguments.archive, settings, actors, address=arguments.address, retry=arguments.retry, progress=_Progress()
    )
    counts = done.counts
    of_all = f"{counts.complete} series complete, {counts.incomplete} incomplete, {counts.failed} failed"
    print(f"{of_all}; something found in {counts.found}")
    if done.resumed:
        status(f"{done.resumed} series already done, skipped")
    if counts.failed or counts.incomplete:
        status("see the columns status and error of measurements.parquet")
    return ExitCode.PARTIAL if counts.failed or counts.incomplete else ExitCode.DONE


class _Progress:
    """Shows how many series are done: on a terminal always, elsewhere a line a minute."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: int, failed: int, total: int) -> None:
        if is_interactive():
            show_step(f"series, {failed} without a result", done, total)
        elif time.monotonic() - self._last >= EVERY_S:
            self._last = time.monotonic()
            status(f"{done} of {total} series, {failed} of this run without a result")


COMMAND = Command(
    name="archive", help="predict every series of an archive, with Ray", add_arguments=add_arguments, run=run
)
