"""Run all checks that need a GPU: ``python -m lsms_rt.bench.gpu.check`` (``make gpu-check``).

1. Every kernel at all shapes of all presets against float64, with outputs filled with NaN before.
2. The CUDA graph of the runner: another input gives another result, equal to the one without a graph.  The TensorRT
   runtime: driver calls, captured graphs, engines, as far as they are installed.
3. Times of every kernel, and its floor; of the depthwise part and of the whole block, beside PyTorch eager (channels
   first and last), torch.compile, and the unfused sequence in a CUDA graph.
4. Times of the whole image graph: eager, compiled, and our kernels in a CUDA graph.

Records are written to ``bench/results/<device>/*.json`` (or ``-o``).  A wrong kernel stops the command before anything
is timed.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lsms_rt.bench import records
from lsms_rt.bench.timing import GpuStopwatch
from lsms_rt.kernels import missing
from lsms_rt.kernels.launch import DTYPES
from lsms_rt.kernels.shape import TOKEN_COUNTS, all_shapes, stage_shapes
from lsms_rt.model.config import MAX_TOKENS, PRESETS

from . import roofline
from .runtime import verify_runtime
from .times import measured_ceilings, time_kernels, time_models, time_parts
from .verify import faults, precompile, verify_block, verify_kernels, verify_runner

# Image sizes whose shapes are verified: odd maps, several windows, one window.
SIZES = (224, 256, 384, 480, 512, 640)


def write(folder: Path, kind: str, what: str, rows: list[Any]) -> None:
    """Write one record about this machine's GPU."""
    folder.mkdir(parents=True, exist_ok=True)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    record = records.record_of(kind, ("torch", "triton"), gpu, what=what, rows=rows)
    records.write(folder / f"{kind}.json", record)


def ceilings_of(name: str) -> roofline.Gpu:
    """Return the ceilings for a GPU's name; those of the H100 SXM if it is unknown, and every record names whose."""
    known = roofline.GPUS | roofline.MORE_GPUS
    keys = [key for key in known if all(word in name.lower() for word in key.split())]
    return known[max(keys, key=len, default="h100")]


SECTIONS = ("verify", "runtime", "kernels", "parts", "models")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="folder for the records (default: bench/results/<device>)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections to run")
    parser.add_argument(
        "--quick", action="store_true", help="one image size, no torch.compile; do not publish the figures"
    )
    parser.add_argument("--preset", nargs="+", choices=list(PRESETS), default=["tiny", "base"], help="models to time")
    parser.add_argument("--batch", nargs="+", type=int, help="batches to time (default: 1 16; models: 1 8 32)")
    options = parser.parse_args(argv)
    problem = missing()
    if problem:
        print(f"error: {problem}; run this command on a machine with an NVIDIA GPU", file=sys.stderr)
        return 3
    name = torch.cuda.get_device_name()
    folder = options.output or Path("bench/results") / re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    gpu, stopwatch = ceilings_of(name), GpuStopwatch()
    # Let PyTorch choose its fastest convolutions.
    torch.backends.cudnn.benchmark = True
    if "verify" in options.only:
        wrong = _verify(folder, (512,) if options.quick else SIZES)
        for fault in wrong:
            print(f"error: {fault}", file=sys.stderr)
        if wrong:
            return 1
    if "runtime" in options.only:
        checks = verify_runtime()
        write(folder, records.RUNTIME_VERIFIED, "driver calls, CUDA graphs and engines of TensorRT", checks)
        for row in checks:
            result = f"not run: {row['not_run']}" if "not_run" in row else "ok" if row["ok"] else "FAILED"
            print(f"{row['what']}: {result}", file=sys.stderr)
        if not all(row.get("ok", True) for row in checks):
            return 1
    shapes = list(dict.fromkeys(s for preset in options.preset for s in stage_shapes(preset, 512)))
    batches = options.batch or (1, 16)
    if "kernels" in options.only:
        what = "copy and matrix product of this GPU, and the ceilings of the floors"
        write(folder, records.CEILINGS, what, [measured_ceilings(stopwatch, gpu)])
        rows = time_kernels(shapes, batches, stopwatch, "cuda", gpu)
        _write_each(folder, records.KERNELS_TIMED, f"kernels, CUDA graph; floors of {gpu.name}", rows)
    # Autotuning takes minutes per shape.
    if "parts" in options.only:
        # Without CUDA graphs, because the stopwatch captures them.
        mode = None if options.quick else "max-autotune-no-cudagraphs"
        what = f"depthwise part and block beside PyTorch; torch.compile: {mode}"
        _write_each(folder, records.PARTS_TIMED, what, time_parts(shapes, batches, stopwatch, "cuda", mode))
    if "models" in options.only:
        mode = None if options.quick else "default"
        what = f"image graph, sentence already encoded; torch.compile: {mode}; floors of {gpu.name}"
        rows = time_models(options.preset, 512, options.batch or (1, 8, 32), stopwatch, "cuda", gpu, "triton", mode)
        _write_each(folder, records.MODELS_TIMED, what, rows)
    return 0


def _write_each(folder: Path, kind: str, what: str, rows: Iterable[Any]) -> None:
    """Write the record after every row, so that an interrupted command keeps what it has measured."""
    done: list[Any] = []
    for row in rows:
        done.append(row)
        write(folder, kind, what, done)


def _verify(folder: Path, sizes: tuple[int, ...]) -> list[str]:
    """Compile in parallel, compare, write the record; return what is wrong."""
    shapes = [shape for dtype in DTYPES for shape in all_shapes(sizes, dtype)]
    # Short and long sentences.
    shapes += [replace(s, tokens=n) for n in (min(TOKEN_COUNTS), MAX_TOKENS) for s in shapes if s.height in (16, 128)]
    precompile(shapes)
    # The reference must be fp32; matrix products are by default.
    torch.backends.cudnn.allow_tf32 = False
    rows = verify_kernels(shapes, (1, 4), "cuda")
    block = [row for dtype in DTYPES for row in verify_block(all_shapes((512,), dtype), "cuda")]
    runner = verify_runner("cuda", "triton", graphs=True)
    what = "kernels and block against float64; runner with a CUDA graph against one without"
    write(folder, records.KERNELS_VERIFIED, what, [*rows, *block, runner])
    return faults(rows, block, runner)


if __name__ == "__main__":
    sys.exit(main())
