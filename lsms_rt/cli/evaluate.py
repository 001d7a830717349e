"""``lsms-rt evaluate``: measure an engine's accuracy on a data set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import add_dataset, add_engine, add_json, add_names, add_runtime, runtime_options, whole_number
from .parser import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    add_dataset(parser)
    parser.add_argument("--split", help="train, val or test (default: all)")
    parser.add_argument(
        "--limit", type=whole_number(1, 10**9), metavar="N", help="only the first N sentences (default: all)"
    )
    parser.add_argument(
        "--answers", type=Path, metavar="FILE", help="write a CSV with one line per sentence (default: none)"
    )
    add_names(parser)
    add_runtime(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    from lsms_rt.bench.accuracy import evaluate, save_answers
    from lsms_rt.datasets.refhl import read_annotations
    from lsms_rt.segmenter import Segmenter

    rows = read_annotations(arguments.dataset, arguments.split)
    with Segmenter(arguments.engine, **runtime_options(arguments)) as segmenter:
        accuracy, answers = evaluate(segmenter, rows[: arguments.limit])
        digest = segmenter.digest
    if arguments.answers is not None:
        save_answers(arguments.answers, answers, arguments.names)
    figures = accuracy.to_dict()
    if arguments.json:
        print(json.dumps({"engine": digest, "split": arguments.split} | figures, indent=2))
        return
    for name, value in figures.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {mean:.3f}" for key, mean in value.items())
        text = "-" if value is None else f"{value:.3f}" if isinstance(value, float) else value
        print(f"{name.replace('_', ' '):20} {text}")


COMMAND = Command(
    name="evaluate", help="measure an engine's accuracy on a data set", add_arguments=add_arguments, run=run
)
