"""Time the depthwise part and the whole block on a GPU: ours, and PyTorch's operations in several ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from lsms_rt.bench.records import PARTS_TIMED
from lsms_rt.bench.samples import Samples
from lsms_rt.bench.timing import Stopwatch
from lsms_rt.kernels import depthwise, depthwise_direct, svla
from lsms_rt.kernels.launch import DTYPES
from lsms_rt.kernels.shape import Shape, stage_shapes
from lsms_rt.kernels.test_data import random_inputs, random_weights, weights_on
from lsms_rt.model import folded, functional

from .timer import gpu_stopwatch

Row = dict[str, Any]
Part = tuple[Callable[[Tensor], object], Callable[[], object], Tensor]


def time_parts(shape: Shape, batch: int, stopwatch: Stopwatch, device: str, compiler: str | None) -> Iterator[Row]:
    """Yield one row per part and way: ours in a CUDA graph and PyTorch without compiler, or all that is compiled.

    Rows of one part are put together afterwards, so an error costs only the ways that come after it.
    """
    for part, (pytorch, ours, x) in _parts(shape, batch, device).items():
        row: Row = {"kind": PARTS_TIMED, "part": part, "shape": shape.key, "batch": batch}
        for way, samples in _ways(pytorch, ours, x, stopwatch, compiler):
            yield row | {way: samples.to_dict()}


def part_unit(preset: str, size: int, stage: int, batch: int, compiler: str | None) -> Iterator[Row]:
    """Time the parts of one stage on the GPU."""
    yield from time_parts(stage_shapes(preset, size)[stage], batch, gpu_stopwatch(), "cuda", compiler)


def _parts(shape: Shape, batch: int, device: str) -> dict[str, Part]:
    """Return, by name: PyTorch's operations on an input, our kernels, and the input; the block first."""
    dtype = DTYPES[shape.dtype]
    w = weights_on(random_weights(shape.channels), device, dtype)
    packed = svla.pack(w, shape.height)
    inputs = random_inputs(batch, shape.channels, shape.height, shape.width, shape.tokens)
    x, keys, values, mask = (t.to(device, dtype) for t in inputs)
    fk, fv = folded.fold_sentence(keys, values, mask, w.output)
    convolution = depthwise.multi_scale_depthwise if shape.dtype == "fp16" else depthwise_direct.depthwise_direct

    def kernels() -> object:
        return svla.svla(x, fk, fv, mask, packed)

    return {
        "block, folded stock": (lambda z: folded.svla(z, fk, fv, mask, w), kernels, x),
        "block": (lambda z: functional.svla(z, keys, values, mask, w), kernels, x),
        "depthwise": (
            lambda z: functional.multi_scale_depthwise(z, w.center, w.strips),
            lambda: convolution(x, packed.bands, packed.bias, packed.row_bias),
            x,
        ),
    }


def _ways(
    run: Callable[[Tensor], object], ours: Callable[[], object], x: Tensor, stopwatch: Stopwatch, compiler: str | None
) -> Iterator[tuple[str, Samples]]:
    """Time PyTorch with channels first and last, eager and in a CUDA graph, then ours; or what ``compiler`` makes."""
    last = x.to(memory_format=torch.channels_last)
    if compiler is None:
        # Our kernels last: if one ruins the context, PyTorch's times are there.
        yield "cuda_graph", stopwatch(lambda: run(x))
        yield "cuda_graph_channels_last", stopwatch(lambda: run(last))
        yield "eager", stopwatch(lambda: run(x), graph=False)
        yield "eager_channels_last", stopwatch(lambda: run(last), graph=False)
        yield "ours", stopwatch(ours)
        return
    name = "compiled" if compiler == "default" else f"compiled_{compiler.replace('-', '_')}"
    for way, z in ((name, x), (f"{name}_channels_last", last)):
        torch._dynamo.reset()
        compiled = torch.compile(run, mode=compiler, dynamic=False)
        yield way, stopwatch(lambda: compiled(z))  # noqa: B023
