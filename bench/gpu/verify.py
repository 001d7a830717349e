"""Verify on a GPU that every kernel is correct, and that a captured CUDA graph follows its inputs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from typing import Any

import torch
from tqdm import tqdm

from lsms_rt.kernels import depthwise_direct, registry, svla
from lsms_rt.kernels import tuned_tiles as choices
from lsms_rt.kernels.launch import DTYPES
from lsms_rt.kernels.shape import Shape
from lsms_rt.kernels.test_data import block_tensors, random_inputs, random_weights, weights_on
from lsms_rt.kernels.verify import verify
from lsms_rt.model import LSMS, TextConfig, folded, functional, preset
from lsms_rt.model.config import MAX_TOKENS
from lsms_rt.model.runner import TorchRunner

# Small, because the text half is not timed.
TEXT = TextConfig(vocab_size=64, hidden_size=64, layers=1, heads=1, intermediate_size=64)
Row = dict[str, Any]
# Relative error of the whole block, in the norm.  fp16: six roundings to 11 bits in a row; on a CPU the folded form has
# 1.0e-3 to 1.8e-3 (tests/model/test_folded.py).  fp32: the tolerance of one kernel.
BLOCK_TOLERANCE = {"fp16": 4e-3, "fp32": 2e-5}
# Differences of the runner relative to the maximum logit, through 13 blocks in fp16: at most, at least, at most.  On a
# CPU they are 1.5e-3 against the definition in fp32, and 1.5e-3 between two sentences of an untrained model.
RUNNER_GRAPH, RUNNER_CHANGE, RUNNER_DEFINITION = 1e-2, 1e-4, 2e-2


def precompile(shapes: Sequence[Shape]) -> None:
    """Fill Triton's cache from one process per core, because one process compiles for many minutes."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        list(tqdm(pool.map(_warm_up, shapes), total=len(shapes), desc="compiling", file=sys.stderr))


def _warm_up(shape: Shape) -> None:
    for module in dict.fromkeys([*registry.chain(shape), depthwise_direct]):
        for launch in registry.launches(module, shape, choices.planned):
            types = [DTYPES[dtype] for dtype in launch.arguments.values()]
            options = {"num_warps": launch.warps, "num_stages": launch.stages}
            launch.kernel.warmup(*types, **launch.constants, **options, grid=(1,))


def verify_kernels(shapes: Iterable[Shape], batches: Sequence[int], device: str) -> list[Row]:
    """Verify all kernels of some shapes and both depthwise forms, with several batches and numbers of tokens."""
    rows = []
    for shape in tqdm(list(shapes), desc="verifying", file=sys.stderr):
        for batch in batches:
            words = [min(n, shape.tokens) for n in (MAX_TOKENS, 20, 1, 0)]
            tensors = block_tensors(shape, batch, words[:batch], device=device)
            modules = dict.fromkeys([*registry.chain(shape), depthwise_direct])
            for module in modules:
                rows += [{"part": "kernel"} | asdict(e) | {"ok": e.ok} for e in verify(module, shape, tensors)]
    return rows


def verify_block(shapes: Iterable[Shape], device: str) -> list[Row]:
    """Compare the chain of kernels, and the stock form in the same type, with the block's definition in float64."""
    rows = []
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
        row: Row = {"part": "block", "shape": shape.key, "tokens": tokens}
        for name, result in (
            ("triton", svla.svla(x, keys, values, mask, svla.pack(small, shape.height))),
            ("stock", folded.svla(x, keys, values, mask, small)),
        ):
            row[name] = float((result.double() - exact).norm() / scale)
        rows.append(row | {"ok": row["triton"] <= BLOCK_TOLERANCE[shape.dtype]})
    return rows


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
        "part": "runner",
        "graph_against_none": float(max((a[0] - a[1]).abs().max() for a in (*answers, other)) / scale),
        "another_image_changes": float((answers[0][1] - answers[1][1]).abs().max() / scale),
        "another_sentence_changes": float((other[1] - answers[1][1]).abs().max() / scale),
        "against_fp32_definition": float(max((a[1] - a[2]).abs().max() for a in answers) / scale),
    }


def faults(rows: list[Row], blocks: list[Row], runner: Row) -> list[str]:
    """Return what is wrong, in words; empty if everything is correct."""
    failures = [
        f"{r['kernel']} {r['output']} {r['shape']} batch {r['batch']}: error {r['error']:.1e}"
        for r in rows
        if not r["ok"]
    ]
    failures += [f"the block at {b['shape']}: error {b['triton']:.1e}" for b in blocks if not b["ok"]]
    if not runner["graph_against_none"] < RUNNER_GRAPH:
        failures.append(f"the CUDA graph differs from the run without one: {runner['graph_against_none']:.1e}")
    for name in ("another_image_changes", "another_sentence_changes"):
        if not runner[name] > RUNNER_CHANGE:
            failures.append(f"{name}: {runner[name]:.1e}; the CUDA graph does not read its inputs")
    if not runner["against_fp32_definition"] < RUNNER_DEFINITION:
        failures.append(f"fp16 differs from the definition in fp32: {runner['against_fp32_definition']:.1e}")
    return failures
