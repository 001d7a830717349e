"""Build a plan of TensorRT for RTX from every preset and precision: ``python -m lsms_rt.bench.plans -o FILE``.

Building needs no GPU, so this shows on any machine that the graphs are TensorRT graphs; nothing is run.  The weights
are random: what is measured is building.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
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

from .provenance import provenance

PRECISIONS = ("fp32", "fp16")


def build(name: str, precision: str, image_size: int, max_batch: int) -> dict[str, Any]:
    """Export and build both graphs of a preset; seconds and megabytes (1e6)."""
    torch.manual_seed(0)
    model = LSMS(preset(name, image_size=image_size, text=TextConfig())).eval().fold_decoder()
    row: dict[str, Any] = {"preset": name, "precision": precision, "image_size": image_size, "max_batch": max_batch}
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        paths = export_graphs(model.half() if precision == "fp16" else model, Path(folder))
        row["export_s"] = round(time.perf_counter() - begin, 1)
        for path in paths:
            begin = time.perf_counter()
            plan, report = build_plan(RTX, path, batch_profile(max_batch), PlanOptions())
            row[path.stem] = {
                "build_s": round(time.perf_counter() - begin, 1),
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
    parser.add_argument("--max-batch", type=int, default=8, help="largest batch of the profile")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="record to write, rewritten after each row")
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for name in options.preset:
        for precision in PRECISIONS:
            rows.append(build(name, precision, options.image_size, options.max_batch))
            print(json.dumps(rows[-1]), flush=True)
            record = {"what": "plans of TensorRT for RTX, built on a CPU; not run", "library": load(RTX).__version__}
            record |= {"rows": rows, "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000}
            if options.output:
                options.output.write_text(json.dumps(record | provenance("torch", "onnx"), indent=1) + "\n")


if __name__ == "__main__":
    main()
