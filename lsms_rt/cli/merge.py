"""``lsms-rt merge``: one result of the parts that ``predict --shard`` wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

from lsms_rt.errors import InputError
from lsms_rt.privacy import one_line
from lsms_rt.runs.table import LEFT_OUT

from .arguments import add_json
from .exit_codes import ExitCode
from .parser import Command
from .terminal import status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", nargs="+", type=Path, metavar="FOLDER", help="what predict --shard wrote to with -o; one, or several"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR",
        help="folder for results.json and measurements.csv (default: FOLDER, if it is one)",
    )  # fmt: skip
    parser.add_argument(
        "--names", action="store_true", help="include file names in messages; they may identify a patient"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    import json

    from lsms_rt.runs.merge import merge

    if arguments.output is None and len(arguments.folder) > 1:
        raise InputError(f"{len(arguments.folder)} folders are given, and no place for the whole; add -o DIR")
    document = merge(arguments.folder, arguments.output or arguments.folder[0])
    if arguments.json:
        print(json.dumps(document, indent=2))
    else:
        of_run = document["run"]
        counts = f"{of_run['slices']} slices, {of_run['answers']} answers, something found in {of_run['found']}"
        print(f"{len(document['shards'])} shards, {document['inputs']} inputs, {counts}")
    left_out = [f"{key.replace('_', ' ')}: {reason}" for key in LEFT_OUT for reason in document[key]]
    for line in left_out:
        # It is out of a file.
        status(one_line(line))
    return ExitCode.PARTIAL if left_out else ExitCode.DONE


COMMAND = Command(name="merge", help="join the results of predict --shard", add_arguments=add_arguments, run=run)
