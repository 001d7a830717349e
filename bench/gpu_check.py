"""Everything that only a GPU can tell, in one command: ``python -m lsms_rt.bench.gpu_check`` (``make gpu-check``).

1. Every kernel at all shapes of all presets against float64, with poisoned outputs.
2. The CUDA graph of the runner: another input gives another answer, equal to the one without a graph.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lsms_rt.kernels import missing
from lsms_rt.kernels.launch import DTYPES
from lsms_rt.kernels.shape import all_shapes, stage_shapes

from . import roofline
from .clock import GpuClock
from .gpu_times import measured_ceilings, time_kernels, time_models, time_parts
from .gpu_verify import faults, precompile, verify_block, verify_kernels, verify_runner
from .provenance import provenance

SIZES = (224, 256, 384, 480, 512, 640)  # image sizes whose shapes are verified: odd maps, windows, one window


def write(folder: Path, name: str, what: str, rows: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    record = {"what": what, "rows": rows} | provenance(
        "torch", "triton", gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None
    )
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{folder / name}.json", flush=True)


def ceilings_of(name: str) -> roofline.Gpu:
    """The ceilings for a GPU's name; an unknown one gets the H100's, which the results then say."""
    for key, gpu in roofline.GPUS.items():
        if key in name.lower():
            return gpu
    return roofline.GPUS["h100"]


SECTIONS = ("verify", "kernels", "parts", "models")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the results (default: bench/results/<device>)")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="some of the sections")
    parser.add_argument("--quick", action="store_true", help="one image size, no torch.compile: a look, not a result")
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
    shapes = list(dict.fromkeys(s for preset in ("tiny", "base") for s in stage_shapes(preset, 512)))
    if "kernels" in options.only:
        write(
            folder, "ceilings", "copy and product of this GPU, and the floors' ceilings", measured_ceilings(clock, gpu)
        )
        write(folder, "kernels_timed", "kernels, CUDA graph", time_kernels(shapes, (1, 16), clock, "cuda", gpu))
    if "parts" in options.only:  # autotuning takes long: torch.compile for the shapes of base only
        tuned = None if options.quick else "max-autotune-no-cudagraphs"  # the clock captures the graph itself
        rows = time_parts(shapes[4:], (1, 16), clock, "cuda", tuned)
        rows += time_parts(shapes[:4], (1, 16), clock, "cuda", None)
        write(folder, "parts_timed", "depthwise part and block beside PyTorch", rows)
    if "models" in options.only:
        compiler = None if options.quick else "default"
        rows = time_models(("tiny", "base"), 512, (1, 8, 32), clock, "cuda", gpu, "triton", compiler)
        write(folder, "models_timed", "image graph, sentence encoded before", rows)
    return 0


def _verify(folder: Path, sizes: tuple[int, ...]) -> list[str]:
    """Compile in parallel, compare, write; returns what is wrong."""
    shapes = [shape for dtype in DTYPES for shape in all_shapes(sizes, dtype)]
    precompile(shapes)
    rows = verify_kernels(shapes, (1, 3), "cuda")
    block = [row for dtype in DTYPES for row in verify_block(all_shapes((512,), dtype), "cuda")]
    runner = verify_runner("cuda", "triton", graphs=True)
    found = {"kernels": rows, "block": block, "runner": runner}
    write(folder, "kernels_verified", "kernels against their plain twins in float64", found)
    return faults(rows, runner)


if __name__ == "__main__":
    sys.exit(main())
