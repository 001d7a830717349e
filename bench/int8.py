"""What INT8 costs in accuracy: ``python -m lsms_rt.bench.int8 --calibration DIR --phantom DIR --json FILE``.

The demo weights in fp32, fp16 and INT8 by a recipe, and with every layer in INT8 by each method of ranges, on the test
split of a data set through ONNX Runtime.  Beside it the time of a slice there, all engines in random order within each
round: it says what INT8 does not do on a CPU, and nothing of a GPU.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsms_rt.calibration.calibrate import CalibrateOptions
from lsms_rt.calibration.candidate import open_candidates
from lsms_rt.calibration.ranges import METHODS, ranges_of
from lsms_rt.calibration.recipe import GRAPHS, read_recipe
from lsms_rt.calibration.sensitivity import Effect, Probe
from lsms_rt.calibration.statistics import compare_answers
from lsms_rt.data import demo_calibration, demo_engine
from lsms_rt.datasets.choose import choose
from lsms_rt.datasets.questions import Answer, questions
from lsms_rt.datasets.refhl import Annotation, read_annotations
from lsms_rt.engine import open_directory
from lsms_rt.export.build import BuildOptions, build_engine
from lsms_rt.export.gate import GateOptions
from lsms_rt.export.graph.qdq import macs_share
from lsms_rt.segmenter import Segmenter

from .accuracy import evaluate
from .provenance import provenance

ROUNDS, WARM_UP = 30, 3


@dataclass(frozen=True)
class Kind:
    """One engine of the comparison, and its graphs as they are stored."""

    name: str
    segmenter: Segmenter
    graphs: dict[str, bytes]
    effect: Effect | None = None  # of the logits, where it was measured


def measure(calibration: Path, phantom: Path, limit: int | None, work: Path) -> dict[str, Any]:
    """All rows, as the module says; engines that must be built are built in ``work``."""
    rows = read_annotations(phantom, "test")[:limit]
    with ExitStack() as stack:
        kinds = _kinds(calibration, phantom, work, stack)
        answers: dict[str, list[Answer]] = {}
        table = []
        for kind in kinds:
            accuracy, answers[kind.name] = evaluate(kind.segmenter, rows)
            table.append(
                {
                    "name": kind.name,
                    "macs_share": round(macs_share(kind.graphs), 4),
                    "logits": kind.effect and {"sqnr_db": kind.effect.sqnr_db, "noise": kind.effect.noise},
                    "graphs_mb": round(sum(map(len, kind.graphs.values())) / 1e6, 2),
                    "accuracy": accuracy.to_dict(),
                    "against_fp32": compare_answers(answers["fp32"], answers[kind.name]).to_dict(),
                }
            )
            print(json.dumps(table[-1]), flush=True)
        times = _times(kinds, rows[0])
    for row in table:
        row["time_to_fp32"] = times[str(row["name"])]
    return {
        "what": "demo weights on RefHL-Phantom, test split, through ONNX Runtime on a CPU",
        "time": f"median of {ROUNDS} ratios to fp32, rounds of all engines in random order; predict, sentence cached",
        "recipe": read_recipe(calibration).method,
        "rows": table,
    } | provenance("torch", "onnxruntime")


def _kinds(calibration: Path, phantom: Path, work: Path, stack: ExitStack) -> list[Kind]:
    no_gate = GateOptions(sentences=0, accept=True)  # this is the measurement
    fp16, int8 = work / "fp16.engine", work / "int8.engine"
    build_engine(BuildOptions(precision="fp16", verify_slices=0, gate=no_gate), fp16, print)
    build_engine(BuildOptions(precision="int8", calibration=calibration, verify_slices=0, gate=no_gate), int8, print)
    found = []
    for name, path in (("fp32", demo_engine()), ("fp16", fp16), ("int8 by recipe, rest fp16", int8)):
        directory = open_directory(path)
        graphs = {graph: directory.read(f"{graph}.onnx") for graph in GRAPHS}
        found.append(Kind(name, stack.enter_context(Segmenter(path, device="cpu")), graphs))
    candidates = open_candidates(demo_engine())
    options = CalibrateOptions()
    chosen = choose(read_annotations(phantom, options.split), options.slices, options.seed)
    probed = choose(read_annotations(phantom, options.held_out_split), options.probe, options.seed)
    probe = Probe(candidates, list(questions(probed)))
    for method in METHODS:
        ranges = ranges_of(candidates, chosen, method, work)
        segmenter, _ = candidates.open(ranges)
        name = f"int8, all layers by {method}, rest fp32"
        graphs = candidates.graphs_with(ranges)
        found.append(Kind(name, stack.enter_context(segmenter), graphs, probe.effect(name, method, ranges)))
    return found


def _times(kinds: list[Kind], row: Annotation) -> dict[str, dict[str, float]]:
    """Name -> p50 of the ratio to fp32, and its quartiles."""
    spent: dict[str, list[float]] = {kind.name: [] for kind in kinds}
    order = random.Random(0)  # threads of a session spin on for a while, in the way of whoever comes next
    for number in range(WARM_UP + ROUNDS):
        for kind in order.sample(kinds, len(kinds)):
            begin = time.perf_counter()
            kind.segmenter.predict(row.image, row.sentence)
            if number >= WARM_UP:
                spent[kind.name].append(time.perf_counter() - begin)
    found = {}
    for name, times in spent.items():
        ratios = [mine / theirs for mine, theirs in zip(times, spent["fp32"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        found[name] = {"p50": round(statistics.median(ratios), 3), "p25": round(low, 3), "p75": round(high, 3)}
    return found


def table(record: dict[str, Any]) -> str:
    """The record as Markdown, as it stands in docs/int8.md."""
    lines = [
        "| engine | dense MACs in INT8 | graphs, MB | mean Dice | below 10 mm | left empty, of those true of nothing | "
        "newly painted | time to fp32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        against = row["against_fp32"]
        empty, time_ = against["emptiness"], row["time_to_fp32"]
        lines.append(
            f"| {row['name']} | {row['macs_share']:.1%} | {row['graphs_mb']:.1f} | {against['dice']['engine']:.4f} | "
            f"{against['small']['engine']:.4f} | {empty['engine']} of {empty['n']} | {empty['newly_painted']} | "
            f"{time_['p50']:.2f} ({time_['p25']:.2f} to {time_['p75']:.2f}) |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--calibration", type=Path, default=demo_calibration(), help="recipe (default: the bundled one)"
    )
    parser.add_argument("--phantom", type=Path, required=True, help="RefHL-Phantom, seed 0: lsms-rt phantom -o DIR")
    parser.add_argument("--limit", type=int, help="only the first N sentences (default: all)")
    parser.add_argument("--json", type=Path, help="file to write (default: print only)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        record = measure(options.calibration, options.phantom, options.limit, Path(work))
    text = json.dumps(record, indent=1)
    print(table(record))
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
