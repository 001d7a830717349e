"""Time the image graph of a model on a GPU in several ways, and see where its time goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

# Five seconds, which the text half would spend inside a unit; so they pass while another unit is timed.
import transformers.models.bert.modeling_bert  # noqa: F401

from lsms_rt.bench.records import MODELS_TIMED, SHARES
from lsms_rt.bench.timing import Stopwatch
from lsms_rt.model import LSMS, preset
from lsms_rt.model.runner import TorchRunner

from . import roofline
from .timer import current_ceilings, gpu_stopwatch
from .verify import TEXT

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to run a model: the form of its blocks, a CUDA graph, the compiler, the layout of its maps, the decoder."""

    form: str
    graph: bool = True
    compiler: str | None = None
    channels_last: bool = False
    folded_decoder: bool = False


WAYS = {
    "ours": Way(form="triton"),
    "ours_folded_decoder": Way(form="triton", folded_decoder=True),
    # The fairest rival: the same algebra, by PyTorch's kernels.
    "stock_graph": Way(form="stock"),
    "stock_graph_channels_last": Way(form="stock", channels_last=True),
    "eager": Way(form="reference", graph=False),
    "compiled": Way(form="reference", compiler="default"),
    "compiled_max_autotune": Way(form="reference", compiler="max-autotune-no-cudagraphs"),
    "ours_compiled_rest": Way(form="triton", compiler="default"),
}
# Calls that the profiler sees.
CALLS = 5


def time_model(
    name: str, size: int, batch: int, way: str, stopwatch: Stopwatch, device: str, gpu: roofline.Gpu,
    how: Way | None = None,
) -> Row:  # fmt: skip
    """Time the image graph with an encoded sentence; ``how`` replaces what ``way`` stands for."""
    run, runner = _prepared(name, size, batch, how or WAYS[way], device)
    time = stopwatch(run, graph=False).to_dict()
    runner.close()
    floor = roofline.image_graph_floor(name, size, batch, gpu) * 1e3
    row = {"kind": MODELS_TIMED, "preset": name, "image_size": size, "batch": batch, "floor_ms": round(floor, 4)}
    return row | {way: time}


def _prepared(name: str, size: int, batch: int, how: Way, device: str) -> tuple[Any, TorchRunner]:
    """Return a function that runs the image graph, and its runner."""
    torch.manual_seed(0)
    model = LSMS(preset(name, image_size=size, text=TEXT), how.form).eval()
    if how.folded_decoder:
        model.fold_decoder()
    layout = torch.channels_last if how.channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    graphs = how.graph and device == "cuda"
    runner = TorchRunner(model, device, graphs=graphs, compile_mode=how.compiler)
    image = torch.rand(batch, 1, size, size) * 2 - 1
    on_device = image.to(runner.device, runner.dtype, memory_format=layout)
    text = runner.encode_text(torch.randint(0, 64, (1, 32)), torch.ones(1, 32))
    return lambda: runner.segment(on_device, text), runner


def model_unit(preset: str, size: int, batch: int, way: str) -> Iterator[Row]:
    """Time one way on the GPU."""
    yield time_model(preset, size, batch, way, gpu_stopwatch(), "cuda", current_ceilings())


def share_unit(preset: str, size: int, batch: int = 1) -> Iterator[Row]:
    """Yield the share of each kernel in a run, by the profiler: ours, and the same algebra in PyTorch's kernels."""
    torch.backends.cudnn.benchmark = True
    for way in ("ours", "stock_graph"):
        # Without a CUDA graph, so that the profiler knows the kernels' names on every machine.
        how = WAYS[way]
        run, runner = _prepared(preset, size, batch, Way(form=how.form, graph=False), "cuda")
        yield {"kind": SHARES, "preset": preset, "image_size": size, "batch": batch, "way": way} | shares(run)
        runner.close()


def shares(run: Any) -> Row:
    """Return the microseconds of every kernel in one run, and the share of ours."""
    from torch.profiler import ProfilerActivity, profile

    for _ in range(3):
        run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(CALLS):
            run()
        torch.cuda.synchronize()
    times: dict[str, float] = defaultdict(float)
    for event in profiler.events():
        # A kernel's row; others are calls that lead to one, which would be counted twice.
        if event.device_type.name == "CUDA":
            times[event.name] += event.time_range.elapsed_us() / CALLS
    return shared_out(times)


def shared_out(times: dict[str, float]) -> Row:
    """Return all of the time, the share of the project's kernels, and the longest kernels of both kinds."""
    from lsms_rt.kernels import registry

    # Those of fp16; a profiler knows a kernel by its function.
    names = {f"{registry.name(module)}_kernel" for module in (*registry.FP16_MODULES, *registry.AROUND)}
    whole = sum(times.values())
    ours = sum(times[name] for name in names & times.keys())
    longest = sorted(times, key=lambda name: -times[name])[:20]
    return {
        "kernels_us": round(whole, 2),
        "share_of_ours": round(ours / max(whole, 1e-9), 4),
        "longest_us": {name[:80]: round(times[name], 2) for name in longest},
    }
