"""Filters as banded matrices, so that tensor cores can apply them: out = U a T.

A 1xn filter along the columns is a product with a banded Toeplitz matrix T from the right, an nx1 filter along the rows
one with U from the left.  Zero padding is exact: taps that would meet the outside meet no row of the matrix.

A kernel loads such a matrix from a small table of the filter's taps.  For 16-byte loads, eight columns at a time, the
table holds eight copies, each shifted by one: ``table[rho, m + 8] = v[m + rho]``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lsms_rt.model.functional import STRIPS, SvlaWeights

# Shifted copies of a table, and its columns: -8 ... 23 around a filter of up to 21 taps.
COPIES, COLUMNS = 8, 32
# The five rows of the 5x5, then (column, row) of every strip.
FILTERS = 5 + 2 * len(STRIPS)
# Column of a filter's first tap in the unshifted copy.
FIRST = 8
# Strides for kernels, in elements: between copies, filters and channels.
COPY, TABLE, TABLES = (tl.constexpr(n) for n in (COLUMNS, COPIES * COLUMNS, FILTERS * COPIES * COLUMNS))
TAP0 = tl.constexpr(FIRST)


@triton.jit
def band(table, ROWS: tl.constexpr, COLS: tl.constexpr, RADIUS: tl.constexpr, VECTOR: tl.constexpr):
    """E[row, col] = v[col - row + RADIUS], zero off the band, from one filter's table.

    ``VECTOR``: 16-byte loads from all eight copies; else single elements from the first copy, which is one eighth of
    the bytes: better where few programs share a channel's table.
    """
    row = tl.arange(0, ROWS)[:, None]
    col = tl.arange(0, COLS)[None, :]
    shift = RADIUS - row
    if VECTOR:
        rho = shift & 7
        # shift = base + rho, also for negative ones.
        base = (shift >> 3) * 8
        # The same for eight columns, so that the mask does not split a load.
        eight = (col // 8) * 8 + base
        inside = (eight >= -TAP0) & (eight < COPY - TAP0)
        return tl.load(table + (rho * COPY + base + TAP0) + col, mask=inside, other=0.0)
    tap = col + shift
    return tl.load(table + TAP0 + tap, mask=(tap >= 0) & (tap <= 2 * RADIUS), other=0.0)


def pack_bands(weights: SvlaWeights, dtype: torch.dtype) -> Tensor:
    """Pack a block's filters into tables (C, 11, 8, 32) of ``dtype``.

    Order: rows of the 5x5, then for n = 7, 11, 21 the nx1 and the 1xn.  Matrices that multiply from the right hold
    reversed taps.
    """
    taps = [weights.center[0][:, 0, row].flip(-1) for row in range(5)]
    for (row_weight, _), (column_weight, _) in weights.strips:
        taps += [column_weight[:, 0, :, 0], row_weight[:, 0, 0].flip(-1)]
    channels = taps[0].shape[0]
    table = torch.zeros(channels, FILTERS, COPIES, COLUMNS, dtype=dtype, device=taps[0].device)
    for index, v in enumerate(taps):
        for rho in range(COPIES):
            # The column of v[0], or of v[rho - 8].
            first = max(0, FIRST - rho)
            begin = first - FIRST + rho
            end = min(v.shape[1], COLUMNS - FIRST + rho)
            table[:, index, rho, first : first + end - begin] = v[:, begin:end].to(dtype)
    return table.contiguous()


def unpack_bands(bands: Tensor) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Unpack the 5x5 (C, 1, 5, 5) and (1xn, nx1) of every strip from their tables, for the plain twins."""
    # The unshifted copy.
    taps = bands[:, :, 0, FIRST:]
    center = taps[:, :5, :5].flip(-1)[:, None]
    strips = []
    for index, n in enumerate(STRIPS):
        column, row = taps[:, 5 + 2 * index, :n], taps[:, 6 + 2 * index, :n].flip(-1)
        strips.append((row[:, None, None, :], column[:, None, :, None]))
    return center, strips


def pack_row_bias(weights: SvlaWeights, height: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Sum the biases of all strips for every row: (C, H).

    The bias of a 1xn passes through the nx1 after it; near the upper and lower border only some of its taps count.
    """
    total = torch.zeros(weights.center[0].shape[0], height, dtype=dtype, device=weights.center[0].device)
    ones = torch.ones(1, 1, height, dtype=dtype, device=total.device)
    for n, ((_, row_bias), (column_weight, column_bias)) in zip(STRIPS, weights.strips, strict=True):
        gain = torch.nn.functional.conv1d(ones, column_weight[:, 0].to(dtype).transpose(1, 2), padding=n // 2)[0]
        total += row_bias.to(dtype)[:, None] * gain + column_bias.to(dtype)[:, None]
    return total.contiguous()
