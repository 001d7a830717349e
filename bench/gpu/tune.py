"""Choose tile sizes by measuring on the target GPU: ``python -m lsms_rt.bench.gpu.tune``.

For every kernel at every shape, all candidates are timed; the fastest that give the numbers of the plain twin, and the
same bits again and again, are timed once more, and the best is kept if it beats the default by more than noise. Every
kernel has a process of its own, and the result at every shape is written at once. The output is read by
``lsms_rt.kernels.tuned_tiles``. By default it is written into the folder of the package; the environment variable
LSMS_RT_TUNED names another folder to read. The chain at a shape is chosen after its kernels, with the tiles in the
output's file, and verified as a whole.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from lsms_rt.bench.timing import Effort, GpuStopwatch, Stopwatch
from lsms_rt.kernels import missing, registry
from lsms_rt.kernels import tuned_tiles as choices
from lsms_rt.kernels import verify as verification
from lsms_rt.kernels.aot import SHARED_LIMITS
from lsms_rt.kernels.launch import DTYPES, Launch, padded
from lsms_rt.kernels.shape import TOKEN_COUNTS, DecoderShape, RestShape, Shape, image_side, shapes_around, stage_shapes
from lsms_rt.kernels.tensors import size_of
from lsms_rt.kernels.test_data import block_tensors, typed
from lsms_rt.model.config import MAX_TOKENS, OWN_TOKENS, PRESETS

from .plan import Unit
from .process import RIGHT, Process, started
from .timer import resources
from .verify import count_different, module_of, verify_block

Value = TypeVar("Value")
# Share of the default's time; a smaller gain is noise.
GAIN = 0.97
# Further runs of the fastest candidate, which must all give the same bits: right once may be luck.
REPEATS = 20
# Candidates that are verified and timed well, of those that a short look finds fastest; the look takes 20 ms.
FINALISTS = 3
ROUGH, THOROUGH = GpuStopwatch(Effort(0.0, 0.005, 5), window_ms=0.5), GpuStopwatch(Effort(0.03, 0.06, 10))
# Name of the choice among chains, beside those of kernels.
CHAIN = "chain"
# Seconds for all candidates of one kernel at all shapes.
LIMIT = 3600.0
# Of every 1x1 around SVLA.
POINTWISE: dict[str, tuple[Any, ...]] = {
    "n": (32, 64, 128), "k": (32, 64, 128), "pixels": (16, 32, 64), "warps": (4, 8), "stages": (2, 3, 4),
}  # fmt: skip
# Candidates of every kernel: keyword arguments of its ``launch``.  n and k must divide the channels.
TILES: dict[str, dict[str, tuple[Any, ...]]] = {
    "depthwise": {"vector": (True, False), "warps": (1, 2, 4, 8), "group": (2, 3)},
    "depthwise_direct": {"pixels": (256, 512, 1024), "warps": (2, 4, 8)},
    "query_statistics": {"n": (32, 64), "k": (32, 64), "warps": (2, 4, 8), "stages": (2, 3)},
    "fold_keys": {"n": (16, 32), "k": (64, 128, 256, 512), "warps": (4, 8, 16), "stages": (1, 2, 3)},
    "token_attention": {
        "group": (64, 128, 320, 512), "n": (32, 64), "k": (32, 64), "warps": (4, 8), "stages": (2, 4)
    },
    "fold_attention": {"parts": (32, 64, 128), "warps": (4, 8)},
    "fold_values": {"n": (16, 32), "k": (64, 128, 256, 512), "warps": (4, 8, 16), "stages": (1, 2, 3)},
    "gate": {"n": (32, 64), "k": (32, 64), "pixels": (16, 32, 64), "warps": (4, 8), "stages": (2, 3)},
    "mix": {"n": (32, 64), "k": (32, 64), "pixels": (16, 32, 64), "warps": (4, 8), "stages": (2, 3)},
    # Of fewer pixels, ptxas 12.8 makes wrong machine code on sm_90 (kernels/sass_checks.py).
    "gate_mix": {"pixels": (64, 128), "parts": (32, 128), "warps": (4, 8)},
    **dict.fromkeys(("inner", "outer", "expand", "reduce"), POINTWISE),
    "depthwise3_gelu": {"rows": (2, 4, 8, 16), "pixels": (256, 512, 1024), "warps": (2, 4, 8)},
    "stage_norm": {"pixels": (4, 8, 16, 32, 64), "warps": (2, 4, 8)},
    "merge_scales": {"channels": (1, 2, 4, 8, 16), "warps": (2, 4, 8)},
}  # fmt: skip
# Kernels whose last step of the sum over channels may be filled up to a power of two.
JOINS = ("fold_keys", "fold_values")


def candidates(module: ModuleType, shape: Shape) -> Iterator[dict[str, Any]]:
    """Yield the combinations of a kernel's tile sizes that fit the shape."""
    table = TILES[registry.name(module)]
    for values in itertools.product(*table.values()):
        tiles = dict(zip(table, values, strict=True))
        if _fit(module, tiles, shape):
            yield tiles


def _fit(module: ModuleType, tiles: dict[str, Any], shape: Shape) -> bool:
    """Return whether channels are divided evenly; a step of a join may be filled up to a power of two."""
    n, k, group = tiles.get("n", 1), tiles.get("k", 1), tiles.get("group", shape.channels)
    # A 1x1 around SVLA has two numbers of channels.
    sums = module.launch(shape).constants if module in registry.REST else {}
    targets, sources = sums.get("N", shape.channels), sums.get("K", shape.channels)
    even_k = k <= padded(sources) if registry.name(module) in JOINS else sources % k == 0
    if "group" in tiles and "n" in tiles and (targets % group or group % n):
        return False
    return targets % n == 0 and even_k


def best(
    module: ModuleType, shape: Shape, tensors: dict[str, torch.Tensor], stopwatch: Stopwatch, rough: Stopwatch
) -> tuple[dict[str, Any], float | None]:
    """Return the fastest correct candidate, {} for the default, and its time as a share of the default's.

    All candidates are timed by ``rough``; the fastest that are correct and repeatable are finalists, and are timed
    again by ``stopwatch``.  The share is None if the default itself is wrong.

    Raises:
        RuntimeError: neither the default nor any candidate is correct.
    """
    timed = [
        (took, tiles)
        for tiles in candidates(module, shape)
        if (took := _time(module, shape, tensors, rough, tiles)) and not _exceeds_plugin(module, shape, tiles)
    ]
    default = _time(module, shape, tensors, stopwatch, {}) if _is_right(module, shape, tensors, {}) else None
    fastest_first = (tiles for _, tiles in sorted(timed, key=lambda pair: pair[0]))
    right = (tiles for tiles in fastest_first if _is_right(module, shape, tensors, tiles))
    finals = [
        (took, tiles)
        for tiles in itertools.islice(right, FINALISTS)
        if (took := _time(module, shape, tensors, stopwatch, tiles))
    ]
    took, tiles = min(finals, key=lambda pair: pair[0], default=(math.inf, {}))
    if default is None and not finals:
        raise RuntimeError(f"{registry.name(module)} is wrong at {shape.key} with any tile sizes; run make gpu-check")
    if default is not None and took >= GAIN * default:
        return {}, 1.0
    return tiles, default and took / default


def _with(tiles: dict[str, Any]) -> Callable[..., Launch]:
    return lambda launch, at: launch(at, **tiles)


def _is_right(module: ModuleType, shape: Shape, tensors: dict[str, torch.Tensor], tiles: dict[str, Any]) -> bool:
    """Return whether tile sizes give the twin's numbers, and the same bits again and again."""
    plan = _with(tiles)
    return bool(
        _tried(
            lambda: (
                all(error.ok for error in verification.verify(module, shape, tensors, plan))
                and not count_different(module, shape, tensors, REPEATS, plan)
            ),
            module, shape, tiles,
        )
    )  # fmt: skip


def _time(
    module: ModuleType, shape: Shape, tensors: dict[str, torch.Tensor], stopwatch: Stopwatch, tiles: dict[str, Any]
) -> float | None:
    """Return ms; None for tile sizes that do not compile, or need more than the GPU has."""
    return _tried(lambda: stopwatch(prepared(module, shape, tensors, _with(tiles))).median, module, shape, tiles)


def _tried(work: Callable[[], Value], module: ModuleType, shape: Shape, tiles: dict[str, Any]) -> Value | None:
    """Return the result of work on some tile sizes; None after an error, which is printed.

    Compilers fail in many ways.  An error that ruins the context is raised: it costs this unit only.
    """
    try:
        return work()
    except Exception as error:
        print(f"{registry.name(module)} {shape.key} {tiles}: {type(error).__name__}: {error}", file=sys.stderr)
        if torch.cuda.is_available():
            # After an illegal access this raises, which ends the unit before it reports a best candidate.
            torch.cuda.synchronize()
        return None


def _exceeds_plugin(module: ModuleType, shape: Shape, tiles: dict[str, Any]) -> bool:
    """Return whether what ran is too large for a plugin, and say so: a plugin gets the tuned tiles, too.

    Triton's launcher asks the driver for more shared memory than a launch gets by default; TensorRT never does.
    """
    if shape.dtype != "fp16" or module not in registry.FP16_MODULES:
        return False
    takes = resources(registry.launches(module, shape, _with(tiles)))
    spills, shared = takes.get("spills", 0), takes.get("shared", 0)
    if not spills and shared <= SHARED_LIMITS["fp16"]:
        return False
    print(
        f"{registry.name(module)} {shape.key} {tiles}: spills {spills} B, shared {shared} B "
        f"(limit {SHARED_LIMITS['fp16']}); no plugin could use it",
        file=sys.stderr,
    )
    return True


def prepared(
    module: ModuleType, shape: Shape, tensors: dict[str, torch.Tensor], plan: Callable[..., object] = choices.planned
) -> Callable[[], None]:
    """Return a function that runs a module's launches on named tensors, without converting or allocating anything."""
    known = {name: typed(name, tensor, shape) for name, tensor in tensors.items()}
    known |= verification.run(module, shape, tensors, plan)
    batch, device = known["x"].shape[0], known["x"].device
    steps = registry.launches(module, shape, plan)
    for launch in steps:
        for name, dtype in launch.arguments.items():
            # An intermediate tensor between two launches.
            if name not in known:
                known[name] = torch.empty(size_of(name, shape, batch), dtype=DTYPES[dtype], device=device)

    def run() -> None:
        for launch in steps:
            launch(batch, *(known[name] for name in launch.arguments))

    return run


def kernel_unit(kernel: str, shapes: list[dict[str, Any]], batch: int) -> Iterator[dict[str, Any]]:
    """Tune one kernel at some shapes on the GPU; yield a row per shape."""
    # The twins are fp32 or more.
    torch.backends.cudnn.allow_tf32 = False
    module = module_of(kernel)
    kind = RestShape if module in registry.REST else DecoderShape if module in registry.AROUND else Shape
    for shape in shapes:
        at = kind(**shape)
        tensors = block_tensors(at, batch, device="cuda")
        fastest, share = best(module, at, tensors, THOROUGH, ROUGH)
        yield {"key": choices.key(module.launch, at), "tiles": fastest, "share": share}


def chain_unit(shape: dict[str, Any], batch: int) -> Iterator[dict[str, Any]]:
    """Choose among the chains of kernels at one shape on the GPU, with the tile sizes chosen before.

    Those are in the folder that LSMS_RT_TUNED names.
    """
    torch.backends.cudnn.allow_tf32 = False
    at = Shape(**shape)
    yield {"key": choices.key_of("chain", at)} | best_chain(at, batch, "cuda", THOROUGH)


def best_chain(shape: Shape, batch: int, device: str, stopwatch: Stopwatch) -> dict[str, Any]:
    """Return the fastest correct chain as ``tiles``, {} for the default, and its ``share`` of the default's time."""
    tensors = block_tensors(shape, batch, device=device)
    default, *others = (_chain_time(name, shape, tensors, stopwatch) for name in registry.CHAINS)
    for took, name in sorted(zip(others, registry.CHAINS[1:], strict=True)):
        if took < GAIN * default and all(row["ok"] for row in verify_block([shape], device, name)):
            return {"tiles": {"name": name}, "share": took / default}
    return {"tiles": {}, "share": 1.0}


def _chain_time(name: str, shape: Shape, tensors: dict[str, torch.Tensor], stopwatch: Stopwatch) -> float:
    steps = [prepared(module, shape, tensors) for module in registry.chain(shape, name)]

    def run() -> None:
        for step in steps:
            step()

    return stopwatch(run).median


def units(shapes: Iterable[Shape], batch: int, folder: Path = choices.FOLDER) -> Iterator[Unit]:
    """Yield one unit for every kernel with all its shapes, and then one for the chain at shapes that have a choice.

    ``folder`` is where the results are written, and where the chain's unit finds those of its kernels.
    """
    shapes_of: dict[str, list[Shape]] = defaultdict(list)
    for shape in (shapes := list(shapes)):
        for module in registry.modules_at(shape):
            shapes_of[registry.name(module)].append(shape)
    for kernel, those in shapes_of.items():
        yield Unit(
            section="tune", name=kernel, function="lsms_rt.bench.gpu.tune:kernel_unit", limit=LIMIT,
            arguments={"kernel": kernel, "shapes": [asdict(shape) for shape in those], "batch": batch},
        )  # fmt: skip
    for shape in shapes:
        if len({tuple(registry.chain(shape, name)) for name in registry.CHAINS}) > 1:
            yield Unit(
                section="tune", name=f"chain, {shape.key}", function="lsms_rt.bench.gpu.tune:chain_unit",
                arguments={"shape": asdict(shape), "batch": batch}, limit=LIMIT,
                variables={choices.VARIABLE: str(folder.absolute())},
            )  # fmt: skip


def tune(units: Iterable[Unit], keep: Callable[[dict[str, Any]], None]) -> int:
    """Tune one unit after another, each in a process of its own, and return how many failed.

    ``keep`` is called with every result at once, so that a machine that is lost costs no more than one.
    """
    failed = 0
    units = list(units)
    with closing(started(units)) as processes:
        for unit, process in tqdm(processes, total=len(units), file=sys.stderr):
            ended = (process or Process(unit)).follow(
                unit.limit, keep, lambda words: print(words, end="", file=sys.stderr)
            )
            if ended.state != RIGHT:
                failed += 1
                print(f"error: {unit.name}: {ended.reason}; what it has not tuned stays", file=sys.stderr)
    return failed


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
    parser.add_argument(
        "--kernel", nargs="+", choices=[*TILES, CHAIN], default=[*TILES, CHAIN],
        help=f"what to tune; {CHAIN} is the choice among chains of kernels",
    )  # fmt: skip
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
        for shape in (*stage_shapes(preset, size, tokens=tokens), *shapes_around(preset, size))
    )
    gpu = torch.cuda.get_device_name()

    def keep(row: dict[str, Any]) -> None:
        choices.write(options.output, gpu, triton.__version__, options.batch, {row["key"]: row["tiles"]})
        if row["tiles"]:
            share = "the default is wrong" if row["share"] is None else f"{row['share']:.2f} of the default's time"
            print(f"{row['key']}: {row['tiles']}, {share}", flush=True)

    wanted = [
        u for u in units(shapes, options.batch, options.output) if u.arguments.get("kernel", CHAIN) in options.kernel
    ]
    failed = tune(wanted, keep)
    print(options.output / choices.file_name(gpu, triton.__version__))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
