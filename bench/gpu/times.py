"""Time every kernel alone on a GPU, beside its floor, and the GPU's own ceilings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

import torch

from lsms_rt.bench.records import CEILINGS, KERNELS_TIMED
from lsms_rt.bench.timing import Stopwatch
from lsms_rt.kernels import depthwise, registry
from lsms_rt.kernels import tuned_tiles as choices
from lsms_rt.kernels.shape import Shape
from lsms_rt.kernels.test_data import block_tensors

from . import roofline
from .timer import current_ceilings, gpu_stopwatch, resources
from .tune import prepared
from .verify import module_of, shapes_of

Row = dict[str, Any]
# Kernels in a chain whose time is that of the gaps between them.
CHAIN = 100


def time_kernel(
    module: ModuleType, shapes: Iterable[Shape], batches: Sequence[int], stopwatch: Stopwatch, device: str,
    gpu: roofline.Gpu,
) -> Iterator[Row]:  # fmt: skip
    """Time a kernel alone in a CUDA graph; yield one row per shape and batch, with the floor of its bytes and work."""
    name = registry.name(module)
    for shape in shapes:
        takes = resources(registry.launches(module, shape, choices.planned))
        for batch in batches:
            time = stopwatch(prepared(module, shape, block_tensors(shape, batch, device=device)))
            row: Row = {"kind": KERNELS_TIMED, "kernel": name, "shape": shape.key, "batch": batch, **takes}
            row["time"] = time.to_dict()
            floors = {step.name: step for chain in registry.CHAINS for step in roofline.fused(shape, batch, chain)}
            if name in floors:
                step = floors[name]
                # Resident in the L2 cache, because it runs alone and repeatedly.
                floor = step.floor(gpu, resident=step.bytes < gpu.l2_bytes) * 1e3
                # With the zeros and overlaps of its tiling: the limit of this algorithm.
                if module is depthwise:
                    executed = 2 * roofline.executed_macs(shape) * batch / gpu.tensor * 1e3
                    row["executed_ms"] = float(f"{executed:.4g}")
                row |= {"floor_ms": float(f"{floor:.4g}"), "of_floor_speed": float(f"{floor / time.median:.3g}")}
            yield row


def kernel_unit(kernel: str, presets: list[str], size: int, batches: list[int]) -> Iterator[Row]:
    """Time a kernel on the GPU."""
    shapes = shapes_of(kernel, presets, [size])
    yield from time_kernel(module_of(kernel), shapes, batches, gpu_stopwatch(), "cuda", current_ceilings())


def ceilings_unit() -> Iterator[Row]:
    """Measure bytes/s of a large copy, operations/s of a large fp16 product, and the gap between two small kernels."""
    from .small_kernels import nothing

    stopwatch, gpu = gpu_stopwatch(), current_ceilings()
    n = 2**28
    a, b = torch.empty(n, dtype=torch.float16, device="cuda"), torch.empty(n, dtype=torch.float16, device="cuda")
    copy = 2 * 2 * n / (stopwatch(lambda: b.copy_(a)).median * 1e-3)
    m = torch.randn(8192, 8192, dtype=torch.float16, device="cuda")
    product = 2 * 8192**3 / (stopwatch(lambda: m @ m).median * 1e-3)

    def chain() -> None:
        for _ in range(CHAIN):
            nothing[(1,)](m)

    yield {
        "kind": CEILINGS, "copy_bytes_per_s": copy, "fp16_operations_per_s": product,
        "gap_s": stopwatch(chain).median * 1e-3 / CHAIN, "assumed": vars(gpu),
    }  # fmt: skip
