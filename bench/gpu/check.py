"""Everything that only a GPU can tell, in one command: ``python -m lsms_rt.bench.gpu.check`` (``make gpu-check``).

1. Every kernel at all shapes of all presets against float64, with poisoned outputs.
2. The CUDA graph of the runner: another input gives another answer, equal to the one without a graph.  The TensorRT
   runtime: driver calls, captured graphs, engines, as far as the machine has them.
3. Times of every kernel, beside its floor; of the depthwise part and of the whole block, beside PyTorch eager
   (channels first and last), torch.compile, and the unfused sequence under a CUDA graph.
4. Times of the whole image graph, eager, compiled, and our kernels under a CUDA graph.

Results go to ``bench/results/<device>/*.json`` (or ``--out``), each with device, versions, commit and date.  A kernel
that is wrong stops the command before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lsms_rt.bench.clock import GpuClock
from lsms_rt.bench.provenance import provenance
from lsms_rt.kernels import missing
from lsms_rt.kernels.launch import DTYPES
from lsms_rt.kernels.shape import all_shapes, stage_shapes
from lsms_rt.model.config import PRESETS

from . import roofline
from .runtime import verify_runtime
from .times import measured_ceilings, time_kernels, time_models, time_parts
from .verify import faults, precompile, verify_block, verify_kernels, verify_runner

SIZES = (224, 256, 384, 480, 512, 640)  # image sizes whose shapes are verified: odd maps, windows, one window


def write(folder: Path, name: str, what: str, rows: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = {"what": what, "rows": rows} | provenance(
        "torch", "triton", gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None
    )
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def ceilings_of(name: str) -> roofline.Gpu:
    """The ceilings for a GPU's name; an unknown one gets the H100 SXM's, and every result file names whose they are."""
    known = roofline.GPUS | roofline.MORE_GPUS
    found = [key for key in known if all(word in name.lower() for word in key.split())]
    return known[max(found, key=len, default="h100")]


SECTIONS = ("verify", "runtime", "kernels", "parts", "models")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the results (default: bench/results/<device>)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="some of the sections")
    parser.add_argument("--quick", action="store_true", help="one image size, no torch.compile: a look, not a result")
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=["tiny", "base"], help="models to time")
    parser.add_argument("--batch", nargs="+", type=int, help="batches to time (default: 1 16, and 1 8 32 of models)")
    options = parser.parse_args(argv)
    lacking = missing()
    if lacking:
        print(f"error: {lacking}; this command measures on a GPU", file=sys.stderr)
        return 3
    name = torch.cuda.get_device_name()
    folder = options.out or Path("bench/results") / re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    gpu, clock = ceilings_of(name), GpuClock()
    torch.backends.cudnn.benchmark = True  # PyTorch's own convolutions at their best
    if "verify" in options.only:
        wrong = _verify(folder, (512,) if options.quick else SIZES)
        for fault in wrong:
            print(f"error: {fault}", file=sys.stderr)
        if wrong:
            return 1
    if "runtime" in options.only:
        checks = verify_runtime()
        write(folder, "runtime_verified", "driver calls, CUDA graphs and engines of the TensorRT runtime", checks)
        for row in checks:
            print(f"{row['what']}: {row.get('not_run') or ('right' if row['ok'] else 'WRONG')}", file=sys.stderr)
        if not all(row.get("ok", True) for row in checks):
            return 1
    shapes = list(dict.fromkeys(s for preset in options.preset for s in stage_shapes(preset, 512)))
    batches = options.batch or (1, 16)
    if "kernels" in options.only:
        write(
            folder, "ceilings", "copy and product of this GPU, and the floors' ceilings", measured_ceilings(clock, gpu)
        )
        _write_each(folder, "kernels_timed", f"kernels, CUDA graph; floors of {gpu.name}",
                    time_kernels(shapes, batches, clock, "cuda", gpu))  # fmt: skip
    if "parts" in options.only:  # autotuning takes minutes a shape
        mode = None if options.quick else "max-autotune-no-cudagraphs"  # the clock captures the graph itself
        _write_each(folder, "parts_timed", f"depthwise part and block beside PyTorch; torch.compile: {mode}",
                    time_parts(shapes, batches, clock, "cuda", mode))  # fmt: skip
    if "models" in options.only:
        mode = None if options.quick else "default"
        what = f"image graph, sentence encoded before; torch.compile: {mode}; floors of {gpu.name}"
        rows = time_models(options.preset, 512, options.batch or (1, 8, 32), clock, "cuda", gpu, "triton", mode)
        _write_each(folder, "models_timed", what, rows)
    return 0


def _write_each(folder: Path, name: str, what: str, rows: Iterable[Any]) -> None:
    """Write the file anew with every row: a command that is cut off keeps what it has measured."""
    done: list[Any] = []
    for row in rows:
        done.append(row)
        write(folder, name, what, done)


def _verify(folder: Path, sizes: tuple[int, ...]) -> list[str]:
    """Compile in parallel, compare, write; returns what is wrong."""
    shapes = [shape for dtype in DTYPES for shape in all_shapes(sizes, dtype)]
    shapes += [replace(shape, tokens=16) for shape in shapes if shape.height in (16, 128)]  # of short sentences
    precompile(shapes)
    torch.backends.cudnn.allow_tf32 = False  # what is compared with must be fp32; of products, PyTorch's default is
    rows = verify_kernels(shapes, (1, 4), "cuda")
    block = [row for dtype in DTYPES for row in verify_block(all_shapes((512,), dtype), "cuda")]
    runner = verify_runner("cuda", "triton", graphs=True)
    found = {"kernels": rows, "block": block, "runner": runner}
    write(folder, "kernels_verified", "kernels against their plain twins in float64", found)
    return faults(rows, block, runner)


if __name__ == "__main__":
    sys.exit(main())
