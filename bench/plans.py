"""Build TensorRT-for-RTX plans of every preset and precision: ``python -m lsms_rt.bench.plans -o FILE``.

Building needs no GPU, so this shows on any machine that TensorRT accepts the graphs; the plans are not run.  The
weights are random, since only building is measured.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lsms_rt.engine.manifest import batch_profile
from lsms_rt.engine.tensorrt.variant import RTX, load
from lsms_rt.export.onnx_export import export_graphs
from lsms_rt.export.options import PlanOptions
from lsms_rt.export.tensorrt import build_plan
from lsms_rt.model import LSMS, TextConfig, preset
from lsms_rt.model.config import PRESETS

from .records import PLANS, add_output_options, put, record_of, write
from .tables import rows_table
from .timing import timed

PRECISIONS = ("fp32", "fp16")


def build(name: str, precision: str, image_size: int, max_batch: int) -> dict[str, Any]:
    """Export and build both graphs of a preset; return seconds and megabytes (1e6)."""
    torch.manual_seed(0)
    model = LSMS(preset(name, image_size=image_size, text=TextConfig())).eval().fold_decoder()
    row: dict[str, Any] = {"preset": name, "precision": precision, "image_size": image_size, "max_batch": max_batch}
    with tempfile.TemporaryDirectory() as folder:
        typed = model.half() if precision == "fp16" else model
        paths, export_s = timed(partial(export_graphs, typed, Path(folder)))
        row["export_s"] = round(export_s, 1)
        for path in paths:
            (plan, report), build_s = timed(partial(build_plan, RTX, path, batch_profile(max_batch), PlanOptions()))
            row[path.stem] = {
                "build_s": round(build_s, 1),
                "graph_mb": round(path.stat().st_size / 1e6, 1),
                "plan_mb": round(len(plan) / 1e6, 1),
                "summary": report["summary"],
                "memory": report["memory"],
            }
    return row


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=list(PRESETS), help="models to build")
    parser.add_argument("--image-size", type=int, default=512, help="side of the input")
    parser.add_argument("--max-batch", type=int, default=8, help="maximum batch size of the profile")
    add_output_options(parser)
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for name in options.preset:
        for precision in PRECISIONS:
            rows.append(build(name, precision, options.image_size, options.max_batch))
            print(f"{name} {precision}: built", file=sys.stderr)
            record = record_of(
                PLANS,
                ("torch", "onnx"),
                what="plans of TensorRT for RTX, built on a CPU; not run",
                library=load(RTX).__version__,
                rows=rows,
                peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
            )
            # After every row, so that an interrupted command keeps what it has built.
            if options.output:
                write(options.output, record)
    put(record, rows_table(record), options)


if __name__ == "__main__":
    main()
