"""The kernels around a block's SVLA, in Triton's interpreter; see ``test_kernels.py``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from kernel_checks import agree
from torch import Tensor

from lsms_rt.kernels import (
    block,
    depthwise3_gelu,
    expand,
    inner,
    merge_scales,
    outer,
    reduce,
    registry,
    stage_norm,
    tuned_tiles,
)
from lsms_rt.kernels import verify as verification
from lsms_rt.kernels.launch import DTYPES, Launch, rest_of
from lsms_rt.kernels.shape import DecoderShape, RestShape, decoder_shape, rest_shapes, stage_shapes
from lsms_rt.kernels.test_data import block_tensors, random_inputs, random_rest
from lsms_rt.model import folded_block

OPERATORS = {
    inner: inner.inner, outer: outer.outer, expand: expand.expand,
    depthwise3_gelu: depthwise3_gelu.depthwise3_gelu, reduce: reduce.reduce, stage_norm: stage_norm.stage_norm,
}  # fmt: skip


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """More channels a program for the 3x3, since a program is slow in the interpreter."""

    def planned(launch: Callable[..., Launch], shape: RestShape) -> Launch:
        return launch(shape, pixels=2048) if launch is depthwise3_gelu.launch else launch(shape)

    monkeypatch.setattr(verification, "planned", planned)
    monkeypatch.setattr(depthwise3_gelu, "planned", planned)


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize(
    ("channels", "ratio", "height", "width"),
    # Fewer rows than a program's, one more, an odd and an even width, one pixel; 160 is not a multiple of 64.
    [(32, 4, 3, 7), (32, 2, 9, 16), (64, 2, 5, 18), (32, 4, 1, 1), (160, 1, 4, 17)],
)
def test_the_kernels_around_svla(channels: int, ratio: int, height: int, width: int, dtype: str) -> None:
    shape = RestShape(channels, height, width, ratio=ratio, dtype=dtype)
    tensors = block_tensors(shape, 2)
    for module in registry.REST:
        agree(module, shape, tensors)


def test_the_default_tile_of_the_3x3(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight channels a program, and two strips of rows."""
    monkeypatch.setattr(verification, "planned", lambda launch, shape: launch(shape))
    shape = RestShape(32, 5, 31, ratio=1)
    assert depthwise3_gelu.launch(shape).grid == (2, 4)
    agree(depthwise3_gelu, shape, block_tensors(shape, 1))


@pytest.mark.parametrize("tiles", [{"n": 32, "k": 32, "pixels": 16}, {"n": 64, "k": 64, "pixels": 128, "stages": 2}])
def test_other_tiles_of_a_1x1(tiles: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "planned", lambda launch, shape: launch(shape, **tiles))
    shape = RestShape(64, 5, 9, ratio=2)
    tensors = block_tensors(shape, 1)
    for module in (inner, outer, expand, reduce):
        agree(module, shape, tensors)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (1, 1), (16, 30)])
def test_the_chain_of_twins_is_the_folded_block(height: int, width: int) -> None:
    """In fp64, where CPU tensors run the plain twins; SVLA stands in as any function."""
    x = random_inputs(2, 32, height, width, 4)[0]
    folded = folded_block.fold(random_rest(32, 4))
    expected = folded_block.block(x, lambda v: v.sin() * x, folded)
    found = block.block(x, lambda v: v.sin() * x, block.pack(folded, torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_what_the_twins_add_to_a_product_is_rounded_once() -> None:
    """A shortcut's factor is near one, where float16 has 3 digits."""
    g = torch.Generator().manual_seed(2)
    x, zero = torch.randn(1, 32, 3, 5, generator=g).half() * 100, torch.zeros(32, 32).half()
    bias, shortcut = torch.randn(32, generator=g), 1 + 1e-3 * torch.randn(32, generator=g)
    wide = shortcut[:, None, None] * x.float() + bias[:, None, None]
    one = {"rtol": 0, "atol": 0}
    found = outer.plain(x, x, zero, bias, shortcut)
    torch.testing.assert_close(found, wide.half(), **one)
    torch.testing.assert_close(reduce.plain(x, x, zero, bias), (x.float() + bias[:, None, None]).half(), **one)


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_the_whole_chain(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All five launches in the interpreter against the folded block."""
    x = random_inputs(1, 32, 5, 9, 4)[0]
    folded, kind = folded_block.fold(random_rest(32, 2)), DTYPES[dtype]
    for module in (inner, outer, expand, depthwise3_gelu, reduce):
        monkeypatch.setattr(block, registry.name(module), OPERATORS[module]._init_fn)
    packed = block.pack(folded_block.fold(_as(random_rest(32, 2), torch.float32)), kind)
    found = block.block(x.to(kind), lambda v: v * 0.5, packed)
    expected = folded_block.block(x, lambda v: v * 0.5, folded)
    # Weights, maps and five roundings, as in test_kernels.
    limit = {"fp16": 8e-3, "fp32": 2e-5}[dtype] * float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=limit)


def _as(weights: folded_block.BlockWeights, dtype: torch.dtype) -> folded_block.BlockWeights:
    def convert(value: object) -> object:
        if isinstance(value, Tensor):
            return value.to(dtype)
        if isinstance(value, tuple):
            return tuple(convert(item) for item in value)
        if isinstance(value, folded_block.Norm):
            return folded_block.Norm(**{name: convert(item) for name, item in vars(value).items()})
        return value

    return folded_block.BlockWeights(**{name: convert(value) for name, value in vars(weights).items()})


def test_operators_are_registered_well() -> None:
    """Schema, fake and CPU implementation agree (PyTorch's own check)."""
    assert tuple(OPERATORS) == registry.REST
    shape = RestShape(32, 5, 6, ratio=2, dtype="fp32")
    tensors = {name: tensor.float() for name, tensor in block_tensors(shape, 2).items()}
    for module, operator in OPERATORS.items():
        inputs, outputs = registry.signature(module, shape)
        arguments = tuple(tensors[name] for name in inputs)
        torch.library.opcheck(operator, arguments, test_utils=("test_schema", "test_faketensor"))
        torch.testing.assert_close(operator(*arguments), tensors[outputs[0]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width", "dtype"), [(8, 24, "fp16"), (24, 8, "fp32")])
def test_the_sum_of_scales(height: int, width: int, dtype: str) -> None:
    """Maps down to one row or column; 192 pixels are a program and a half."""
    shape = DecoderShape(32, height, width, dtype=dtype)
    agree(merge_scales, shape, block_tensors(shape, 1))


def test_the_operator_of_the_sum_of_scales() -> None:
    shape = DecoderShape(32, 8, 16, dtype="fp32")
    tensors = {name: tensor.float() for name, tensor in block_tensors(shape, 2).items()}
    arguments = tuple(tensors[name] for name in registry.signature(merge_scales, shape)[0])
    torch.library.opcheck(merge_scales.merge_scales, arguments, test_utils=("test_schema", "test_faketensor"))
    with pytest.raises(ValueError, match="12x16; its sides must be multiples of 8"):
        DecoderShape(32, 12, 16)


def test_shapes_and_their_keys() -> None:
    first, *_ = rest_shapes("base", 512)
    assert (first.key, first.expanded) == ("c64_e512_h128_w128_fp16", 512)
    assert [(s.channels, s.pixels) for s in rest_shapes("tiny", 224)] == [
        (s.channels, s.pixels) for s in stage_shapes("tiny", 224)
    ]
    # What an operator asks for is what was tuned, though it sees one of the two numbers of channels.
    x, wide = torch.empty(1, 64, 128, 128).half(), torch.empty(1, 512, 128, 128).half()
    seen = {inner: rest_of(x), outer: rest_of(x), expand: rest_of(x, 8), depthwise3_gelu: rest_of(wide), reduce:
            rest_of(x, 8), stage_norm: rest_of(x)}  # fmt: skip
    for module, shape in seen.items():
        assert tuned_tiles.key(module.launch, shape) == tuned_tiles.key(module.launch, first)
        assert module.launch(shape) == module.launch(first)
    assert tuned_tiles.key(merge_scales.launch, decoder_shape("base", 512)) == "merge_scales/c256_h128_w128_fp16"
    assert tuned_tiles.key(reduce.launch, first) == "reduce/c64_e512_p16384_fp16"


def test_small_grids_get_small_tiles() -> None:
    """Of one slice, a tile of 64 channels by 64 pixels would occupy a part of a GPU only."""
    for shape in rest_shapes("base", 512):
        for module in (inner, outer, expand, reduce):
            grid = module.launch(shape).grid
            assert grid[0] * grid[1] >= 128, (shape.key, grid)
