"""Choose tile sizes by measuring on the target GPU: ``python -m lsms_rt.bench.gpu.tune``.

For every kernel at every shape, all candidates are checked against the plain twin and timed; the fastest is kept if it
beats the default by more than noise.  The output is read by ``lsms_rt.kernels.tuned_tiles``.  By default it is written
into the folder of the package; the environment variable LSMS_RT_TUNED names another folder to read.
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

from lsms_rt.bench.timing import Effort, GpuStopwatch, Stopwatch
from lsms_rt.kernels import missing, registry
from lsms_rt.kernels import tuned_tiles as choices
from lsms_rt.kernels import verify as verification
from lsms_rt.kernels.launch import Launch
from lsms_rt.kernels.shape import TOKEN_COUNTS, Shape, image_side, stage_shapes
from lsms_rt.kernels.tensors import size_of
from lsms_rt.kernels.test_data import block_tensors, typed
from lsms_rt.model.config import MAX_TOKENS, OWN_TOKENS, PRESETS

# Share of the default's time; a smaller gain is noise.
GAIN = 0.97
# Candidates of every kernel: keyword arguments of its ``launch``.  n and k must divide the channels.
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
    """Yield all combinations of a kernel's tile sizes that fit the shape."""
    table = TILES[registry.name(module)]
    for values in itertools.product(*table.values()):
        tiles = dict(zip(table, values, strict=True))
        if all(shape.channels % tiles[name] == 0 for name in ("n", "k") if name in tiles):
            yield tiles


def best(
    module: ModuleType, shape: Shape, tensors: dict[str, torch.Tensor], stopwatch: Stopwatch
) -> tuple[dict[str, Any], float]:
    """Return the fastest correct candidate, {} for the default, and its time as a share of the default's."""
    default = _time(module, shape, tensors, stopwatch, {})
    assert default is not None, f"{registry.name(module)} is wrong at {shape}: run make gpu-check"
    fastest, shortest = {}, default
    for tiles in candidates(module, shape):
        took = _time(module, shape, tensors, stopwatch, tiles)
        if took is not None and took < min(shortest, GAIN * default):
            fastest, shortest = tiles, took
    return fastest, shortest / default


def _time(
    module: ModuleType, shape: Shape, tensors: dict[str, torch.Tensor], stopwatch: Stopwatch, tiles: dict[str, Any]
) -> float | None:
    """Return ms; None for tile sizes with a wrong result, or that need more shared memory than the GPU has."""

    def plan(launch: Callable[..., Launch], at: Shape) -> Launch:
        return launch(at, **tiles)

    try:
        if not all(error.ok for error in verification.verify(module, shape, tensors, plan)):
            return None
        return stopwatch(prepared(module, shape, tensors, plan)).median
    except OutOfResources:
        return None


def prepared(
    module: ModuleType, shape: Shape, tensors: dict[str, torch.Tensor], plan: Callable[..., object] = choices.planned
) -> Callable[[], None]:
    """Return a function that runs a module's launches on named tensors, without converting or allocating anything."""
    known = {name: typed(name, tensor, shape) for name, tensor in tensors.items()}
    known |= verification.run(module, shape, tensors, plan)
    batch, device = known["x"].shape[0], known["x"].device
    steps = registry.launches(module, shape, plan)
    for launch in steps:
        for name in launch.arguments:
            # An intermediate tensor between two launches.
            if name not in known:
                known[name] = torch.empty(size_of(name, shape, batch), dtype=known["x"].dtype, device=device)

    def run() -> None:
        for launch in steps:
            launch(batch, *(known[name] for name in launch.arguments))

    return run


def tune(shapes: Iterable[Shape], batch: int, stopwatch: Stopwatch, device: str) -> dict[str, dict[str, Any]]:
    """Return ``kernel/shape`` -> tile sizes, {} if the default is best, for all kernels of the chain."""
    tiles: dict[str, dict[str, Any]] = {}
    for shape in shapes:
        tensors = block_tensors(shape, batch, device=device)
        for module in tqdm(registry.chain(shape), desc=shape.key, file=sys.stderr):
            fastest, share = best(module, shape, tensors, stopwatch)
            key = choices.key(module.launch, shape)
            tiles[key] = fastest
            if fastest:
                print(f"{key}: {fastest}, {share:.2f} of the default's time", flush=True)
    return tiles


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--preset", nargs="+", choices=list(PRESETS), default=["tiny", "base"], help="models to tune for"
    )
    parser.add_argument("--image-size", nargs="+", type=image_side, default=[512], help="side of the input")
    parser.add_argument(
        "--tokens", nargs="+", type=int, choices=TOKEN_COUNTS, default=[OWN_TOKENS, MAX_TOKENS],
        help="of a sentence, padded",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=int, default=1, help="slices per call to measure; the tiles are used for every batch"
    )
    parser.add_argument("-o", "--output", type=Path, default=choices.FOLDER, help="folder for the JSON file")
    options = parser.parse_args(argv)
    problem = missing()
    if problem:
        print(f"error: {problem}; run this command on the target GPU", file=sys.stderr)
        return 3
    import triton

    shapes = dict.fromkeys(
        shape
        for tokens in options.tokens
        for preset in options.preset
        for size in options.image_size
        for shape in stage_shapes(preset, size, tokens=tokens)
    )
    tiles = tune(shapes, options.batch, GpuStopwatch(Effort(0.03, 0.06, 10)), "cuda")
    print(choices.write(options.output, torch.cuda.get_device_name(), triton.__version__, options.batch, tiles))
    return 0


if __name__ == "__main__":
    sys.exit(main())
