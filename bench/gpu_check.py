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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lsms_rt.kernels import choices, depthwise, depthwise_direct, missing, registry, svla
from lsms_rt.kernels.launch import DTYPES
from lsms_rt.kernels.sample import block_tensors, random_inputs, random_weights
from lsms_rt.kernels.shape import Shape, all_shapes, stage_shapes
from lsms_rt.kernels.verify import verify
from lsms_rt.model import LSMS, TextConfig, folded, functional, preset
from lsms_rt.model.functional import SvlaWeights
from lsms_rt.model.runner import TorchRunner

from . import roofline
from .clock import Clock, GpuClock, Times
from .provenance import provenance
from .tune import prepared

SIZES = (224, 256, 384, 480, 512, 640)  # image sizes whose shapes are verified: odd maps, windows, one window
TEXT = TextConfig(vocab_size=64, hidden_size=64, layers=1, heads=1, intermediate_size=64)  # the text half is not timed
Row = dict[str, Any]


# ------------------------------------------------------------------------------------------------ right


def verify_kernels(shapes: Iterable[Shape], batches: Sequence[int], device: str) -> list[Row]:
    """All kernels of ``shapes``, both depthwise forms, several batches and numbers of tokens."""
    rows = []
    for shape in tqdm(list(shapes), desc="verifying", file=sys.stderr):
        for batch in batches:
            tensors = block_tensors(shape, batch, [32, 20, 1, 0][:batch], device=device)
            modules = dict.fromkeys([*registry.chain(shape), depthwise_direct])
            for module in modules:
                rows += [asdict(error) | {"ok": error.ok} for error in verify(module, shape, tensors)]
    return rows


def verify_block(shapes: Iterable[Shape], device: str) -> list[Row]:
    """The whole chain of kernels against the block's definition in float64, and the stock form in the same type."""
    rows = []
    for shape in shapes:
        weights = random_weights(shape.channels)
        inputs = random_inputs(2, shape.channels, shape.height, shape.width, 20, [20, 7])
        x, keys, values, mask = (t.to(device) for t in inputs)
        wanted = functional.svla(x, keys, values, mask, _on(weights, device, torch.float64))
        small = _on(weights, device, DTYPES[shape.dtype])
        keys, values = folded.fold_sentence(keys, values, mask, _on(weights, device, torch.float64).output)
        x, keys, values, mask = (t.to(DTYPES[shape.dtype]) for t in (x, keys, values, mask))
        scale = wanted.norm()
        row: Row = {"shape": shape.key}
        for name, found in (
            ("triton", svla.svla(x, keys, values, mask, svla.pack(small, shape.height))),
            ("stock", folded.svla(x, keys, values, mask, small)),
        ):
            row[name] = float((found.double() - wanted).norm() / scale)
        rows.append(row)
    return rows


def verify_runner(device: str, kernels: str, graphs: bool, size: int = 256) -> Row:
    """A captured graph follows its inputs, and equals the same model without a graph; fp16 beside fp32."""
    torch.manual_seed(0)
    config = preset("tiny", image_size=size, text=TEXT)
    reference = LSMS(config, "reference").eval()
    plain, captured = LSMS(config, kernels).eval(), LSMS(config, kernels).eval()
    for model in (plain, captured):
        model.load_state_dict(reference.state_dict())
    runners = TorchRunner(plain, device, graphs=False), TorchRunner(captured, device, graphs=graphs)
    full = TorchRunner(reference, device, torch.float32, graphs=False)
    tokens, mask = torch.randint(0, 64, (1, 32)), torch.ones(1, 32)
    answers = []
    for seed in (1, 2):
        image = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        answers.append([r.segment(image, r.encode_text(tokens, mask)).double().cpu() for r in (*runners, full)])
    other = [runner.segment(image, runner.encode_text(tokens.flip(1), mask)).double().cpu() for runner in runners]
    scale = answers[0][2].abs().max()
    return {
        "graph_against_none": float(max((a[0] - a[1]).abs().max() for a in (*answers, other)) / scale),
        "another_image_changes": float((answers[0][1] - answers[1][1]).abs().max() / scale),
        "another_sentence_changes": float((other[1] - answers[1][1]).abs().max() / scale),
        "against_fp32_definition": float(max((a[1] - a[2]).abs().max() for a in answers) / scale),
    }


def faults(rows: list[Row], runner: Row) -> list[str]:
    """What is wrong, in words; empty where all is right."""
    found = [
        f"{r['kernel']} {r['output']} {r['shape']} batch {r['batch']}: error {r['error']:.1e}"
        for r in rows
        if not r["ok"]
    ]
    if not runner["graph_against_none"] < 1e-2:
        found.append(f"the CUDA graph differs from the run without: {runner['graph_against_none']:.1e}")
    for name in ("another_image_changes", "another_sentence_changes"):
        if not runner[name] > 1e-4:
            found.append(f"{name}: {runner[name]:.1e}; the graph does not read its inputs")
    if not runner["against_fp32_definition"] < 5e-2:
        found.append(f"fp16 differs from the definition in fp32: {runner['against_fp32_definition']:.1e}")
    return found


# ------------------------------------------------------------------------------------------------- fast


def time_kernels(
    shapes: Iterable[Shape], batches: Sequence[int], clock: Clock, device: str, gpu: roofline.Gpu
) -> list[Row]:
    """Every kernel alone, under a CUDA graph, beside the floor of its bytes and operations on ``gpu``."""
    rows = []
    for shape in tqdm(list(shapes), desc="kernels", file=sys.stderr):
        for batch in batches:
            tensors = block_tensors(shape, batch, device=device)
            floors = {step.name: step for step in roofline.fused(shape, batch)}
            resident = 5 * roofline.sizes(shape, batch).map < gpu.l2_bytes
            for module in dict.fromkeys([*registry.chain(shape), depthwise_direct]):
                name = registry.name(module)
                row: Row = {"kernel": name, "shape": shape.key, "batch": batch}
                row |= clock(prepared(module, shape, tensors)).to_dict()
                if name in floors:
                    floor = floors[name].floor(gpu, resident) * 1e3
                    row |= {"floor_ms": float(f"{floor:.4g}"), "of_floor_speed": float(f"{floor / row['p50_ms']:.3g}")}
                rows.append(row)
    return rows


def time_parts(
    shapes: Iterable[Shape], batches: Sequence[int], clock: Clock, device: str, compiler: str | None
) -> list[Row]:
    """The depthwise part, and the whole block: ours under a CUDA graph beside PyTorch's ways, in the shape's type."""
    rows = []
    for shape in tqdm(list(shapes), desc="parts", file=sys.stderr):
        for batch in batches:
            for part, (theirs, ours, x) in _parts(shape, batch, device).items():
                row: Row = {"part": part, "shape": shape.key, "batch": batch, "ours": clock(ours).to_dict()}
                row |= {name: times.to_dict() for name, times in _ways(theirs, x, clock, compiler).items()}
                best = min(row[name]["p50_ms"] for name in WAYS if name in row)
                row["speedup_over_best"] = round(best / row["ours"]["p50_ms"], 2)
                rows.append(row)
    return rows


Part = tuple[Callable[[Tensor], object], Callable[[], object], Tensor]


def _parts(shape: Shape, batch: int, device: str) -> dict[str, Part]:
    """What is timed: PyTorch's operations on an input, our kernels, and the input."""
    dtype = DTYPES[shape.dtype]
    w = _on(random_weights(shape.channels), device, dtype)
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


def _ways(run: Callable[[Tensor], object], x: Tensor, clock: Clock, compiler: str | None) -> dict[str, Times]:
    """(a) eager, channels first and last; (b) torch.compile; (c) the same sequence under a CUDA graph."""
    last = x.to(memory_format=torch.channels_last)
    found = {
        "eager": clock(lambda: run(x), graph=False),
        "eager_channels_last": clock(lambda: run(last), graph=False),
        "cuda_graph": clock(lambda: run(x)),
    }
    if compiler:
        torch._dynamo.reset()
        compiled = torch.compile(run, mode=compiler, dynamic=False)
        found["compiled"] = clock(lambda: compiled(x))
    return found


def time_models(
    presets: Sequence[str], size: int, batches: Sequence[int], clock: Clock, device: str, gpu: roofline.Gpu,
    kernels: str, compiler: str | None, dtype: torch.dtype | None = None,
) -> list[Row]:  # fmt: skip
    """The whole image graph, sentence encoded before: eager and compiled definition, our kernels under a CUDA graph."""
    rows = []
    for name in presets:
        config = preset(name, image_size=size, text=TEXT)
        torch.manual_seed(0)
        reference = LSMS(config, "reference").eval()
        for batch in tqdm(batches, desc=name, file=sys.stderr):
            image = torch.rand(batch, 1, size, size) * 2 - 1
            tokens, mask = torch.randint(0, 64, (1, 32)), torch.ones(1, 32)
            row: Row = {"preset": name, "image_size": size, "batch": batch}
            plans: list[tuple[str, str, str | None]] = [("eager", "reference", None), ("ours", kernels, None)]
            if compiler:
                plans += [("compiled", "reference", compiler), ("ours_compiled_rest", kernels, compiler)]
            for way, form, mode in plans:
                torch._dynamo.reset()
                model = LSMS(config, form).eval()
                model.load_state_dict(reference.state_dict())
                graphs = device == "cuda" and way != "eager"
                runner = TorchRunner(model, device, dtype, graphs=graphs, compile_mode=mode)
                on_device = image.to(runner.device, runner.dtype)
                text = runner.encode_text(tokens, mask)
                row[way] = clock(lambda: runner.segment(on_device, text), graph=False).to_dict()  # noqa: B023
                runner.close()
            floor = roofline.image_graph_floor(name, size, batch, gpu) * 1e3
            row |= {"floor_ms": round(floor, 4), "times_floor": round(row["ours"]["p50_ms"] / floor, 2)}
            if "compiled" in row:
                fastest = min(row[w]["p50_ms"] for w in ("ours", "ours_compiled_rest"))
                row["speedup_over_compiled"] = round(row["compiled"]["p50_ms"] / fastest, 2)
            rows.append(row)
    return rows


def measured_ceilings(clock: Clock, gpu: roofline.Gpu) -> Row:
    """Bytes/s of a large copy, and operations/s of a large fp16 product: what this very GPU reaches."""
    n = 2**28
    a, b = torch.empty(n, dtype=torch.float16, device="cuda"), torch.empty(n, dtype=torch.float16, device="cuda")
    copy = 2 * 2 * n / (clock(lambda: b.copy_(a)).p50 * 1e-3)
    m = torch.randn(8192, 8192, dtype=torch.float16, device="cuda")
    product = 2 * 8192**3 / (clock(lambda: m @ m).p50 * 1e-3)
    return {"copy_bytes_per_s": copy, "fp16_operations_per_s": product, "assumed": vars(gpu)}


def _on(weights: SvlaWeights, device: str, dtype: torch.dtype) -> SvlaWeights:
    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, dtype)
        return type(value)(move(item) for item in value)

    return SvlaWeights(**{name: move(value) for name, value in vars(weights).items()})


# ---------------------------------------------------------------------------------------------- command


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


def precompile(shapes: Sequence[Shape]) -> None:
    """Fill Triton's cache from as many processes as there are cores: one alone compiles for many minutes."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        list(tqdm(pool.map(_warm_up, shapes), total=len(shapes), desc="compiling", file=sys.stderr))


def _warm_up(shape: Shape) -> None:
    for module in dict.fromkeys([*registry.chain(shape), depthwise_direct]):
        for launch in registry.launches(module, shape, choices.planned):
            types = [DTYPES[dtype] for dtype in launch.arguments.values()]
            options = {"num_warps": launch.warps, "num_stages": launch.stages}
            launch.kernel.warmup(*types, **launch.constants, **options, grid=(1,))


if __name__ == "__main__":
    sys.exit(main())
