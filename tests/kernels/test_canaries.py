"""The margins around a kernel's tensors show every access beside them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lsms_rt.kernels import mix
from lsms_rt.kernels import verify as verification
from lsms_rt.kernels.canaries import MARGIN, Canaries, same_bits
from lsms_rt.kernels.launch import Launch
from lsms_rt.kernels.shape import Shape
from lsms_rt.kernels.test_data import block_tensors
from lsms_rt.kernels.verify import verify

SHAPE = Shape(32, 3, 5, dtype="fp32")


def beside(tensor: Tensor, elements: int) -> Tensor:
    """The memory ``elements`` after the tensor's first one."""
    return tensor.as_strided((1,), (1,), tensor.storage_offset() + elements)


def test_inputs_are_copied_between_margins_that_keep_their_alignment() -> None:
    canaries, values = Canaries(), torch.arange(6, dtype=torch.float16).view(2, 3)
    placed = canaries.place("x", values)
    assert torch.equal(placed, values)
    assert placed.is_contiguous()
    assert placed.storage_offset() * 2 == MARGIN
    assert MARGIN % 256 == 0
    assert beside(placed, -1).isnan() and beside(placed, 6).isnan()
    assert canaries.touched() == []
    placed[0, 0] = 7
    assert canaries.touched() == ["x"]


@pytest.mark.parametrize("element", [-1, 6, 5 + MARGIN // 4])
def test_a_write_beside_an_output_is_found(element: int) -> None:
    canaries = Canaries()
    output = canaries.output("y", (2, 3), torch.float32, torch.device("cpu"))
    assert output.isnan().all()
    output.zero_()
    assert canaries.touched() == []
    beside(output, element).zero_()
    assert canaries.touched() == ["y"]


def test_bits_are_compared_not_values() -> None:
    nan = torch.tensor([float("nan"), 1.0])
    assert same_bits(nan, nan.clone())
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))


@pytest.mark.parametrize(
    ("fault", "output"),
    [
        (lambda u, y: beside(y, y.numel()).zero_(), "y: beside it"),
        (lambda u, y: u[0, 0, 0].zero_(), "u: beside it"),
        # A read beside the input: the value is NaN.
        (lambda u, y: y[0, 0, 0].copy_(beside(u, -1)[0].expand(5)), "y"),
    ],
)  # fmt: skip
def test_verification_sees_accesses_beside_tensors(fault: Any, output: str) -> None:
    tensors = block_tensors(SHAPE, 1)

    def start(launch: Launch, batch: int, *arguments: Tensor) -> None:
        launch(batch, *arguments)
        known = dict(zip(launch.arguments, arguments, strict=True))
        fault(known["u"], known["y"])

    assert all(deviation.ok for deviation in verify(mix, SHAPE, tensors))
    wrong = [deviation for deviation in verify(mix, SHAPE, tensors, None, start) if not deviation.ok]
    assert [deviation.output for deviation in wrong] == [output]
    assert wrong[0].not_finite == (5 if output == "y" else 0)


def test_a_channel_of_small_values_has_its_own_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong by a hundredth of its own values, which are a tenth of the others': under one scale it would pass."""
    reference = torch.ones(1, 32, 3, 5, dtype=torch.float64)
    reference[:, 3] = 0.1
    actual = reference.clone()
    actual[:, 3] *= 1.01
    tensors = {"x": reference}
    monkeypatch.setattr(verification.registry, "twin", lambda *_: {"y": reference})
    monkeypatch.setattr(verification, "run", lambda *_: {"y": actual})
    (deviation,) = verify(mix, Shape(32, 3, 5), tensors)
    assert deviation.error == pytest.approx(0.01)
    assert not deviation.ok
    assert verification.TOLERANCE["fp16"] > 0.001
