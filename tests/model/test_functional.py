"""The mathematics against its definition, written out pixel by pixel in float64."""

from __future__ import annotations

import math

import pytest
import torch

from lsms_rt.model import functional as lsms_f


def filters(channels: int, height: int, width: int) -> lsms_f.Filter:
    return torch.randn(channels, 1, height, width, dtype=torch.float64), torch.randn(channels, dtype=torch.float64)


def correlate(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Depthwise correlation with zeros outside of the map, as a sum over shifted copies."""
    height, width = weight.shape[2:]
    padded = torch.nn.functional.pad(x, (width // 2,) * 2 + (height // 2,) * 2)
    total = bias[:, None, None].expand_as(x).clone()
    for i in range(height):
        for j in range(width):
            total += weight[:, 0, i, j, None, None] * padded[:, :, i : i + x.shape[2], j : j + x.shape[3]]
    return total


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (13, 5), (32, 24)])
def test_multi_scale_depthwise_is_its_definition(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    center = filters(3, 5, 5)
    strips = [(filters(3, 1, n), filters(3, n, 1)) for n in lsms_f.STRIPS]
    a, s = lsms_f.multi_scale_depthwise(x, center, strips)
    wanted_a = correlate(x, *center)
    wanted_s = wanted_a + sum(correlate(correlate(wanted_a, *row), *column) for row, column in strips)
    torch.testing.assert_close(a, wanted_a, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(s, wanted_s, rtol=1e-12, atol=1e-12)


def test_text_attention_is_its_definition() -> None:
    torch.manual_seed(0)
    channels, tokens, valid = 4, 5, 3
    a = torch.randn(1, channels, 3, 5, dtype=torch.float64)
    mask = torch.tensor([[1.0] * valid + [0.0] * (tokens - valid)], dtype=torch.float64)
    keys, values = (torch.randn(1, tokens, channels, dtype=torch.float64) * mask[..., None] for _ in range(2))
    query, output = ((torch.randn(channels, channels, 1, 1).double(), torch.randn(channels).double()) for _ in range(2))

    def normalized(rows: torch.Tensor) -> torch.Tensor:  # (C, pixels)
        centered = rows - rows.mean(1, keepdim=True)
        return centered / (centered.square().mean(1, keepdim=True) + lsms_f.EPS).sqrt()

    pixels = a[0].flatten(1)
    q = normalized(query[0][:, :, 0, 0] @ pixels + query[1][:, None])
    context = torch.zeros_like(pixels)
    for p in range(pixels.shape[1]):
        scores = torch.stack([keys[0, t] @ q[:, p] / math.sqrt(channels) for t in range(valid)])
        weights = scores.exp() / scores.exp().sum()
        context[:, p] = sum(weights[t] * values[0, t] for t in range(valid))
    wanted = normalized(output[0][:, :, 0, 0] @ context + output[1][:, None]).reshape_as(a[0])
    found = lsms_f.text_attention(a, keys, values, mask, query, output)
    torch.testing.assert_close(found[0], wanted, rtol=1e-10, atol=1e-10)


def test_a_fully_masked_sentence_gives_no_nan() -> None:
    a = torch.randn(1, 4, 6, 6)
    zeros, mask = torch.zeros(1, 3, 4), torch.zeros(1, 3)
    weights = torch.randn(4, 4, 1, 1), torch.randn(4)
    context = lsms_f.text_attention(a, zeros, zeros, mask, weights, weights)
    gated = lsms_f.language_gate(context, weights[0], weights[0])
    assert torch.isfinite(gated).all()
    # Without words the values are zero, and the norm of a constant is zero.
    assert gated.abs().max() < 1e-2
