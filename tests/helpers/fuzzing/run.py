"""The long run: thousands of damaged files and engines, a table of what came of them, and the failures as files.

    python tests/helpers/fuzzing/run.py --files 20000 --engines 2000 --seed 0 --out DIR

Ends with status 1 if anything failed. DIR/failures holds each case, DIR/fuzz.json the counts, DIR/done.jsonl every
verdict: the same command goes on where it was interrupted. Other code needs another DIR.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import platform
import sys
import time
from collections import Counter, defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# The folder tests/, so that it runs as a script, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzzing.harness import FAILURES, Verdict, make_case
from fuzzing.seeds import FORMATS
from fuzzing.workers import Job, judge_all

OUTCOMES = ("ok", "typed", *FAILURES)
_PACKAGES = ("lsms-rt", "numpy", "pydicom", "pillow", "nibabel", "onnxruntime", "tokenizers", "pylibjpeg-openjpeg")
_PACKAGES += ("pyjpegls", "python-gdcm", "highdicom")
# Files of equal failures.
_KEPT = 20


class Count:
    """Outcomes by format, equal failures once, and the failing cases as files."""

    def __init__(self, folder: Path) -> None:
        self.table: dict[str, Counter[str]] = defaultdict(Counter)
        self.failures: dict[str, list[str]] = defaultdict(list)
        self.peak: dict[str, int] = defaultdict(int)
        self._folder = folder

    def add(self, job: Job, verdict: Verdict) -> None:
        self.table[job.form][verdict.outcome] += 1
        self.peak[job.form] = max(self.peak[job.form], verdict.peak_bytes)
        sane = verdict.outcome == "ok" if job.index == 0 else verdict.outcome in ("ok", "typed")
        if sane:
            return
        if job.index == 0 and verdict.outcome == "typed":
            verdict = Verdict("wrong", f"an undamaged file is refused: {verdict.detail}", verdict.where)
            self.table[job.form]["wrong"] += 1
        same = self.failures[f"{verdict.outcome} {verdict.where}"]
        same.append(f"{job.form}-{job.seed}-{job.index}")
        if len(same) <= _KEPT:
            self._save(job, verdict)

    def _save(self, job: Job, verdict: Verdict) -> None:
        folder = self._folder / "failures" / f"{verdict.outcome}-{job.form}-{job.seed}-{job.index}"
        folder.mkdir(parents=True, exist_ok=True)
        # This file system cannot hold the name; the job makes it again.
        with contextlib.suppress(OSError, ValueError):
            make_case(*job).write(folder)
        Path(f"{folder}.txt").write_text(f"{verdict.where}\n{verdict.detail}", errors="replace")

    def lines(self) -> list[str]:
        """The table, as Markdown."""
        head = ("format", "cases", *OUTCOMES, "peak MiB")
        rows = [
            (form, sum(row[o] for o in OUTCOMES), *(row[o] for o in OUTCOMES), round(self.peak[form] / 2**20))
            for form, row in sorted(self.table.items())
        ]
        rows.append(("all", *(sum(int(row[n]) for row in rows) for n in range(1, len(head) - 1)), ""))
        return ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)]


class Journal:
    """The verdicts so far, one a line; a line that was cut off is written again."""

    def __init__(self, path: Path) -> None:
        self.known: dict[Job, Verdict] = {}
        self._before, self._begin = 0.0, time.monotonic()
        for line in path.read_text().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):
                job, verdict, self._before = json.loads(line)
                self.known[Job(*job)] = Verdict(*verdict)
        # line by line, as an interruption keeps them
        self._file = path.open("a", buffering=1)
        self._file.write("\n" if self.known else "")

    def add(self, job: Job, verdict: Verdict) -> None:
        self._file.write(json.dumps([job, dataclasses.astuple(verdict), round(self.seconds(), 1)]) + "\n")

    def seconds(self) -> float:
        """Of all runs together."""
        return self._before + time.monotonic() - self._begin


def main() -> int:
    args = _arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    count, journal = Count(args.out), Journal(args.out / "done.jsonl")
    for job, verdict in journal.known.items():
        count.add(job, verdict)
    jobs = [job for job in _jobs(args) if job not in journal.known]
    for done, (job, verdict) in enumerate(judge_all(jobs, args.workers), 1):
        journal.add(job, verdict)
        count.add(job, verdict)
        if done % 100 == 0 or done == len(jobs):
            failed = sum(map(len, count.failures.values()))
            print(f"\r{done} of {len(jobs)} cases, {failed} failures ", end="", file=sys.stderr)
    print(file=sys.stderr)
    print("\n".join(count.lines()))
    for what, cases in sorted(count.failures.items(), key=lambda item: -len(item[1])):
        print(f"{len(cases)} x {what}: {', '.join(cases[:3])}")
    (args.out / "fuzz.json").write_text(json.dumps(_report(args, count, journal.seconds()), indent=2) + "\n")
    return 1 if count.failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--files", type=int, default=20_000, help="files and folders for the readers, all formats together"
    )
    parser.add_argument("--engines", type=int, default=0, help="engines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for failures and counts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=FORMATS, default=list(FORMATS), help="these formats only")
    return parser.parse_args()


def _jobs(args: argparse.Namespace) -> list[Job]:
    # Rounded up.
    each = -(-args.files // len(args.only))
    jobs = [Job(form, args.seed, index) for index in range(each) for form in args.only]
    return jobs + [Job("engine", args.seed, index) for index in range(args.engines)]


def _report(args: argparse.Namespace, count: Count, seconds: float) -> dict[str, Any]:
    return {
        "what": "damaged inputs through load_slices, predict_series and the writers of PNG, SEG and NIfTI, damaged "
        "engines through Segmenter and one answer",
        "date": datetime.date.today().isoformat(),
        "seed": args.seed,
        "seconds": round(seconds, 1),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "counts": {
            form: {"cases": sum(row[o] for o in OUTCOMES), **{o: row[o] for o in OUTCOMES}}
            for form, row in sorted(count.table.items())
        },
        "peak_mib": {form: round(peak / 2**20, 1) for form, peak in sorted(count.peak.items())},
        "failures": {what: len(cases) for what, cases in count.failures.items()},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
