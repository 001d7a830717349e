"""Verify and time everything that needs a GPU: ``python -m lsms_rt.bench.gpu.check`` (``make gpu-check``).

Runs the units of ``plan.py``, each in a process of its own, until the time is over.  Nothing that goes wrong stops it:
every unit ends as right, wrong (with its trace) or not run (with its reason), and what was measured stays, marked where
verification failed.  Files in the output folder:

- ``rows.jsonl``: every row as soon as it arrives; the first one holds device, versions and commit.
- ``log.txt``: what the units printed.
- ``summary.json``: states, traces and the models' times; written again after every section.

Without an output folder (``--out``, or the environment variable OUT), the records that ``lsms-rt bench report`` reads
are written to bench/results/DEVICE as well; ``python -m lsms_rt.bench.gpu.summary`` makes them from ``rows.jsonl``.

The exit code is 0 if everything that ran was right, 1 if something was wrong, 3 if there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lsms_rt.atomic import write_text
from lsms_rt.bench.provenance import provenance
from lsms_rt.errors import LsmsError
from lsms_rt.model.config import PRESETS

from . import plan
from .collect import Run
from .row_file import RowFile
from .summary import RUN, exit_code, summary, text, write_records

PACKAGES = ("torch", "triton", "numpy", "cuda-bindings", "pycuda", "tensorrt", "tensorrt-rtx")
# Processes at a time, at most: each has a context of half a gigabyte on the GPU.
JOBS = 12


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    units = [unit for unit in plan.plan(options.only, options.preset) if not options.skip.search(unit.name)]
    if options.plan:
        print(plan.described(units))
        return 0
    gpu, problem = find_gpu()
    if gpu is None:
        print(f"error: {problem}; on a machine with a GPU this would run, in {options.seconds:.0f} s:", file=sys.stderr)
        print(plan.described(units), file=sys.stderr)
        return 3
    results = Path("bench/results") / re.sub("[^a-z0-9]+", "-", gpu.lower()).strip("-")
    run = run_units(units, options.out or results, options, gpu)
    found = summary(run.rows)
    if options.out is None:
        with suppress(OSError, LsmsError):
            write_records(run.rows, results)
    print(text(found))
    return exit_code(found) or (1 if run.file.problem else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out = os.environ.get("OUT")
    parser.add_argument("--seconds", type=float, default=540, help="time for everything (default: %(default)s)")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path(out) if out else None,
        help="folder for the files (default: the environment's OUT, else bench/results/DEVICE)",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", choices=list(plan.SECTIONS), default=list(plan.SECTIONS), help="sections (default: all)"
    )
    parser.add_argument(
        "--skip", metavar="REGEX", type=_regex, default="(?!)",
        help="skip units whose name this matches (see rows.jsonl for names)",
    )  # fmt: skip
    parser.add_argument(
        "--preset", nargs="+", choices=list(PRESETS), default=["base", "tiny"],
        help="models, the most important one first (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=int, default=max(1, min(JOBS, (os.cpu_count() or 2) - 1)),
        help="processes that verify at a time (default here: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--commit", default=os.environ.get("LSMS_RT_COMMIT"), help="commit of the code, outside of a git clone"
    )
    parser.add_argument("--plan", action="store_true", help="print what would run, and end")
    return parser


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error


def find_gpu() -> tuple[str | None, str]:
    """Return the first GPU's name, None without one, and then why; asked elsewhere: no driver is loaded here."""
    code = "from lsms_rt.machine.gpu import query_driver as q; d = q(); print(d.problem or ''); print(d.gpus[0].name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    problem, _, name = done.stdout.partition("\n")
    return (name.strip() or None), problem or "the NVIDIA driver does not answer"


def run_units(units: Sequence[plan.Unit], folder: Path, options: argparse.Namespace, gpu: str | None) -> Run:
    """Run units and write the three files; what the disk did not take is printed."""
    path = folder / "rows.jsonl"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            # An earlier run may be all there is of a GPU.
            shutil.move(path, folder / "rows.before.jsonl")
    file, say = RowFile(path), _log(folder / "log.txt")
    run = Run(
        options.seconds, file, jobs=options.jobs, say=say, finished=lambda run: _finished(run, folder / "summary.json")
    )
    header = provenance(*PACKAGES, gpu=gpu) | ({"commit": options.commit} if options.commit else {})
    run.add({"kind": RUN, **header, "seconds": options.seconds, "units": len(units)})
    try:
        run.units(units)
    finally:
        _write_summary(summary(run.rows), folder / "summary.json")
        unsaved = file.close()
        if unsaved:
            print(f"error: {path} could not be written ({file.problem}); its rows follow", file=sys.stderr)
            print(unsaved, end="")
    return run


def _finished(run: Run, path: Path) -> None:
    """Print how the last section ended, and write the summary."""
    found = summary(run.rows)
    section, states = list(found["sections"].items())[-1]
    print(f"{section}: " + ", ".join(f"{n} {state}" for state, n in states.items()), file=sys.stderr, flush=True)
    _write_summary(found, path)


def _write_summary(found: dict[str, Any], path: Path) -> None:
    # As far as the disk allows: all of it can be made from the rows.
    with suppress(OSError, LsmsError):
        write_text(path, json.dumps(found, indent=1, allow_nan=False) + "\n")


def _log(path: Path) -> Callable[[str], None]:
    """Return a function that appends to a file, as far as the disk allows."""

    def say(words: str) -> None:
        with suppress(OSError), path.open("a") as log:
            log.write(words)

    return say


if __name__ == "__main__":
    sys.exit(main())
