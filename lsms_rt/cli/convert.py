"""``lsms-rt convert``: turn a public data set, or a hospital's own export, into the RefHL-Seg layout."""

from __future__ import annotations

import argparse
from pathlib import Path

from lsms_rt.datasets.convert.options import KINDS, MAX_SEED, MAX_SLICES_PER_CASE, ConvertOptions

from .arguments import comma_list, options_from, whole_number
from .exit_codes import ExitCode
from .parser import Command
from .terminal import status

defaults = ConvertOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind", choices=KINDS, metavar="KIND",
        help=f"layout of SOURCE: {', '.join(KINDS)}; docs/datasets.md says what each one expects",
    )  # fmt: skip
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of the source; nothing is downloaded")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DATASET", help="new folder to write")
    parser.add_argument(
        "--slices-per-case", type=whole_number(1, MAX_SLICES_PER_CASE), default=defaults.slices_per_case, metavar="N",
        help="maximum number of slices of a scan; about a quarter of them have no lesion",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=whole_number(1, 10**9), metavar="N", help="only the first N scans (default: all)"
    )
    parser.add_argument(
        "--seed", type=whole_number(0, MAX_SEED - 1), default=defaults.seed, metavar="N",
        help="random seed of slices, sentences and splits",
    )  # fmt: skip
    parser.add_argument(
        "--lesion-label", dest="lesion_labels", type=comma_list, default=defaults.lesion_labels, metavar="LABELS",
        help="labels that are lesions, separated by commas, e.g. 'Tumor_*,cyst' (default: by the words in them)",
    )  # fmt: skip
    parser.add_argument(
        "--organ-label", dest="organ_labels", type=comma_list, default=defaults.organ_labels, metavar="LABELS",
        help="labels that are the organ around the lesions (default: by the words in them)",
    )  # fmt: skip
    parser.add_argument(
        "--license",
        default=defaults.license,
        metavar="TEXT",
        help="license of the source (default: as its folder states)",
    )
    parser.add_argument(
        "--citation",
        default=defaults.citation,
        metavar="TEXT",
        help="how to cite the source (default: as its folder states)",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out scans that cannot be used, instead of writing nothing"
    )
    parser.add_argument(
        "--names", action="store_true",
        help="seg: show file names in messages, and call cases by PatientID instead of a number",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    from lsms_rt.datasets.convert.convert import convert

    report = convert(arguments.source, arguments.output, options_from(ConvertOptions, arguments))
    for problem in report.problems:
        status(f"left out: {problem}")
    for note in report.notes:
        status(f"note: {note}")
    splits = ", ".join(f"{count} {name}" for name, count in sorted(report.splits.items()))
    print(
        f"{arguments.output}: {report.cases} scans ({splits}), {report.slices} slices, {len(report.lines)} sentences, "
        f"{report.false_sentences} of them true of nothing; look at {arguments.output / 'contact_sheet.png'}"
    )
    return ExitCode.PARTIAL if report.problems else ExitCode.DONE


COMMAND = Command(
    name="convert", help="convert a public data set, or your own, for training", add_arguments=add_arguments, run=run
)
