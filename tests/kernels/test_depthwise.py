"""The depthwise kernels and their packed filters, in Triton's interpreter; see ``test_kernels.py``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from kernel_checks import agree
from torch import Tensor

from lsms_rt.kernels import (
    depthwise,
    depthwise_direct,
    registry,
)
from lsms_rt.kernels import verify as verification
from lsms_rt.kernels.bands import pack_bands, unpack_bands
from lsms_rt.kernels.launch import Launch
from lsms_rt.kernels.shape import Shape, all_shapes
from lsms_rt.kernels.svla import pack
from lsms_rt.kernels.test_data import random_inputs, random_weights, typed


def depthwise_tensors(shape: Shape, batch: int = 2) -> dict[str, Tensor]:
    """Two of 32 channels, since a program is slow in the interpreter."""
    x, w = random_inputs(batch, 32, shape.height, shape.width, 4)[0] + 0.5, random_weights(32)
    packed = pack(w, shape.height)
    tensors = {"x": x[:, 30:], "bands": packed.bands[30:], "bias": packed.bias[30:], "row_bias": packed.row_bias[30:]}
    return {name: typed(name, tensor, shape).double() for name, tensor in tensors.items()}


@pytest.fixture
def two_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches over two channels instead of 32."""

    def fewer(launch: Launch) -> Launch:
        return replace(launch, grid=(launch.grid[0], 2), constants=dict(launch.constants) | {"C": 2})

    whole = registry.launches
    monkeypatch.setattr(registry, "launches", lambda *args: [fewer(launch) for launch in whole(*args)])
    size = verification.size_of
    monkeypatch.setattr(
        verification,
        "size_of",
        lambda name, *args: tuple(2 if n == 32 else n for n in size(name, *args)[:2]) + size(name, *args)[2:],
    )


@pytest.mark.usefixtures("two_channels")
@pytest.mark.parametrize(
    ("height", "width"),
    [
        (7, 9),
        (15, 15),
        (16, 16),
        (1, 1),
        (2, 31),
        (23, 37),
        (32, 32),
        (45, 30),
        (60, 60),
        (70, 33),
        (33, 70),
        (85, 112),
    ],
)
def test_depthwise(height: int, width: int) -> None:
    """On tensor cores: one window, windows in one direction, and in both."""
    shape = Shape(32, height, width)
    agree(depthwise, shape, depthwise_tensors(shape))


@pytest.mark.slow
@pytest.mark.usefixtures("two_channels")
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
@pytest.mark.parametrize(("height", "width"), [(7, 9), (1, 1), (2, 31), (23, 37), (33, 70)])
def test_depthwise_direct(height: int, width: int, dtype: str) -> None:
    """Tap by tap; several tiles of rows, the last one shorter."""
    shape = Shape(32, height, width, dtype=dtype)
    # Two images of nine tiles take a second.
    agree(depthwise_direct, shape, depthwise_tensors(shape, batch=1 if height == 33 else 2))


@pytest.mark.usefixtures("two_channels")
@pytest.mark.parametrize(
    ("height", "width", "tiles"),
    [
        (13, 16, {"vector": True}),
        (13, 16, {"vector": False}),
        (33, 37, {"group": 3}),
        (17, 9, {"group": 2, "warps": 8}),
    ],
)
def test_other_tiles_of_the_banded_kernel(
    height: int, width: int, tiles: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways to load a band, and groups of other sizes."""
    shape = Shape(32, height, width)
    monkeypatch.setattr(verification, "planned", lambda launch, shape: launch(shape, **tiles))
    agree(depthwise, shape, depthwise_tensors(shape, batch=1))


def test_windows_cover_every_shape_once() -> None:
    """At all sizes that the presets meet: every row and column is owned by one window, and within its reach."""
    for shape in [*all_shapes(tuple(range(224, 641, 32))), Shape(32, 65, 300)]:
        launch = depthwise.launch(shape)
        c = launch.constants
        sides = (
            (shape.height, c["ROWS"], c["ROW_STEP"], depthwise.ROW_REACH),
            (shape.width, c["COLS"], c["COL_STEP"], depthwise.COLUMN_REACH),
        )
        count = 1
        for size, window, step, reach in sides:
            n = next(n for n in range(1, 99) if (n - 1) * step + window >= size)
            owners = [0] * size
            for i in range(n):
                first = 0 if i == 0 else i * step + reach
                last = size if i == n - 1 else i * step + window - reach
                assert last <= i * step + window, (shape, "a window writes pixels that it has not read")
                for index in range(first, last):
                    owners[index] += 1
            assert owners == [1] * size, shape
            count *= n
        assert launch.grid == (count, shape.channels)


def test_bands_hold_the_filters() -> None:
    w = random_weights(32)
    center, strips = unpack_bands(pack_bands(w, torch.float64))
    torch.testing.assert_close(center, w.center[0], rtol=0, atol=0)
    for (row, column), ((row_weight, _), (column_weight, _)) in zip(strips, w.strips, strict=True):
        torch.testing.assert_close(row, row_weight, rtol=0, atol=0)
        torch.testing.assert_close(column, column_weight, rtol=0, atol=0)
    table = pack_bands(w, torch.float64)
    # table[rho, m + 8] = v[m + rho].
    for rho in range(8):
        expected = torch.nn.functional.pad(table[..., 0, :], (0, 8))[..., rho : rho + 32].clone()
        torch.testing.assert_close(table[..., rho, : 32 - rho], expected[..., : 32 - rho], rtol=0, atol=0)
        assert not table[..., rho, 32 - rho :].any() or rho == 0
