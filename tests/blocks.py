"""Random SVLA blocks in float64, for the tests of the algebra and of the kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from lsms_rt.model.functional import STRIPS, Filter, SvlaWeights


def weights(channels: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> SvlaWeights:
    """Filters of about unit gain, so that every step's output is of order one."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, gain: float) -> Tensor:
        return (torch.randn(*shape, generator=g, dtype=torch.float64) * gain).to(dtype)

    def strip(height: int, width: int) -> Filter:
        taps = height * width
        return draw(channels, 1, height, width, gain=taps**-0.5), draw(channels, gain=0.3)

    def pointwise() -> Filter:
        return draw(channels, channels, 1, 1, gain=channels**-0.5), draw(channels, gain=0.3)

    return SvlaWeights(
        center=strip(5, 5),
        strips=[(strip(1, n), strip(n, 1)) for n in STRIPS],
        query=pointwise(),
        output=pointwise(),
        hidden=pointwise()[0],
        gate=pointwise()[0],
        mix=pointwise(),
    )


def example(
    batch: int, channels: int, height: int, width: int, tokens: int, valid: list[int] | None = None, seed: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``x`` (B, C, H, W), plain keys and values (B, T, C), mask (B, T); ``valid`` tokens a row (default: T, T - 3, ...)."""
    g = torch.Generator().manual_seed(seed)
    x, keys, values = (
        torch.randn(*shape, generator=g, dtype=torch.float64)
        for shape in ((batch, channels, height, width), (batch, tokens, channels), (batch, tokens, channels))
    )
    counts = valid or [max(1, tokens - 3 * row) for row in range(batch)]
    mask = (torch.arange(tokens)[None] < torch.tensor(counts)[:, None]).double()
    return x, keys * mask[..., None], values * mask[..., None], mask
