"""Verify on a GPU that every kernel is correct, and that a captured CUDA graph follows its inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from types import ModuleType
from typing import Any

import torch

from lsms_rt.bench.records import KERNELS_VERIFIED
from lsms_rt.kernels import depthwise_direct, registry, svla
from lsms_rt.kernels import tuned_tiles as choices
from lsms_rt.kernels.canaries import same_bits
from lsms_rt.kernels.launch import DTYPES
from lsms_rt.kernels.shape import Shape, shapes_around, stage_shapes
from lsms_rt.kernels.test_data import block_tensors, random_inputs, random_weights, weights_on
from lsms_rt.kernels.verify import run, verify
from lsms_rt.model import LSMS, TextConfig, folded, functional, preset
from lsms_rt.model.config import MAX_TOKENS, OWN_TOKENS
from lsms_rt.model.runner import TorchRunner

from .timer import resources

# Small, because the text half is not timed.
TEXT = TextConfig(vocab_size=64, hidden_size=64, layers=1, heads=1, intermediate_size=64)
Row = dict[str, Any]
# Relative error of the whole block, in the norm.  fp16: six roundings to 11 bits in a row; on a CPU the folded form has
# 1.0e-3 to 1.8e-3 (tests/model/test_folded.py).  fp32: the tolerance of one kernel.
BLOCK_TOLERANCE = {"fp16": 4e-3, "fp32": 2e-5}
# Differences of the runner relative to the maximum logit, through 13 blocks in fp16: at most, at least, at most.  On a
# CPU they are 1.5e-3 against the definition in fp32, and 1.5e-3 between two sentences of an untrained model.
RUNNER_GRAPH, RUNNER_CHANGE, RUNNER_DEFINITION = 1e-2, 1e-4, 2e-2


def module_of(kernel: str) -> ModuleType:
    """Return a kernel's module by its name."""
    return next(m for m in (*registry.MODULES, *registry.AROUND) if registry.name(m) == kernel)


def shapes_of(
    kernel: str, presets: Iterable[str], sizes: Iterable[int], dtype: str = "fp16", tokens: int = OWN_TOKENS
) -> list[Shape]:
    """Return the distinct shapes at which a kernel runs in some presets; depthwise_direct runs at all of them."""
    module = module_of(kernel)
    around = module in registry.AROUND
    shapes = (
        shape
        for preset in presets
        for size in sizes
        for shape in (shapes_around(preset, size, dtype) if around else stage_shapes(preset, size, dtype, tokens))
    )
    return [s for s in dict.fromkeys(shapes) if module in (*registry.modules_at(s), depthwise_direct)]


def verify_kernel(
    module: ModuleType, shapes: Iterable[Shape], batches: Sequence[int], device: str, repeats: int
) -> Iterator[Row]:
    """Verify a kernel at some shapes, and that ``repeats`` further runs give the same bits."""
    for shape in shapes:
        takes = resources(registry.launches(module, shape, choices.planned))
        for batch in batches:
            words = [min(n, shape.tokens) for n in (MAX_TOKENS, 20, 1, 0)]
            tensors = block_tensors(shape, batch, words[:batch], device=device)
            different = count_different(module, shape, tensors, repeats)
            for deviation in verify(module, shape, tensors):
                row = {"kind": KERNELS_VERIFIED, "part": "kernel"} | asdict(deviation) | takes
                yield row | {"repeats": repeats, "different": different, "ok": deviation.ok and not different}


def count_different(
    module: ModuleType, shape: Shape, tensors: dict[str, torch.Tensor], repeats: int,
    plan: Callable[..., object] = choices.planned,
) -> int:  # fmt: skip
    """Count the runs whose bits differ from those of the first one: no kernel has atomics, so each is a race."""
    first = run(module, shape, tensors, plan)
    again = (run(module, shape, tensors, plan) for _ in range(repeats))
    return sum(not all(same_bits(first[name], output) for name, output in outputs.items()) for outputs in again)


def kernel_unit(
    kernel: str, presets: list[str], sizes: list[int], dtype: str, tokens: int, batches: list[int], repeats: int
) -> Iterator[Row]:
    """Verify a kernel on the GPU; the reference must be fp32, as matrix products are by default."""
    torch.backends.cudnn.allow_tf32 = False
    shapes = shapes_of(kernel, presets, sizes, dtype, tokens)
    yield from verify_kernel(module_of(kernel), shapes, batches, "cuda", repeats)


def block_unit(preset: str, size: int, dtype: str) -> Iterator[Row]:
    """Verify the whole block at the shapes of a preset."""
    torch.backends.cudnn.allow_tf32 = False
    yield from verify_block(stage_shapes(preset, size, dtype), "cuda")


def runner_unit() -> Iterator[Row]:
    """Verify the runner with a CUDA graph, and our kernels."""
    row = verify_runner("cuda", "triton", graphs=True)
    faults = runner_faults(row)
    yield row | {"faults": "; ".join(faults), "ok": not faults}


def verify_block(shapes: Iterable[Shape], device: str, chain: str = "separate") -> Iterator[Row]:
    """Compare a chain of kernels, and the stock form in the same type, with the block's definition in float64."""
    # 40, 20 and 10 tokens are padded to 64, 32 and 16.
    for shape, tokens in itertools.product(shapes, (40, 20, 10)):
        weights = random_weights(shape.channels)
        inputs = random_inputs(2, shape.channels, shape.height, shape.width, tokens, [tokens, 7])
        x, keys, values, mask = (t.to(device) for t in inputs)
        exact = functional.svla(x, keys, values, mask, weights_on(weights, device, torch.float64))
        small = weights_on(weights, device, DTYPES[shape.dtype])
        keys, values = folded.fold_sentence(keys, values, mask, weights_on(weights, device, torch.float64).output)
        x, keys, values, mask = (t.to(DTYPES[shape.dtype]) for t in (x, keys, values, mask))
        scale = exact.norm()
        row: Row = {"kind": KERNELS_VERIFIED, "part": "block", "shape": shape.key, "tokens": tokens}
        for name, result in (
            ("triton", svla.svla(x, keys, values, mask, svla.pack(small, shape.height), chain)),
            ("stock", folded.svla(x, keys, values, mask, small)),
        ):
            row[name] = float((result.double() - exact).norm() / scale)
        yield row | {"ok": row["triton"] <= BLOCK_TOLERANCE[shape.dtype]}


def verify_runner(device: str, kernels: str, graphs: bool, size: int = 256) -> Row:
    """Compare a captured graph with the model without one, for several inputs, and fp16 with fp32."""
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
        "kind": KERNELS_VERIFIED,
        "part": "runner",
        "graph_against_none": float(max((a[0] - a[1]).abs().max() for a in (*answers, other)) / scale),
        "another_image_changes": float((answers[0][1] - answers[1][1]).abs().max() / scale),
        "another_sentence_changes": float((other[1] - answers[1][1]).abs().max() / scale),
        "against_fp32_definition": float(max((a[1] - a[2]).abs().max() for a in answers) / scale),
    }


def runner_faults(runner: Row) -> list[str]:
    """Return what is wrong with the runner, in words; empty if everything is correct."""
    faults = []
    if not runner["graph_against_none"] < RUNNER_GRAPH:
        faults.append(f"the CUDA graph differs from the run without one: {runner['graph_against_none']:.1e}")
    for name in ("another_image_changes", "another_sentence_changes"):
        if not runner[name] > RUNNER_CHANGE:
            faults.append(f"{name}: {runner[name]:.1e}; the CUDA graph does not read its inputs")
    if not runner["against_fp32_definition"] < RUNNER_DEFINITION:
        faults.append(f"fp16 differs from the definition in fp32: {runner['against_fp32_definition']:.1e}")
    return faults
