"""Arguments of ``lsms-rt predict``, and what it prints."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsms_rt.engine.manifest import MAX_BATCH
from lsms_rt.errors import InputError
from lsms_rt.reading.stated import Stated
from lsms_rt.runs.jobs import EXAMPLE, Job, jobs_of, read_jobs
from lsms_rt.runs.request import Request
from lsms_rt.runs.shard import Shard, in_stable_order
from lsms_rt.writing.seg import SEG_TYPES

from ..arguments import (
    add_engine,
    add_json,
    add_lenient,
    add_runtime,
    on_unknown,
    options_from,
    runtime_options,
    whole_number,
)
from ..exit_codes import ExitCode
from ..parser import Command
from ..terminal import progress_bar, status

if TYPE_CHECKING:
    from lsms_rt.runs.report import Report
    from lsms_rt.segmenter import Segmenter

    from .remote import RemoteSegmenter

UNDERSTOOD = {"partly": "partly understood", "no": "not understood, and the answer may be another lesion's"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_engine(parser)
    parser.add_argument(
        "input", nargs="*", type=_path, metavar="INPUT",
        help="DICOM file, folder, DICOMDIR or ZIP; NIfTI; NPY in HU; PNG",
    )  # fmt: skip
    parser.add_argument(
        "--text", action="append", default=[], metavar="SENTENCE",
        help='what to segment, e.g. "the cyst in the left lobe of the liver"; repeat it to ask for several lesions of '
        "every input",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=Path, metavar="FILE.json",
        help=f"inputs and sentences, in the place of INPUT and --text (default: none): {EXAMPLE}",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR",
        help="write overlays, masks, a montage and results.json; resumes if it exists (default: print only)",
    )  # fmt: skip
    parser.add_argument(
        "--shard", type=_shard, metavar="I/N",
        help="process every Nth input from the Ith on, into DIR/shard-I-of-N, for lsms-rt merge; inputs are numbered "
        "in the order of their sorted paths, those of --jobs as they are (default: process all)",
    )  # fmt: skip
    parser.add_argument(
        "--series",
        metavar="ID",
        help="which series, where an input holds several; the error lists them (default: the only one)",
    )
    add_request(parser)
    parser.add_argument(
        "--names", action="store_true",
        help="include file names and sentences in messages and outputs; they may identify a patient",
    )  # fmt: skip
    parser.add_argument(
        "--server", metavar="URL",
        help="let lsms-rt serve compute, e.g. http://127.0.0.1:8765; ENGINE is then the name of an engine there "
        "(default: this machine)",
    )  # fmt: skip
    parser.add_argument(
        "--api-key-file", type=Path, metavar="F",
        help="file with the server's key (default: LSMS_RT_API_KEY, else none)",
    )  # fmt: skip
    add_lenient(parser)
    add_runtime(parser)
    add_json(parser)


def add_request(parser: argparse.ArgumentParser) -> None:
    """Add what is stated of the inputs, the batch, and which files are written."""
    parser.add_argument(
        "--window", type=float, nargs=2, metavar=("LEVEL", "WIDTH"),
        help="HU range that an 8-bit image shows, e.g. 50 350 (default: reject 8-bit images)",
    )  # fmt: skip
    parser.add_argument(
        "--orientation", choices=["axial"],
        help="state that inputs which do not hold their orientation are in the usual axial view: the patient's right "
        "at the left edge, the front at the top (default: reject DICOM files without one)",
    )  # fmt: skip
    parser.add_argument(
        "--rescale", type=float, nargs=2, metavar=("SLOPE", "INTERCEPT"),
        help="HU = SLOPE * stored value + INTERCEPT, for DICOM files that lack them (default: reject such files)",
    )  # fmt: skip
    parser.add_argument(
        "--spacing", type=float, nargs=2, metavar=("DY", "DX"),
        help="mm between rows and between columns, for inputs that do not hold it (default: areas in mm2 are unknown)",
    )  # fmt: skip
    parser.add_argument(
        "--as-one-series",
        action="store_true",
        help="take DICOM files without a SeriesInstanceUID as one series (default: only if all else agrees)",
    )
    parser.add_argument(
        "--batch", type=whole_number(1, MAX_BATCH), metavar="N",
        help="images per call of the engine, where a slice counts once per sentence (default: the engine's largest "
        "batch)",
    )  # fmt: skip
    parser.add_argument(
        "--seg", action="store_true", help="write a DICOM Segmentation of each input in which something was found"
    )
    parser.add_argument(
        "--empty-seg", action="store_true", help="write a DICOM Segmentation of every input, also if nothing was found"
    )
    parser.add_argument(
        "--seg-type", choices=SEG_TYPES, default="binary",
        help="how the Segmentation holds its segments: binary, the older form, which more viewers read, or labelmap, "
        "where they must not overlap (default: binary)",
    )  # fmt: skip
    parser.add_argument(
        "--sr", action="store_true",
        help="write a DICOM report (TID 1500) of the measures of each input, and the Segmentation that it refers to",
    )  # fmt: skip
    parser.add_argument(
        "--sc", action="store_true",
        help="write a key image (DICOM Secondary Capture) of the largest cross-section of what was found",
    )  # fmt: skip
    parser.add_argument(
        "--rtstruct", action="store_true",
        help="write a DICOM RT Structure Set of each input in which something was found",
    )  # fmt: skip
    parser.add_argument("--nifti", action="store_true", help="write a mask volume in the input's geometry")


def _path(text: str) -> Path:
    """Parse a path (an argparse type); an empty one would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _shard(text: str) -> Shard:
    """Parse "3/8" (an argparse type)."""
    index, _, count = text.partition("/")
    if not (index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
        raise argparse.ArgumentTypeError("not I/N; give e.g. 3/8")
    try:
        return Shard(index=int(index[:9]), count=int(count[:9]))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(arguments: argparse.Namespace) -> int:
    jobs = _jobs(arguments)
    request = options_from(Request, arguments, stated=options_from(Stated, arguments), texts=False)
    from lsms_rt.runs import run as inputs

    with _opened(arguments) as segmenter:
        try:
            report = inputs.run(segmenter, jobs, request, progress_bar)
        except KeyboardInterrupt:
            if request.output is not None:
                status("what is done is kept; the same command goes on from there")
            raise
    _print_results(report, arguments.json)
    _print_remarks(report)
    if request.output is not None and not arguments.json:
        folder = request.output if arguments.names else "the output folder"
        folder = folder if request.shard is None else f"{folder}, {request.shard.folder}"
        print(f"overlays, masks and results.json are in {folder}")
    if report.error is not None:
        raise report.error
    return ExitCode.DONE if report.is_complete and not report.not_written else ExitCode.PARTIAL


def _opened(arguments: argparse.Namespace) -> Segmenter | RemoteSegmenter:
    """Return the engine, of this machine or behind a server."""
    if arguments.server is not None:
        from .remote import open_remote

        return open_remote(arguments)
    from lsms_rt.segmenter import Segmenter

    options = runtime_options(arguments) | {"on_unknown": on_unknown(arguments)}
    return Segmenter(arguments.engine, digest=arguments.digest, **options)


def _jobs(arguments: argparse.Namespace) -> list[Job]:
    if arguments.jobs is not None:
        if arguments.input or arguments.text:
            raise InputError("--jobs holds the inputs and their sentences; leave INPUT and --text out")
        return read_jobs(arguments.jobs)
    if not arguments.input or not arguments.text:
        raise InputError(f"no {'--text' if arguments.input else 'INPUT'} is given; give INPUT and --text, or --jobs")
    paths = arguments.input if arguments.shard is None else in_stable_order(arguments.input)
    return jobs_of(paths, arguments.text)


def _print_results(report: Report, as_json: bool) -> None:
    from .lines import lines

    if as_json:
        print(report.to_json())
        return
    for line in lines(report.results, report.series, report.sentences, report.inputs > 1):
        print(line)


def _print_remarks(report: Report) -> None:
    """Print what the user must know beside the answers."""
    from lsms_rt.sentences.reading import listed

    _print_readings(report.sentences)
    for reason in report.not_read:
        status(f"not read: {reason}")
    for reason in report.not_computed:
        status(f"not computed: {reason}")
    for reason in report.not_written:
        status(f"not written: {reason}")
    for message in report.kept:
        status(f"warning: {message}")
    if report.removed:
        status(f"deleted, as they are no longer part of the results: {listed(sorted(report.removed))}")
    if report.resumed:
        status(f"{report.resumed} {'slices' if _single(report) else 'answers'} already done, skipped")


def _print_readings(sentences: Sequence[dict[str, Any]]) -> None:
    """Print how sentences are read; what holds of several inputs, once."""
    for line in dict.fromkeys(line for name, row in _named(sentences) for line in _reading(name, row)):
        status(line)


def _single(report: Report) -> bool:
    """Whether all inputs are asked one sentence each."""
    return all(sentence["sentence"] == 1 for sentence in report.sentences)


def _named(sentences: Sequence[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every sentence with its name, "sentence 2"; of inputs that are asked the same, once."""
    asked: dict[int, list[dict[str, Any]]] = {}
    for sentence in sentences:
        asked.setdefault(sentence["input"], []).append(sentence)
    words = [[{**s, "input": 0} for s in row] for row in asked.values()]
    same = all(row == words[0] for row in words)
    for n, row in [*asked.items()][: 1 if same else None]:
        for sentence in row:
            parts = ([] if same else [f"input {n}"]) + ([f"sentence {sentence['sentence']}"] if len(row) > 1 else [])
            yield ", ".join(parts), sentence


def _reading(name: str, sentence: dict[str, Any]) -> Iterator[str]:
    """Yield how a sentence is read, as far as that is not as it was written."""
    where = f"{name}: " if name else ""
    if sentence["understood"] != "yes":
        yield f"warning: {where}the sentence is {UNDERSTOOD[sentence['understood']]}"
    for note in sentence["notes"]:
        yield f"warning: {where}{note}"
    if "read_as" in sentence and sentence["read_as"] != sentence["text"]:
        yield f"{where}the sentence is read as: {sentence['read_as']}"
    elif name and "text" in sentence:
        yield f"{where}{sentence['text']}"


COMMAND = Command(
    name="predict", help="segment the lesion that a sentence describes", add_arguments=add_arguments, run=run
)
