"""``lsms-rt evaluate``: measure an engine's accuracy on a data set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsms_rt.atomic import write_text

from .arguments import add_dataset, add_engine, add_json, add_names, add_runtime, runtime_options, whole_number
from .parser import Command

if TYPE_CHECKING:
    from lsms_rt.bench.accuracy.evaluate import Accuracy

# printed in this order: (heading, [(figure, its text)])
FIGURES: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "",
        (
            ("cases", "cases"),
            ("slices", "slices"),
            ("sentences", "sentences"),
            ("partly_understood", "sentences that are understood in part"),
            ("not_understood", "sentences that are not understood, asked all the same"),
            ("unanswered", "other sentences, left out: the engine knows no word of them"),
        ),
    ),
    (
        "true sentences (the slice holds what they mean)",
        (
            ("dice", "mean Dice"),
            ("dice_by_meaning", "mean Dice, wordings of one meaning counted once"),
            ("dice_other", "mean Dice of another lesion than the slice's first sentence means"),
            ("missed", "missed: share with an empty mask"),
        ),
    ),
    ("false sentences (it does not)", (("silence", "specificity: share with an empty mask"),)),
    (
        "where the mask lies (share of its pixels)",
        (
            ("on_target", "on what is meant"),
            ("on_others", "on other lesions"),
            ("elsewhere", "elsewhere"),
            ("wrong_lesion", "masks more on other lesions than on what is meant"),
            ("told_apart", "pairs of lesions of a slice told apart"),
        ),
    ),
    (
        "two wordings of one meaning",
        (("paraphrase_dice", "mean Dice of their masks"), ("paraphrase_flips", "share with exactly one mask empty")),
    ),
)


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
        "-o", "--output", type=Path, metavar="FILE.json",
        help="write a record for lsms-rt bench report (default: none)",
    )  # fmt: skip
    add_names(parser)
    add_runtime(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    from lsms_rt.bench.accuracy.answers import save_answers
    from lsms_rt.bench.accuracy.evaluate import evaluate
    from lsms_rt.bench.accuracy.lines import reference_lines
    from lsms_rt.bench.records import ACCURACY, record_of
    from lsms_rt.datasets.refhl import read_annotations
    from lsms_rt.segmenter import Segmenter

    rows = read_annotations(arguments.dataset, arguments.split)[: arguments.limit]
    # Sentences that are not understood are counted; they do not end the run.
    options = runtime_options(arguments) | {"on_unknown": "warn"}
    with Segmenter(arguments.engine, digest=arguments.digest, **options) as segmenter:
        accuracy, judged = evaluate(segmenter, rows)
        digest, manifest = segmenter.digest, segmenter.manifest
    if arguments.answers is not None:
        save_answers(arguments.answers, judged, arguments.names)
    lines = reference_lines(arguments.dataset, rows)
    if arguments.output is not None:
        what = f"{manifest.weights_note}: an engine of {manifest.backend} in {manifest.precision}"
        record = record_of(
            ACCURACY,
            (manifest.backend,),
            what=f"{what}; {f'split {arguments.split}' if arguments.split else 'all splits'}",
            engine=digest,
            accuracy=accuracy.to_dict(),
            reference_lines=lines,
        )
        write_text(arguments.output, json.dumps(record, indent=2) + "\n")
    if arguments.json:
        figures = accuracy.to_dict() | {"reference_lines": lines}
        print(json.dumps({"engine": digest, "split": arguments.split} | figures, indent=2, allow_nan=False))
        return
    print("\n".join([*_figures(accuracy), *_lines(lines), *_tables(accuracy)]))


def _figures(accuracy: Accuracy) -> list[str]:
    values = accuracy.to_dict()
    text = []
    for heading, figures in FIGURES:
        text += [heading] if heading else []
        for name, what in figures:
            text.append(f"  {what:72} {_number(values[name])}{_interval(accuracy.intervals.get(name))}")
    if accuracy.dice_by_diameter_mm:
        text.append("mean Dice by diameter")
        text += [f"  {f'{bin_} mm':72} {_number(dice)}" for bin_, dice in accuracy.dice_by_diameter_mm.items()]
    if accuracy.presence is not None:
        presence = accuracy.presence
        text.append("the score as a classifier of true and false sentences")
        text.append(f"  {'area under the ROC curve':72} {_number(presence.auroc)}")
        for share, dice in presence.dice_at_silence.items():
            missed = presence.missed_at_silence[share]
            text.append(f"  {f'mean Dice at specificity {share} (missed: {missed:.3f})':72} {_number(dice)}")
        text.append(f"  {'calibration error':72} {_number(presence.calibration_error)}")
    return text


def _lines(lines: dict[str, dict[str, float | None]]) -> list[str]:
    text = ["reference: perfect outlines, of these words only (mean Dice, specificity)"]
    return text + [f"  {name:72} {_number(line['dice'])}  {_number(line['silence'])}" for name, line in lines.items()]


def _tables(accuracy: Accuracy) -> list[str]:
    text = []
    for name, table in accuracy.tables.items():
        heads = ("true", "Dice", "missed", "Dice where not empty", "false", "specificity")
        text.append(f"{f'by {name}':32}" + "".join(f"{head:>{max(8, len(head) + 2)}}" for head in heads))
        for key, row in table.items():
            values = (row.true, row.dice, row.missed, row.dice_where_painted, row.false, row.silence)
            cells = (f"{_number(v):>{max(8, len(head) + 2)}}" for head, v in zip(heads, values, strict=True))
            text.append(f"  {key:30}" + "".join(cells))
    return text


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"  (95 %: {interval[0]:.3f} to {interval[1]:.3f})"


COMMAND = Command(
    name="evaluate", help="measure an engine's accuracy on a data set", add_arguments=add_arguments, run=run
)
