"""Accuracy and time below fp32: ``python -m lsms_rt.bench.int8 --calibration DIR --phantom DIR -o FILE``.

Measures the demo weights in fp32, fp16, bf16 and INT8 by a recipe, and with every layer in INT8 by each calibration
method, on the test split of a data set, on a CPU: through ONNX Runtime and, where a name says so, through OpenVINO.
Slices are timed in rounds of all engines in random order, which predicts nothing for a GPU.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lsms_rt.calibration.candidate import open_candidates
from lsms_rt.calibration.options import METHODS, CalibrateOptions
from lsms_rt.calibration.ranges import ranges_of
from lsms_rt.calibration.recipe import GRAPHS, read_recipe
from lsms_rt.calibration.sensitivity import Effect, Probe
from lsms_rt.calibration.statistics import compare_answers
from lsms_rt.data import demo_calibration, demo_engine
from lsms_rt.datasets.choose import choose
from lsms_rt.datasets.questions import Answer, questions
from lsms_rt.datasets.refhl import Annotation, read_annotations
from lsms_rt.engine import open_directory
from lsms_rt.engine.registry import OPENVINO
from lsms_rt.export.build import build_engine
from lsms_rt.export.graph.qdq import macs_share
from lsms_rt.export.options import BuildOptions, GateOptions
from lsms_rt.machine.gpu import query_driver
from lsms_rt.segmenter import Segmenter

from .accuracy.evaluate import evaluate
from .records import INT8, Record, add_output_options, put, record_of
from .tables import int8_table
from .timing import rounds, seconds

ROUNDS, WARM_UP = 30, 3


@dataclass(frozen=True)
class Variant:
    """One engine of the comparison, and its graphs as they are stored.

    ``effect`` is that on the logits, where it was measured.
    """

    name: str
    segmenter: Segmenter
    graphs: dict[str, bytes]
    effect: Effect | None = None


def measure(calibration: Path, phantom: Path, limit: int | None, work: Path) -> Record:
    """Measure all variants; engines are built in the folder ``work``."""
    rows = read_annotations(phantom, "test")[:limit]
    with ExitStack() as stack:
        variants = _variants(calibration, phantom, work, stack)
        answers: dict[str, list[Answer]] = {}
        table = []
        for variant in variants:
            accuracy, judged = evaluate(variant.segmenter, rows)
            answers[variant.name] = [one.answer for one in judged]
            table.append(
                {
                    "name": variant.name,
                    "macs_share": round(macs_share(variant.graphs), 4),
                    "logits": variant.effect and {"sqnr_db": variant.effect.sqnr_db, "noise": variant.effect.noise},
                    "graphs_mb": round(sum(map(len, variant.graphs.values())) / 1e6, 2),
                    "accuracy": accuracy.to_dict(),
                    "against_fp32": compare_answers(answers["fp32"], answers[variant.name]).to_dict(),
                }
            )
            print(f"{variant.name}: measured", file=sys.stderr)
        times = _times(variants, rows[0])
    for row in table:
        row["time_to_fp32"] = times[str(row["name"])]
    return record_of(
        INT8,
        ("torch", "onnxruntime", "openvino"),
        what="demo weights on RefHL-Phantom, test split, on a CPU, through ONNX Runtime unless a name says otherwise",
        time=f"median of {ROUNDS} ratios to fp32, rounds of all engines in random order; predict, sentence cached",
        recipe=read_recipe(calibration).method,
        rows=table,
    )


def _variants(calibration: Path, phantom: Path, work: Path, stack: ExitStack) -> list[Variant]:
    # No gate, because a loss of accuracy is to be measured.
    no_gate = GateOptions(sentences=0, accept=True)
    status = partial(print, file=sys.stderr)
    variants = []

    def add(name: str, path: Path, **options: Any) -> None:
        if options:
            build_engine(BuildOptions(verify_slices=0, gate=no_gate, **options), path, status)
        directory = open_directory(path)
        graphs = {graph: directory.read(f"{graph}.onnx") for graph in GRAPHS}
        variants.append(Variant(name, stack.enter_context(Segmenter(path, device="cpu", on_unknown="warn")), graphs))

    add("fp32", demo_engine())
    add("fp16", work / "fp16.engine", precision="fp16")
    add("int8 by recipe, rest fp16", work / "int8.engine", precision="int8", calibration=calibration)
    for rest in _openvino_precisions():
        if rest != "fp32":
            add(f"{rest}, OpenVINO", work / f"{rest}.engine", backend="openvino", precision=rest)
        name, path = f"int8 by recipe, rest {rest}, OpenVINO", work / f"int8-{rest}.engine"
        add(name, path, backend="openvino", precision="int8", calibration=calibration, rest=rest)
    candidates = open_candidates(demo_engine())
    options = CalibrateOptions()
    chosen = choose(read_annotations(phantom, options.split), options.slices, options.seed)
    probed = choose(read_annotations(phantom, options.held_out_split), options.probe, options.seed)
    probe = Probe(candidates, list(questions(probed)))
    for method in METHODS:
        ranges = ranges_of(candidates, chosen, method, work)
        segmenter = candidates.open(ranges)
        name = f"int8, all layers by {method}, rest fp32"
        graphs = candidates.graphs_with(ranges)
        variants.append(Variant(name, stack.enter_context(segmenter), graphs, probe.effect(name, method, ranges)))
    return variants


def _openvino_precisions() -> list[str]:
    """Return what OpenVINO computes in on this CPU, "fp32" and perhaps "bf16"; nothing without it."""
    found: list[str] = OPENVINO.load().diagnose(OPENVINO.name, query_driver(), None).get("precisions", [])
    return [precision for precision in found if precision != "int8"]


def _times(variants: list[Variant], row: Annotation) -> dict[str, dict[str, float]]:
    """Return name -> median and quartiles of the ratio to fp32."""
    runs = {
        variant.name: partial(seconds, partial(variant.segmenter.predict, row.image, row.sentence))
        for variant in variants
    }
    # In random order, because the threads of a session spin for a while and slow down the next one.
    took = rounds(runs, ROUNDS, warm_up=WARM_UP, order=random.Random(0))
    figures = {}
    for name, times in took.items():
        ratios = [own / fp32 for own, fp32 in zip(times, took["fp32"], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        figures[name] = {"p50": round(statistics.median(ratios), 3), "p25": round(low, 3), "p75": round(high, 3)}
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--calibration", type=Path, default=demo_calibration(), help="recipe (default: the bundled one)"
    )
    parser.add_argument("--phantom", type=Path, required=True, help="RefHL-Phantom, seed 0: lsms-rt phantom -o DIR")
    parser.add_argument("--limit", type=int, help="only the first N sentences (default: all)")
    add_output_options(parser)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        record = measure(options.calibration, options.phantom, options.limit, Path(work))
    put(record, int8_table(record), options)


if __name__ == "__main__":
    main()
