"""``lsms-rt phantom``: generate a synthetic data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from lsms_rt.datasets.phantom.spec import MAX_CASES, MAX_MATRIX, MAX_SEED, MIN_MATRIX, PhantomSpec

from .arguments import options_from, whole_number
from .parser import Command

MAX_WORKERS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="new folder to write")
    parser.add_argument(
        "--cases", type=whole_number(1, MAX_CASES), default=PhantomSpec.cases, metavar="N",
        help="number of cases, about ten slices each",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=whole_number(0, MAX_SEED - 1), default=PhantomSpec.seed, metavar="N",
        help="random seed; the same seed gives the same data set",
    )  # fmt: skip
    parser.add_argument(
        "--matrix", type=whole_number(MIN_MATRIX, MAX_MATRIX), default=PhantomSpec.matrix, metavar="N",
        help="rows and columns of a slice",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=whole_number(1, MAX_WORKERS), metavar="N", help="processes (default: one per core)"
    )


def run(arguments: argparse.Namespace) -> None:
    from lsms_rt.datasets.phantom.dataset import write_phantom

    spec, output = options_from(PhantomSpec, arguments), arguments.output
    slices = write_phantom(output, spec, arguments.workers)
    print(f"{output}: {spec.cases} cases, {slices} slices; for an overview see {output / 'contact_sheet.png'}")


COMMAND = Command(
    name="phantom", help="generate RefHL-Phantom, a synthetic CT data set", add_arguments=add_arguments, run=run
)
