"""``lsms-rt worker``: segments what comes into an archive."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsms_rt.errors import InputError

from .arguments import add_json, add_runtime, engine_path, runtime_options, whole_number
from .exit_codes import ExitCode
from .libraries import check_libraries
from .parser import Command
from .terminal import status

if TYPE_CHECKING:
    from lsms_rt.archive_worker.ledger import Ledger
    from lsms_rt.archive_worker.rules import Rules

LIBRARIES = ("yaml", "httpx", "highdicom")
ACTIONS = ("status", "retry")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="+", metavar="[status|retry] RULES.yaml",
        help="the file that names archive, engine, rules and sentences (docs/worker.md); before it, status tells what "
        "is queued, done and given up, and retry queues again what was given up",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="end when no series is queued (default: watch for ever)")
    parser.add_argument(
        "--metrics-port", type=whole_number(1, 65535), metavar="P",
        help="tell Prometheus metrics at 127.0.0.1:P (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--row", type=whole_number(1, 2**31), metavar="N", help="retry this row of the ledger (default: all given up)"
    )
    parser.add_argument("--names", action="store_true", help="status: show SeriesInstanceUIDs, too")
    add_runtime(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    *action, rules_file = arguments.words
    if len(action) > 1 or set(action) - set(ACTIONS):
        raise InputError(f"{len(arguments.words)} arguments; give RULES.yaml, or {' or '.join(ACTIONS)} before it")
    # prometheus_client only where metrics are told
    wanted = (*LIBRARIES, *(() if arguments.metrics_port is None else ("prometheus_client",)))
    check_libraries("worker", wanted, "worker")
    from lsms_rt.archive_worker.rules import read_rules

    rules = read_rules(Path(rules_file))
    if not action:
        if arguments.names:
            raise InputError("--names is of worker status; a worker tells no names")
        _work(arguments, rules)
        return ExitCode.DONE
    return _on_ledger(rules, _status if action == ["status"] else _retry, arguments)


def _work(arguments: argparse.Namespace, rules: Rules) -> None:
    from lsms_rt.archive_worker.start import started
    from lsms_rt.segmenter import Segmenter

    engine, options = engine_path(rules.engine), runtime_options(arguments)
    with (
        Segmenter(engine, digest=rules.digest, **options) as segmenter,
        started(segmenter, rules, arguments.metrics_port) as loop,
    ):
        status("the worker watches the archive (research software, not a medical device; Ctrl-C stops)")
        loop.run(once=arguments.once)


def _on_ledger(rules: Rules, do: Callable[[Ledger, argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    from lsms_rt.archive_worker.database import NAME
    from lsms_rt.archive_worker.ledger import Ledger

    if not (rules.state / NAME).exists():
        raise InputError("no worker has run with this rules file yet; start one with lsms-rt worker RULES.yaml")
    ledger = Ledger(rules.state)
    try:
        return do(ledger, arguments)
    finally:
        ledger.close()


def _status(ledger: Ledger, arguments: argparse.Namespace) -> int:
    """Tell what is queued, done and given up; the exit code says whether something was given up."""
    counts, rows = ledger.counts(), ledger.rows("running", "queued", "dead")
    for row in rows:
        uid = row.pop("uid")
        if arguments.names:
            row["series"] = uid
    if arguments.json:
        print(json.dumps({"counts": counts, "cursor": ledger.cursor(), "series": rows}, indent=2))
    else:
        print(", ".join(f"{number} {state}" for state, number in counts.items()))
        for row in rows:
            if row["state"] != "queued" or row["reason"]:
                print(_line(row))
    return ExitCode.PARTIAL if counts["dead"] else ExitCode.DONE


def _line(row: dict[str, Any]) -> str:
    since = datetime.fromtimestamp(row["since"]).astimezone().isoformat(timespec="seconds")
    reason, series = (f": {row[key]}" if row.get(key) else "" for key in ("reason", "series"))
    return f"row {row['row']}{series}: {row['state']} since {since}, {row['attempts']} failed attempts{reason}"


def _retry(ledger: Ledger, arguments: argparse.Namespace) -> int:
    count = ledger.retry(arguments.row)
    if arguments.row is not None and not count:
        raise InputError(f"row {arguments.row} was not given up; lsms-rt worker status lists those that were")
    print(f"{count} queued again")
    return ExitCode.DONE


COMMAND = Command(
    name="worker", help="segment what comes into an archive, by rules", add_arguments=add_arguments, run=run
)
