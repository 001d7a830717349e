"""Choose tile sizes by measuring: ``python -m lsms_rt.bench.gpu.tune``, on the GPU that they are for.

For every kernel at every shape, all candidates are checked against the plain twin and timed; the fastest is kept where
it beats the default by more than noise.  Writes what ``lsms_rt.kernels.tuned_tiles`` reads, by default into the
package's own folder; a user's own folder is named by the environment variable LSMS_RT_TUNED.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tqdm import tqdm
from triton.runtime.errors import OutOfResources

from lsms_rt.bench.clock import Clock, GpuClock
from lsms_rt.kernels import missing, registry
from lsms_rt.kernels import tuned_tiles as choices
from lsms_rt.kernels import verify as verification
from lsms_rt.kernels.launch import Launch
from lsms_rt.kernels.shape import Shape, image_side, stage_shapes
from lsms_rt.kernels.tensors import size_of
from lsms_rt.kernels.test_data import block_tensors, typed
from lsms_rt.model.config import PRESETS

GAIN = 0.97  # of the default's time; less of a gain than this is noise
# What is tried of every kernel: keyword arguments of its ``launch``.  n and k must divide the channels.
TILES: dict[str, dict[str, tuple[Any, ...]]] = {
    "depthwise": {"vector": (True, False), "warps": (1, 2, 4, 8)},
    "depthwise_direct": {"pixels": (256, 512, 1024), "warps": (2, 4, 8)},
    "query_statistics": {"n": (32, 64), "k": (32, 64), "warps": (2, 4, 8), "stages": (2, 3)},
    "fold_keys": {"n": (32, 64), "k": (32, 64), "parts": (8, 16, 32), "warps": (2, 4)},
    "token_attention": {"n": (32, 64), "k": (32, 64), "warps": (2, 4, 8), "stages": (2, 3)},
    "fold_values": {"n": (32, 64), "k": (32, 64), "parts": (8, 16, 32), "warps": (2, 4)},
    "gate": {"n": (32, 64), "k": (32, 64), "pixels": (16, 32, 64), "warps": (4, 8), "stages": (2, 3)},
    "mix": {"n": (32, 64), "k": (32, 64), "pixels": (16, 32, 64), "warps": (4, 8), "stages": (2, 3)},
    "gate_mix": {"pixels": (16, 32, 64, 128), "parts": (16, 32), "warps": (4, 8)},
}


def candidates(module: ModuleType, shape: Shape) -> Iterator[dict[str, Any]]:
    """All combinations of a kernel's tile sizes that fit the shape."""
    table = TILES[registry.name(module)]
    for values in itertools.product(*table.values()):
        tiles = dict(zip(table, values, strict=True))
        if all(shape.channels % tiles[name] == 0 for name in ("n", "k") if name in tiles):
            yield tiles


def best(
    module: ModuleType, shape: Shape, tensors: dict[str, torch.Tensor], clock: Clock
) -> tuple[dict[str, Any], float]:
    """The fastest right candidate, {} for the default, and its time as a share of the default's."""
    default = _time(module, shape, tensors, clock, {})
    assert default is not None, f"{registry.name(module)} is wrong at {shape}: run make gpu-check"
    found, least = {}, default
    for tiles in candidates(module, shape):
        took = _time(module, shape, tensors, clock, tiles)
        if took is not None and took < min(least, GAIN * default):
            found, least = tiles, took
    return found, least / default


def _time(
    module: ModuleType, shape: Shape, tensors: dict[str, torch.Tensor], clock: Clock, tiles: dict[str, Any]
) -> float | None:
    """Milliseconds; None for tile sizes that give a wrong answer, or more than the GPU has of shared memory."""

    def plan(launch: Callable[..., Launch], at: Shape) -> Launch:
        return launch(at, **tiles)

    try:
        if not all(error.ok for error in verification.verify(module, shape, tensors, plan)):
            return None
        return clock(prepared(module, shape, tensors, plan)).p50
    except OutOfResources:
        return None


def prepared(
    module: ModuleType, shape: Shape, tensors: dict[str, torch.Tensor], plan: Callable[..., object] = choices.planned
) -> Callable[[], None]:
    """A module's launches on the named tensors, ready to be timed: nothing is converted or allocated any more."""
    known = {name: typed(name, tensor, shape) for name, tensor in tensors.items()}
    known |= verification.run(module, shape, tensors, plan)
    batch, device = known["x"].shape[0], known["x"].device
    steps = registry.launches(module, shape, plan)
    for launch in steps:
        for name in launch.arguments:
            if name not in known:  # what one launch hands to the next
                known[name] = torch.empty(size_of(name, shape, batch), dtype=known["x"].dtype, device=device)

    def run() -> None:
        for launch in steps:
            launch(batch, *(known[name] for name in launch.arguments))

    return run


def tune(shapes: Iterable[Shape], batch: int, clock: Clock, device: str) -> dict[str, dict[str, Any]]:
    """``kernel/shape`` -> tile sizes, {} where the default is best, for all kernels of the chain."""
    tiles: dict[str, dict[str, Any]] = {}
    for shape in shapes:
        tensors = block_tensors(shape, batch, device=device)
        for module in tqdm(registry.chain(shape), desc=shape.key, file=sys.stderr):
            found, share = best(module, shape, tensors, clock)
            key = choices.key(module.launch, shape)
            tiles[key] = found
            if found:
                print(f"{key}: {found}, {share:.2f} of the default's time", flush=True)
    return tiles


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--preset", nargs="+", choices=list(PRESETS), default=["tiny", "base"], help="models to tune for"
    )
    parser.add_argument("--image-size", nargs="+", type=image_side, default=[512], help="side of the input")
    parser.add_argument("--batch", type=int, default=1, help="slices at a time; the tiles then serve every batch")
    parser.add_argument("-o", "--output", type=Path, default=choices.FOLDER, help="folder for the JSON file")
    options = parser.parse_args(argv)
    lacking = missing()
    if lacking:
        print(f"error: {lacking}; tile sizes are chosen on the GPU that they are for", file=sys.stderr)
        return 3
    import triton

    shapes = dict.fromkeys(
        s for preset in options.preset for size in options.image_size for s in stage_shapes(preset, size)
    )
    tiles = tune(shapes, options.batch, GpuClock(30, 60, 10), "cuda")
    print(choices.write(options.output, torch.cuda.get_device_name(), triton.__version__, options.batch, tiles))
    return 0


if __name__ == "__main__":
    sys.exit(main())
