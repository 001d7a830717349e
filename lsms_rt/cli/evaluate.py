"""``lsms-rt evaluate``: measure an engine's accuracy on a data set, or which words of its sentences matter."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsms_rt.errors import InputError

from .arguments import add_dataset, add_engine, add_json, add_names, add_runtime, runtime_options, whole_number
from .evaluate_texts import accuracy_text
from .parser import Command
from .probe_texts import probes_text
from .terminal import status

if TYPE_CHECKING:
    from lsms_rt.datasets.refhl import Annotation
    from lsms_rt.segmenter import Segmenter

TRAIN = "train"


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
    parser.add_argument(
        "--tolerance", type=_millimeters, metavar="MM",
        help="distance up to which outlines agree, for the normalized surface distance (default: 2, where the extra "
        "metrics is installed)",
    )  # fmt: skip
    parser.add_argument(
        "--probe-words", action="store_true",
        help="instead of accuracy, measure which words matter: replace each attribute of a sentence (side, density, "
        "type, size, enhancement, order, relation) by one that is true of another lesion, and by one that is true of "
        "nothing, and compare the masks",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE.json",
        help="write a record for lsms-rt bench report (default: none)",
    )  # fmt: skip
    add_names(parser)
    add_runtime(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    from lsms_rt.bench.records import write
    from lsms_rt.datasets.refhl import read_annotations
    from lsms_rt.segmenter import Segmenter

    if arguments.probe_words and (arguments.answers is not None or arguments.tolerance is not None):
        raise InputError("--probe-words writes no answers and measures no outlines; omit --answers and --tolerance")
    rows = read_annotations(arguments.dataset, arguments.split)[: arguments.limit]
    # Sentences that are not understood are counted; they do not end the run.
    options = runtime_options(arguments) | {"on_unknown": "warn"}
    with Segmenter(arguments.engine, digest=arguments.digest, **options) as segmenter:
        measure = _probes if arguments.probe_words else _accuracy
        record, figures, text = measure(segmenter, rows, arguments)
    if arguments.split is None and any(row.split == TRAIN for row in rows):
        status(
            f"warning: sentences of the split {TRAIN} are among those asked; of weights that were trained on them the "
            "figures are too good: see --split"
        )
    if arguments.output is not None:
        write(arguments.output, record)
    if arguments.json:
        about = {"engine": record["engine"], "split": arguments.split}
        print(json.dumps(about | figures, indent=2, allow_nan=False))
    else:
        print(text)


def _accuracy(
    segmenter: Segmenter, rows: list[Annotation], arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the record, the figures for --json, and the text."""
    from lsms_rt.bench.accuracy.answers import save_answers
    from lsms_rt.bench.accuracy.evaluate import evaluate
    from lsms_rt.bench.accuracy.lines import reference_lines
    from lsms_rt.bench.records import ACCURACY

    accuracy, judged = evaluate(segmenter, rows, arguments.tolerance)
    if arguments.answers is not None:
        save_answers(arguments.answers, judged, arguments.names)
    lines, values = reference_lines(arguments.dataset, rows), accuracy.to_dict()
    record = _record(ACCURACY, segmenter, arguments, accuracy=values, reference_lines=lines)
    return record, values | {"reference_lines": lines}, accuracy_text(accuracy, lines)


def _probes(
    segmenter: Segmenter, rows: list[Annotation], arguments: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the record, the figures for --json, and the text."""
    from lsms_rt.bench.probes.ask import probe_words
    from lsms_rt.bench.probes.figures import probe_figures
    from lsms_rt.bench.records import PROBES

    figures = probe_figures(rows, probe_words(segmenter, arguments.dataset, rows))
    return _record(PROBES, segmenter, arguments, **figures), figures, probes_text(figures)


def _record(kind: str, segmenter: Segmenter, arguments: argparse.Namespace, **figures: Any) -> dict[str, Any]:
    from lsms_rt.bench.records import record_of

    manifest = segmenter.manifest
    split = f"split {arguments.split}" if arguments.split else "all splits"
    limit = f", its first {arguments.limit} sentences" if arguments.limit else ""
    what = f"{manifest.weights_note}: an engine of {manifest.backend} in {manifest.precision}; {split}{limit}"
    return record_of(kind, (manifest.backend, "surface-distance"), what=what, engine=segmenter.digest, **figures)


def _millimeters(text: str) -> float:
    """Parse a distance (an argparse type); what is in its range is ``bench``'s to say."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError("the value is not a number of millimeters") from None


COMMAND = Command(
    name="evaluate", help="measure an engine's accuracy on a data set", add_arguments=add_arguments, run=run
)
