"""Time kernels, blocks and models on a GPU, beside PyTorch and their floors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from lsms_rt.bench.samples import Samples
from lsms_rt.bench.timing import Stopwatch
from lsms_rt.kernels import depthwise, depthwise_direct, registry, svla
from lsms_rt.kernels.launch import DTYPES
from lsms_rt.kernels.shape import Shape
from lsms_rt.kernels.test_data import block_tensors, random_inputs, random_weights, weights_on
from lsms_rt.model import LSMS, folded, functional, preset
from lsms_rt.model.runner import TorchRunner

from . import roofline
from .tune import prepared
from .verify import TEXT, Row


def time_kernels(
    shapes: Iterable[Shape], batches: Sequence[int], stopwatch: Stopwatch, device: str, gpu: roofline.Gpu
) -> Iterator[Row]:
    """Time every kernel alone in a CUDA graph; yield one row each, with the floor of its bytes and operations."""
    for shape in tqdm(list(shapes), desc="kernels", file=sys.stderr):
        for batch in batches:
            tensors = block_tensors(shape, batch, device=device)
            floors = {step.name: step for step in roofline.fused(shape, batch)}
            for module in dict.fromkeys([*registry.chain(shape), depthwise_direct]):
                name = registry.name(module)
                row: Row = {"kernel": name, "shape": shape.key, "batch": batch}
                time = stopwatch(prepared(module, shape, tensors))
                row["time"] = time.to_dict()
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


def time_parts(
    shapes: Iterable[Shape], batches: Sequence[int], stopwatch: Stopwatch, device: str, compiler: str | None
) -> Iterator[Row]:
    """Time the depthwise part and the whole block: ours in a CUDA graph, and PyTorch in several ways."""
    for shape in tqdm(list(shapes), desc="parts", file=sys.stderr):
        for batch in batches:
            for part, (pytorch, ours, x) in _parts(shape, batch, device).items():
                row: Row = {"part": part, "shape": shape.key, "batch": batch, "ours": stopwatch(ours).to_dict()}
                row |= {name: samples.to_dict() for name, samples in _ways(pytorch, x, stopwatch, compiler).items()}
                rival = min((name for name in WAYS if name in row), key=lambda name: float(row[name]["p50"]))
                speedup = round(row[rival]["p50"] / row["ours"]["p50"], 2)
                yield row | {"rival": rival, "speedup_over_rival": speedup}


Part = tuple[Callable[[Tensor], object], Callable[[], object], Tensor]


def _parts(shape: Shape, batch: int, device: str) -> dict[str, Part]:
    """Return, by name: PyTorch's operations on an input, our kernels, and the input."""
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
        "depthwise": (
            lambda z: functional.multi_scale_depthwise(z, w.center, w.strips),
            lambda: convolution(x, packed.bands, packed.bias, packed.row_bias),
            x,
        ),
        "block": (lambda z: functional.svla(z, keys, values, mask, w), kernels, x),
        "block, folded stock": (lambda z: folded.svla(z, fk, fv, mask, w), kernels, x),
    }


WAYS = ("eager", "eager_channels_last", "compiled", "cuda_graph")


def _ways(run: Callable[[Tensor], object], x: Tensor, stopwatch: Stopwatch, compiler: str | None) -> dict[str, Samples]:
    """Time PyTorch eager with channels first and last, in a CUDA graph, and through torch.compile."""
    last = x.to(memory_format=torch.channels_last)
    times = {
        "eager": stopwatch(lambda: run(x), graph=False),
        "eager_channels_last": stopwatch(lambda: run(last), graph=False),
        "cuda_graph": stopwatch(lambda: run(x)),
    }
    if compiler:
        torch._dynamo.reset()
        compiled = torch.compile(run, mode=compiler, dynamic=False)
        times["compiled"] = stopwatch(lambda: compiled(x))
    return times


def time_models(
    presets: Sequence[str], size: int, batches: Sequence[int], stopwatch: Stopwatch, device: str, gpu: roofline.Gpu,
    kernels: str, compiler: str | None, dtype: torch.dtype | None = None,
) -> Iterator[Row]:  # fmt: skip
    """Time the image graph with an encoded sentence: PyTorch eager and compiled, and our kernels in a CUDA graph."""
    for name in presets:
        config = preset(name, image_size=size, text=TEXT)
        torch.manual_seed(0)
        reference = LSMS(config, "reference").eval()
        for batch in tqdm(batches, desc=name, file=sys.stderr):
            image = torch.rand(batch, 1, size, size) * 2 - 1
            tokens, mask = torch.randint(0, 64, (1, 32)), torch.ones(1, 32)
            row: Row = {"preset": name, "image_size": size, "batch": batch}
            variants: list[tuple[str, str, str | None]] = [("eager", "reference", None), ("ours", kernels, None)]
            if compiler:
                variants += [("compiled", "reference", compiler), ("ours_compiled_rest", kernels, compiler)]
            for way, form, mode in variants:
                torch._dynamo.reset()
                model = LSMS(config, form).eval()
                model.load_state_dict(reference.state_dict())
                graphs = device == "cuda" and way != "eager"
                runner = TorchRunner(model, device, dtype, graphs=graphs, compile_mode=mode)
                on_device = image.to(runner.device, runner.dtype)
                text = runner.encode_text(tokens, mask)
                row[way] = stopwatch(lambda: runner.segment(on_device, text), graph=False).to_dict()  # noqa: B023
                runner.close()
            floor = roofline.image_graph_floor(name, size, batch, gpu) * 1e3
            row["floor_ms"] = round(floor, 4)
            for way in ("ours", "ours_compiled_rest"):
                if way in row:
                    row[way]["times_floor"] = round(row[way]["p50"] / floor, 2)
                if way in row and "compiled" in row:
                    row[way]["speedup_over_compiled"] = round(row["compiled"]["p50"] / row[way]["p50"], 2)
            yield row


def measured_ceilings(stopwatch: Stopwatch, gpu: roofline.Gpu) -> Row:
    """Measure bytes/s of a large copy and operations/s of a large fp16 product on this GPU."""
    n = 2**28
    a, b = torch.empty(n, dtype=torch.float16, device="cuda"), torch.empty(n, dtype=torch.float16, device="cuda")
    copy = 2 * 2 * n / (stopwatch(lambda: b.copy_(a)).median * 1e-3)
    m = torch.randn(8192, 8192, dtype=torch.float16, device="cuda")
    product = 2 * 8192**3 / (stopwatch(lambda: m @ m).median * 1e-3)
    return {"copy_bytes_per_s": copy, "fp16_operations_per_s": product, "assumed": vars(gpu)}
