"""Every kernel, run by Triton's interpreter, against its plain twin in float64.

Outputs start as NaN, so that a pixel that no program wrote is seen.  The interpreter knows nothing of registers, shared
memory, races or rounding to tf32: ``test_aot.py`` compiles the same launches, and ``make gpu-check`` runs them.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from kernel_checks import agree
from torch import Tensor

from lsms_rt.kernels import (
    depthwise,
    depthwise_direct,
    fold_attention,
    fold_keys,
    fold_values,
    gate,
    gate_mix,
    mix,
    query_statistics,
    registry,
    svla,
    token_attention,
)
from lsms_rt.kernels import verify as verification
from lsms_rt.kernels.bands import pack_bands, pack_row_bias
from lsms_rt.kernels.launch import DTYPES
from lsms_rt.kernels.moments import merge, moments
from lsms_rt.kernels.shape import Shape, all_shapes, chunk_of, stage_shapes
from lsms_rt.kernels.svla import PackedWeights, pack
from lsms_rt.kernels.test_data import block_tensors, random_inputs, random_weights, typed
from lsms_rt.kernels.verify import verify
from lsms_rt.model import folded, functional
from lsms_rt.model.functional import EPS

# Attention

MASKS = {"whole": [32, 32], "short": [20, 3], "one": [1, 1], "none": [0, 7], "long": [47, 64]}
# The last one has chunks of 32, the others of 16.
SIZES = [(7, 9), (15, 15), (16, 16), (17, 31)]


SENTENCES = [(32, "whole"), (32, "short"), (16, "short"), (16, "one"), (16, "none"), (64, "long")]
# Every pair of size and sentence, with the types in turn: each type meets each size and each sentence.
ATTENTION = [
    pytest.param(*size, *sentence, ("fp16", "fp32")[(i + j) % 2], marks=[pytest.mark.slow] if i else [])
    for i, size in enumerate(SIZES)
    for j, sentence in enumerate(SENTENCES)
]


@pytest.mark.parametrize(("height", "width", "tokens", "valid", "dtype"), ATTENTION)
def test_attention_kernels(height: int, width: int, tokens: int, valid: str, dtype: str) -> None:
    shape = Shape(32 if tokens == 16 else 64, height, width, tokens, dtype)
    tensors = block_tensors(shape, 2, [min(n, tokens) for n in MASKS[valid]])
    for module in registry.MODULES:
        fits = module is not fold_attention or fold_attention.fits(shape)
        if fits and module not in (depthwise, depthwise_direct):
            agree(module, shape, tensors)


@pytest.mark.parametrize(("channels", "tokens"), [(128, 32), (160, 32), pytest.param(320, 64, marks=pytest.mark.slow)])
def test_attention_kernels_of_more_channels(channels: int, tokens: int) -> None:
    """Several blocks of channels; 160 is not a multiple of 64, and gate_mix supports at most 128."""
    shape = Shape(channels, 9, 8, tokens)
    tensors = block_tensors(shape, 2, [tokens - 12, 3])
    for module in registry.chain(shape)[1:]:
        agree(module, shape, tensors)


def test_the_check_sees_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check of the check: a pixel that no program writes, and a value that is wrong by 2 %."""
    shape = Shape(32, 7, 9)
    tensors = block_tensors(shape, 1)
    launch = mix.launch(shape)
    monkeypatch.setattr(verification, "planned", lambda *_: replace(launch, grid=(1, 1)))
    (deviation,) = verify(mix, shape, tensors)
    assert not deviation.ok
    # The error is NaN.
    assert deviation.error != deviation.error
    monkeypatch.setattr(verification, "planned", lambda *_: launch)
    expected = registry.twin(mix, shape, tensors)
    monkeypatch.setattr(registry, "twin", lambda *_: {"y": expected["y"] * 1.02})
    (deviation,) = verify(mix, shape, tensors)
    assert not deviation.ok
    assert 0.01 < deviation.error < 0.03


@pytest.mark.parametrize(
    ("module", "output", "part"),
    [(query_statistics, "statistics", "means"), (token_attention, "attended", "means"), (fold_keys, "offset", "words")],
)
def test_the_check_sees_a_small_quantity_beside_a_large_one(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, output: str, part: str
) -> None:
    """Means beside sums of squares, real offsets beside the masked tokens' -1e4: zeros in their place are seen."""
    shape = Shape(32, 16, 16)
    tensors = block_tensors(shape, 1, [20])
    spoilt = {name: tensor.clone() for name, tensor in registry.twin(module, shape, tensors).items()}
    if part == "means":
        spoilt[output][:, :, 0] = 0
    else:
        spoilt[output][tensors["mask"] == 1] = 0
    monkeypatch.setattr(verification, "run", lambda *_: spoilt)
    assert [deviation.output for deviation in verify(module, shape, tensors) if not deviation.ok] == [
        f"{output}: {part}"
    ]


@pytest.mark.parametrize(
    ("module", "tiles"),
    [
        (fold_keys, {"parts": 4, "k": 64, "stages": 2}),
        (fold_values, {"parts": 8, "k": 64}),
        (gate_mix, {"parts": 4}),
        (fold_attention, {"parts": 4}),
        (token_attention, {"group": 32, "n": 32}),
    ],
)
def test_other_tiles(monkeypatch: pytest.MonkeyPatch, module: ModuleType, tiles: dict[str, Any]) -> None:
    """Nine chunks in blocks of four or eight, the last chunk shorter; several groups; channels that fill no step."""
    shape = Shape(32 if module in (gate_mix, fold_attention) else 160, 9, 15)
    monkeypatch.setattr(verification, "planned", lambda launch, at: launch(at, **tiles))
    agree(module, shape, block_tensors(shape, 1, [20]))


@pytest.mark.parametrize("parts", [16, 2])
def test_joins_take_the_same_sum_in_any_parts(parts: int) -> None:
    """A mean a hundred deviations away, in chunks of different means: fp32's digits are kept."""
    shape = Shape(32, 9, 15, dtype="fp32")
    x = torch.randn(1, 32, 135, dtype=torch.float64) + torch.linspace(0, 3, 135, dtype=torch.float64) + 100.0
    tensors = block_tensors(shape, 1) | {"attended": moments(x, shape.chunk).float().double()}
    expected = registry.twin(fold_values, shape, tensors)
    found = verification.run(fold_values, shape, tensors, lambda launch, at: launch(at, parts=parts))
    for name in ("context", "context_offset"):
        torch.testing.assert_close(found[name].double(), expected[name], rtol=1e-5, atol=1e-6)


# NumPy warns of infinity and NaN, which are meant.
OVERFLOWS = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@OVERFLOWS
@pytest.mark.parametrize("module", [fold_keys, fold_attention, fold_values])
@pytest.mark.parametrize("variance", [EPS, 1e-4 * EPS])
def test_an_overflow_stays_infinite(module: ModuleType, variance: float) -> None:
    """Of a channel that is alive, however quiet: a clamped number would give a wrong mask, infinity is refused."""
    shape = Shape(32, 8, 8)
    tensors = block_tensors(shape, 1)
    for name in ("statistics", "attended"):
        tensors[name][:, :, 0, 5], tensors[name][:, :, 1, 5] = 0.0, variance * shape.chunk
    tensors["keys"][:, :, 5] = tensors["values"][:, :, 5] = 1000.0
    found = [verification.run(module, shape, tensors)]
    found.append(registry.twin(module, shape, {name: typed(name, t, shape) for name, t in tensors.items()}))
    for outputs in found:
        rows = outputs["p" if module is fold_attention else "folded_keys" if module is fold_keys else "layer"]
        assert not rows.isfinite().any()


@OVERFLOWS
@pytest.mark.parametrize("module", [fold_keys, fold_values])
def test_a_product_that_overflows_stays_infinite(module: ModuleType) -> None:
    shape = Shape(32, 8, 8)
    tensors = block_tensors(shape, 1) | {"query": torch.full((32, 32), 100.0), "hidden": torch.full((32, 32), 100.0)}
    tensors["keys"] = tensors["values"] = torch.full((1, 32, 32), 300.0)
    found = [verification.run(module, shape, tensors)]
    found.append(registry.twin(module, shape, {name: typed(name, t, shape) for name, t in tensors.items()}))
    for outputs in found:
        assert bool(outputs["folded_keys" if module is fold_keys else "layer"].isinf().all())


@OVERFLOWS
def test_the_gate_hides_no_nan() -> None:
    """Infinity times weights of both signs is NaN, which a GPU's max would turn into zero."""
    shape = Shape(32, 8, 8)
    tensors = block_tensors(shape, 1)
    tensors["layer"][:, :, 5] = float("inf")
    assert not verification.run(gate, shape, tensors)["u"].isfinite().any()
    twin = registry.twin(gate, shape, {name: typed(name, t, shape) for name, t in tensors.items()})
    assert not twin["u"].isfinite().any()


def test_kernels_reject_shapes_that_do_not_fit() -> None:
    for shape in (Shape(160, 8, 8), Shape(256, 8, 8), Shape(128, 8, 8, dtype="fp32")):
        with pytest.raises(ValueError, match="use fold_values, gate and mix"):
            gate_mix.launch(shape)
        with pytest.raises(ValueError, match="use fold_keys and token_attention"):
            fold_attention.launch(shape)
        assert registry.chain(shape, "merged") == registry.chain(shape, "separate")
    with pytest.raises(ValueError, match="use fold_keys and token_attention"):
        fold_attention.launch(Shape(64, 8, 8, dtype="fp32"))


def test_chains_have_names() -> None:
    shape = Shape(64, 8, 8)
    assert [len(registry.chain(shape, name)) for name in registry.CHAINS] == [5, 4]
    assert registry.chain(shape) == registry.chain(shape, "separate")
    assert fold_attention in registry.modules_at(shape)
    with pytest.raises(ValueError, match="chain is 'other'; choose from separate, merged"):
        registry.chain(shape, "other")


# The chain, and the registration of operators


def operator_name(module: ModuleType) -> str:
    return "multi_scale_depthwise" if module is depthwise else registry.name(module)


def interpreted(
    x: Tensor, keys: Tensor, values: Tensor, mask: Tensor, packed: PackedWeights, chain: str = "separate"
) -> Tensor:
    """``svla.svla``, with the kernels in the interpreter instead of the twins.

    Above 32 channels the depthwise kernels are left out: they run once per channel, which takes most of the time, and
    no channel knows of the others.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in registry.MODULES:
            if x.shape[1] > 32 and module in (depthwise, depthwise_direct):
                continue
            # The launcher before its registration as an operator.
            name = operator_name(module)
            patch.setattr(svla, name, getattr(module, name)._init_fn)
        return svla.svla(x, keys, values, mask, packed, chain)


BLOCKS = [(32, 15, 15, 9, "separate"), (64, 9, 13, 1, "merged"), (160, 7, 7, 20, "merged"), (64, 7, 9, 33, "separate")]


@pytest.mark.parametrize(
    ("channels", "height", "width", "tokens", "chain", "dtype"),
    [
        # depthwise_direct, which only this one runs, takes more than a second.
        pytest.param(*block, dtype, marks=[pytest.mark.slow] if (block[0], dtype) == (32, "fp32") else [])
        for block in BLOCKS
        for dtype in ("fp16", "fp32")
    ],
)
def test_the_whole_block(channels: int, height: int, width: int, tokens: int, chain: str, dtype: str) -> None:
    """All launches in a row against the block's definition; 1, 9, 20 and 33 tokens are padded."""
    w = random_weights(channels)
    x, keys, values, mask = random_inputs(1, channels, height, width, tokens)
    expected = functional.svla(x, keys, values, mask, w)
    keys, values = folded.fold_sentence(keys, values, mask, w.output)
    inputs = [t.to(DTYPES[dtype]) for t in (x, keys, values)]
    small = random_weights(channels, dtype=DTYPES[dtype])
    found = interpreted(*inputs, mask, pack(small, height), chain)
    # fp16 rounds weights and every map of the chain once: about 1e-3 each, of the largest value less.
    torch.testing.assert_close(
        found.double(), expected, rtol=0, atol={"fp16": 8e-3, "fp32": 2e-5}[dtype] * float(expected.abs().max())
    )


# Five, four and seven launches.
CASES = [(64, "separate"), (64, "merged"), (160, "separate")]


@pytest.mark.parametrize("dead", ["query", "output"])
@pytest.mark.parametrize(("channels", "chain"), CASES)
def test_a_dead_channel_does_not_overflow(channels: int, chain: str, dead: str) -> None:
    """1 / sigma of a constant channel is 316: times a key or value of 300 it exceeds fp16, and infinity gives NaN.

    The query's filter of a channel is zero; or all tokens are the same to every pixel, so that the output is zero.
    """
    w = random_weights(channels)
    x, keys, values, mask = random_inputs(1, channels, 7, 7, 9)
    if dead == "query":
        w.query[0][5] = 0.0
        keys[:, :, 5] = 300.0 * channels**0.5
    else:
        keys[:] = 0.0
        w.output[0][5] *= 300.0
    expected = functional.svla(x, keys, values, mask, w)
    keys, values = folded.fold_sentence(keys, values, mask, w.output)
    # The case is one: without a limit it would be infinite.
    assert EPS**-0.5 * float((keys if dead == "query" else values).abs().max()) > 65504
    inputs = [t.half() for t in (x, keys, values)]
    small = random_weights(channels, dtype=torch.float16)
    small.query[0][5] = w.query[0][5].half()
    for run in (interpreted, svla.svla):
        found = run(*inputs, mask, pack(small, 7), chain)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=8e-3 * float(expected.abs().max()))


@OVERFLOWS
@pytest.mark.parametrize(("channels", "chain"), CASES)
def test_a_block_that_overflows_is_not_finite(channels: int, chain: str) -> None:
    """So that the answer is refused."""
    x, keys, values, mask = (t.half() for t in random_inputs(1, channels, 7, 7, 9))
    packed = pack(random_weights(channels, dtype=torch.float16), 7)
    for run in (interpreted, svla.svla):
        assert not run(x, keys * 6e4, values, mask, packed, chain).isfinite().any()


@pytest.mark.parametrize("valid", [[9], [1], [0]])
@pytest.mark.parametrize(("height", "width"), [(7, 9), (15, 15), (45, 30)])
def test_the_chain_of_twins_is_the_block(height: int, width: int, valid: list[int]) -> None:
    """In fp64, where CPU tensors run the plain twins: the kernels' algebra is exact."""
    w = random_weights(32)
    x, keys, values, mask = random_inputs(1, 32, height, width, 9, valid)
    expected = functional.svla(x, keys, values, mask, w)
    keys, values = folded.fold_sentence(keys, values, mask, w.output)
    packed = pack(w, height)
    torch.testing.assert_close(svla.svla(x, keys, values, mask, packed), expected, rtol=1e-12, atol=1e-11)
    a, s = depthwise.plain(x, packed.bands, packed.bias, packed.row_bias)
    keys, values, mask = svla.pad_tokens(keys, values, mask)
    fk, offset = fold_keys.plain(query_statistics.plain(a, packed.query), packed.query, keys, mask, height * width)
    p, attended = token_attention.plain(a, fk, offset, values, mask)
    merged = fold_attention.plain(a, query_statistics.plain(a, packed.query), packed.query, keys, values, mask)
    torch.testing.assert_close(merged, (p, attended), rtol=0, atol=0)
    short = gate_mix.plain(x, s, p, attended, values, packed.hidden, packed.gate, packed.mix, packed.mix_bias)
    torch.testing.assert_close(short, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("chunk", [7, 16, 100, 391])
def test_moments_of_chunks_are_moments_of_the_whole(chunk: int) -> None:
    """Any chunk, the last one shorter; a mean a thousand deviations away costs nothing."""
    x = torch.randn(2, 3, 391, dtype=torch.float64) + 1000.0
    statistics = moments(x, chunk)
    assert statistics.shape == (2, -(-391 // chunk), 2, 3)
    mean, scale = merge(statistics, 391, chunk)
    torch.testing.assert_close(mean, x.mean(2), rtol=1e-12, atol=0)
    torch.testing.assert_close(scale, (x.var(2, correction=0) + functional.EPS).rsqrt(), rtol=1e-12, atol=0)


def test_a_large_offset_costs_the_kernels_nothing() -> None:
    """A thousand deviations away from zero: ``a`` is kept less its level, sums of squares about their mean."""
    w = random_weights(32)
    w.center[1].add_(300.0)
    x = random_inputs(1, 32, 15, 15, 4)[0]
    a, _ = depthwise.plain(x, pack_bands(w, torch.float64), w.center[1], pack_row_bias(w, 15, torch.float64))
    plain = functional.multi_scale_depthwise(x, w.center, w.strips)[0]
    assert a.abs().max() < 10
    torch.testing.assert_close(a - a.mean((2, 3), keepdim=True), plain - plain.mean((2, 3), keepdim=True))


@pytest.mark.parametrize("height", [8, 85])
def test_operators_are_registered_well(height: int) -> None:
    """Schema, fake and CPU implementation agree (PyTorch's own check), so that torch.compile may trace through them."""
    w = random_weights(32, dtype=torch.float32)
    x, keys, values, mask = (t.float() for t in random_inputs(2, 32, height, 8, 16))
    packed = pack(w, height)
    pixels = height * 8
    a, s = depthwise.multi_scale_depthwise(x, packed.bands, packed.bias, packed.row_bias)
    statistics = query_statistics.query_statistics(a, packed.query)
    assert statistics.shape == (2, -(-pixels // chunk_of(pixels)), 2, 32)
    fk, offset = fold_keys.fold_keys(statistics, packed.query, keys, mask, pixels)
    p, attended = token_attention.token_attention(a, fk, offset, values, mask)
    parts = fold_values.fold_values(attended, values, packed.hidden, pixels)
    u = gate.gate(s, p, *parts, packed.gate)
    calls = [
        (depthwise_direct.depthwise_direct, (x, packed.bands, packed.bias, packed.row_bias)),
        (depthwise.multi_scale_depthwise, (x, packed.bands, packed.bias, packed.row_bias)),
        (query_statistics.query_statistics, (a, packed.query)),
        (fold_keys.fold_keys, (statistics, packed.query, keys, mask, pixels)),
        (token_attention.token_attention, (a, fk, offset, values, mask)),
        (fold_attention.fold_attention, (a, statistics, packed.query, keys, values, mask)),
        (fold_values.fold_values, (attended, values, packed.hidden, pixels)),
        (gate.gate, (s, p, *parts, packed.gate)),
        (mix.mix, (u, x, packed.mix, packed.mix_bias)),
        (gate_mix.gate_mix, (x, s, p, attended, values, packed.hidden, packed.gate, packed.mix, packed.mix_bias)),
    ]
    # A new kernel needs a call here.
    assert {op for op, _ in calls} == {getattr(m, operator_name(m)) for m in registry.MODULES}
    for op, arguments in calls:
        torch.library.opcheck(op, arguments, test_utils=("test_schema", "test_faketensor"))


def test_wrong_tensors_are_rejected() -> None:
    shape = Shape(32, 8, 8)
    x = torch.zeros(1, 32, 8, 8, dtype=torch.float16)
    with pytest.raises(ValueError, match="u is torch.float16 and not contiguous"):
        mix.launch(shape)(1, x.transpose(2, 3), x, x, x, x)
    with pytest.raises(ValueError, match="bias is torch.float16 and contiguous; pass fp32"):
        mix.launch(shape)(1, x, x, x, x, x)
    with pytest.raises(ValueError, match="65 tokens; the kernels support up to 64"):
        svla.pad_tokens(torch.zeros(1, 65, 32), torch.zeros(1, 65, 32), torch.ones(1, 65))
    for wrong in ({"channels": 48}, {"tokens": 20}, {"dtype": "bf16"}):
        with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
            replace(shape, **wrong)


def test_weights_are_packed_again_when_they_change() -> None:
    """In place, by another storage, or replaced; tensors of inference mode, which have no version, by the last two."""
    form, w = svla.TritonSvla(), random_weights(32, dtype=torch.float32)
    seen = [form._pack(w, 8)]
    assert form._pack(w, 8) is seen[0]
    w.mix[1].add_(1.0)
    seen.append(form._pack(w, 8))
    w.hidden.data = w.hidden.data.clone()
    seen.append(form._pack(w, 8))
    with torch.inference_mode():
        w = replace(w, gate=w.gate.clone())
        seen.append(form._pack(w, 8))
    assert form._pack(w, 8) is seen[-1]
    assert len({id(packed) for packed in seen}) == 4


def test_stage_shapes() -> None:
    assert [s.key for s in stage_shapes("base", 512)][:2] == ["c64_h128_w128_t32_fp16", "c128_h64_w64_t32_fp16"]
    # Four stages of tiny, four that the others share.
    assert len(list(all_shapes((512,)))) == 8
