"""Compare the latency model with times measured on a GPU.

``python -m lsms_rt.bench.gpu.estimate`` compiles the kernels, computes their times (``kernels/latency.py``) and puts
them beside the measured ones of ``bench/results/nvidia-h200``: alone in a CUDA graph, and by the profiler in the image
graph.

Two numbers of the model were fitted to times measured on that very GPU, so the comparison shows how well they describe
it, not how well they predict another.  The code that was measured is that of the record's commit, tiles and Triton.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from lsms_rt.bench import records
from lsms_rt.kernels import registry
from lsms_rt.kernels.ptx_trace import Trace, traces
from lsms_rt.kernels.shape import Shape, stage_shapes
from lsms_rt.model.config import PRESETS

MEASURED = Path(__file__).parents[1] / "results" / "nvidia-h200"


def model_microseconds(rows: Iterable[Trace], preset: str, image_size: int = 512) -> dict[str, float]:
    """Return the computed microseconds of every kernel in all blocks of a model.

    A kernel counts at the stages at which ``rows`` has it.
    """
    depths = dict(zip((shape.key for shape in stage_shapes(preset, image_size)), PRESETS[preset].depths, strict=True))
    times: dict[str, float] = {}
    for row in rows:
        times[row.kernel] = times.get(row.kernel, 0.0) + depths.get(row.shape, 0) * row.microseconds
    return times


def chain_traces(shape: Shape, batch: int = 1) -> list[Trace]:
    """Compile and trace the kernels that a block launches, for sm_90."""
    return [row for module in registry.chain(shape) for row in traces(module, shape, "sm_90", batch)]


def profile_of(preset: str, folder: Path = MEASURED) -> dict[str, float]:
    """Return the measured microseconds of every kernel in the image graph at batch 1."""
    for row in records.read(folder / "shares.json")["rows"]:
        if (row["preset"], row["batch"], row["way"]) == (preset, 1, "ours"):
            return dict(row["longest_us"])
    raise ValueError(f"no profile of {preset} in {folder}; run make gpu-check on a GPU")


def compare(shapes: Sequence[Shape], preset: str, folder: Path = MEASURED) -> list[str]:
    """Return a line for every measured kernel: computed and measured microseconds, their ratio."""
    lines = []
    timed = {
        (row["kernel"], row["shape"], row["batch"]): row["time"]["p50"] * 1e3
        for row in records.read(folder / "kernels_timed.json")["rows"]
        if row.get("ptxas") != "other"
    }
    for (kernel, key, batch), measured in timed.items():
        shape = next((shape for shape in shapes if shape.key == key), None)
        module = next((module for module in registry.MODULES if registry.name(module) == kernel), None)
        # A record may be older than the kernels that there are.
        if shape is not None and module is not None:
            computed = sum(row.microseconds for row in traces(module, shape, "sm_90", batch))
            lines.append(_line(f"{kernel} {key} batch {batch}", computed, measured))
    rows = [row for shape in shapes for row in chain_traces(shape)]
    profile = profile_of(preset, folder)
    for kernel, computed in model_microseconds(rows, preset).items():
        if kernel in profile:
            lines.append(_line(f"{kernel}, in the image graph of {preset}", computed, profile[kernel]))
    return lines


def _line(name: str, computed: float, measured: float) -> str:
    return f"{name:58}{computed:9.1f} us computed{measured:9.1f} us measured{computed / measured:7.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=list(PRESETS), default="base", help="(default: %(default)s)")
    options = parser.parse_args(argv)
    for line in compare(stage_shapes(options.preset, 512), options.preset):
        print(line)


if __name__ == "__main__":
    main()
