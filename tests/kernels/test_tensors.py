"""The table of tensors: sizes, element types and batches of all that kernels read and write."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from lsms_rt.kernels import bands, registry, tensors
from lsms_rt.kernels.launch import DTYPES
from lsms_rt.kernels.shape import TOKEN_COUNTS, DecoderShape, RestShape, Shape
from lsms_rt.kernels.tensors import TENSORS, arguments, dtype_of, is_batched, size_of
from lsms_rt.kernels.test_data import block_tensors, typed
from lsms_rt.model.config import MAX_TOKENS, OWN_TOKENS, TextConfig
from lsms_rt.training.start import OWN_TEXT


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_the_table_describes_every_tensor_of_a_block(dtype: str) -> None:
    """Sizes are those of the tensors that the plain twins and the packing of weights make."""
    shape = Shape(32, 9, 15, 16, dtype)
    block = block_tensors(shape, 3)
    rest_shape = RestShape(32, 9, 15, dtype=dtype, ratio=2)
    rest = block_tensors(rest_shape, 3)
    decoder_shape = DecoderShape(32, 8, 16, dtype=dtype)
    decoder = block_tensors(decoder_shape, 3)
    # Written by one launch of depthwise_direct for the next.
    assert set(TENSORS) - set(block) - set(rest) - set(decoder) == {"rows"}
    for tensors_of, at in ((block, shape), (rest, rest_shape), (decoder, decoder_shape)):
        for name, tensor in tensors_of.items():
            assert tuple(tensor.shape) == size_of(name, at, 3), name
            assert typed(name, tensor, at).dtype == DTYPES[dtype_of(name, at)], name
    assert size_of("y", shape, 3) == size_of("x", shape, 3)
    assert size_of("rows", shape, 3) == (3, 32, 3, 9, 15)
    assert size_of("bands", shape, 1)[1:] == (bands.FILTERS, bands.COPIES, bands.COLUMNS)


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize("module", (*registry.MODULES, *registry.AROUND), ids=registry.name)
def test_every_launch_takes_its_types_from_the_table(module: ModuleType, dtype: str) -> None:
    kind = RestShape if module in registry.REST else DecoderShape if module in registry.AROUND else Shape
    shape = kind(32, 8, 16, dtype=dtype)
    for launch in registry.launches(module, shape):
        assert dict(launch.arguments) == arguments(shape, *launch.arguments)
        # Kernels write tensors of the batch only, never weights.
        assert all(is_batched(name) for name in list(launch.arguments)[-launch.outputs :])


def test_statistics_are_float32_and_weights_are_not_batched() -> None:
    """Written out once, so that a slip in the table is noticed."""
    assert {name for name, spec in TENSORS.items() if spec.fp32} == {
        "bias", "row_bias", "mix_bias", "mask", "statistics", "offset", "attended", "context_offset", "layer_offset",
        "inner_bias", "outer_bias", "shortcut", "expand_bias", "taps_bias", "reduce_bias",
        "merge_scale", "merge_shift",
    }  # fmt: skip
    assert {name for name in TENSORS if not is_batched(name)} == {
        "bands", "bias", "row_bias", "query", "hidden", "gate", "mix", "mix_bias",
        "inner", "inner_bias", "outer", "outer_bias", "shortcut", "expand", "expand_bias", "taps", "taps_bias",
        "reduce", "reduce_bias", "stage_scale", "stage_shift", "merge_scale", "merge_shift",
    }  # fmt: skip


def test_a_tensor_that_is_not_in_the_table_is_an_error() -> None:
    """A forgotten name must not become an fp16 tensor or a weight silently."""
    shape = Shape(32, 8, 8)
    for use in (
        lambda: size_of("new", shape, 1),
        lambda: dtype_of("new", shape),
        lambda: is_batched("new"),
        lambda: arguments(shape, "x", "new"),
        lambda: typed("new", torch.zeros(1), shape),
    ):
        with pytest.raises(ValueError, match="tensor 'new' is not in TENSORS; add its axes and type to kernels/tens"):
            use()
    assert tensors.spec("x").axes[0] == "batch"


def test_the_number_of_tokens_has_one_home() -> None:
    assert max(TOKEN_COUNTS) == MAX_TOKENS == TextConfig().max_tokens == 64
    assert OWN_TOKENS == OWN_TEXT.max_tokens == Shape(32, 8, 8).tokens == 32
