"""All kernels once at small shapes: a program for compute-sanitizer to watch.

memcheck finds accesses beside an allocation, racecheck shared memory that is read and written without a barrier,
synccheck barriers that not all threads reach.  (What initcheck would find is NaN in verification, whose outputs start
as NaN.)  racecheck does not know the asynchronous proxy of wgmma, so what it reports of a kernel that uses it must be
judged by its log and by the repeated runs of verification.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from lsms_rt.bench.records import SANITIZED
from lsms_rt.kernels import depthwise_direct, registry
from lsms_rt.kernels.canaries import Canaries
from lsms_rt.kernels.shape import DecoderShape, RestShape, Shape, is_svla
from lsms_rt.kernels.test_data import block_tensors
from lsms_rt.kernels.verify import run

Row = dict[str, Any]
# Five and seven launches a block; an odd map; fp32; what is around SVLA.
SHAPES = (
    Shape(64, 16, 16), Shape(160, 7, 9), Shape(32, 16, 16, dtype="fp32"), RestShape(64, 16, 16), RestShape(160, 7, 9),
    DecoderShape(32, 8, 24),
)  # fmt: skip


def check_kernels(check: str, shapes: Iterable[Shape], device: str) -> Iterator[Row]:
    """Run all kernels at some shapes; a tool's own findings are in its exit code and its log."""
    for shape in shapes:
        # The twins run on the CPU: they are no part of what is watched.
        tensors = {name: tensor.to(device) for name, tensor in block_tensors(shape, 1).items()}
        others = [depthwise_direct] if is_svla(shape) else []
        for module in dict.fromkeys([*registry.modules_at(shape), *others]):
            begin = time.perf_counter()
            # Without margins, because the tool watches the ends of allocations.
            outputs = run(module, shape, tensors, None, Canaries(margin=0))
            written = all(bool(output.isfinite().all()) for output in outputs.values())
            yield {
                "kind": SANITIZED, "check": check, "kernel": registry.name(module), "shape": shape.key,
                "seconds": round(time.perf_counter() - begin, 3), "ok": written,
            }  # fmt: skip


def small_unit(check: str) -> Iterator[Row]:
    yield from check_kernels(check, SHAPES, "cuda")
    torch.cuda.synchronize()
