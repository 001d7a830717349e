"""The banded depthwise kernel that loads what each product needs just before it: ``depthwise.launch(form="serial")``.

It needs less shared memory than the pipelined form, and waits for memory at every product.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .bands import TABLE, TABLES, band
from .overlap import after_previous
from .windows import level_of, owned, shifted


@triton.jit
def strip(a, s, table, ROWS: tl.constexpr, COLS: tl.constexpr, RADIUS: tl.constexpr, VECTOR: tl.constexpr,
          PRECISION: tl.constexpr):  # fmt: skip
    """s + U a T.  Columns first: ``a`` stays in shared memory for all strips, U a goes on in registers."""
    column = tl.dot(band(table, ROWS, ROWS, RADIUS, VECTOR), a, input_precision=PRECISION).to(a.dtype)
    return tl.dot(column, band(table + TABLE, COLS, COLS, RADIUS, VECTOR), s, input_precision=PRECISION)


@triton.jit
def serial_kernel(
    x_ptr, bands_ptr, bias_ptr, row_bias_ptr, a_ptr, s_ptr,
    C: tl.constexpr, H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
    ROW_STEP: tl.constexpr, COL_STEP: tl.constexpr, VECTOR: tl.constexpr, PRECISION: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """Grid (windows, C, B).  x, a, s (B, C, H, W); bands (C, 11, 8, 32); bias (C,), row_bias (C, H) float32."""
    after_previous(OVERLAP)
    # Windows beside each other.
    across: tl.constexpr = (W - COLS + COL_STEP - 1) // COL_STEP + 1 if W > COLS else 1
    i, j = tl.program_id(0) // across, tl.program_id(0) % across
    c = tl.program_id(1)
    offset = (tl.program_id(2).to(tl.int64) * C + c) * (H * W)
    # So that indices inside of a map are 32 bits wide.
    x_ptr += offset
    a_ptr += offset
    s_ptr += offset
    tables = bands_ptr + c * TABLES

    row = i * ROW_STEP + tl.arange(0, ROWS)
    col = j * COL_STEP + tl.arange(0, COLS)
    a = tl.zeros((ROWS, COLS), tl.float32)
    for dy in tl.static_range(5):
        x = shifted(x_ptr, row, col, dy - 2, H, W)
        a = tl.dot(x, band(tables + dy * TABLE, COLS, COLS, 2, VECTOR), a, input_precision=PRECISION)
    bias = tl.load(bias_ptr + c)
    # Zero outside of the map: the strips' padding.
    a = tl.where((row < H)[:, None] & (col < W)[None, :], a + bias, 0.0)

    own = owned(row, i, H, ROWS, ROW_STEP)[:, None] & owned(col, j, W, COLS, COL_STEP)[None, :]
    place = row[:, None] * W + col[None, :]
    level = level_of(x_ptr, tables, bias, H, W)
    # Now, so that a's registers are free.
    tl.store(a_ptr + place, (a - level).to(a_ptr.dtype.element_ty), mask=own)

    s = a + tl.load(row_bias_ptr + c * H + row, mask=row < H, other=0.0)[:, None]
    half = a.to(x_ptr.dtype.element_ty)
    s = strip(half, s, tables + 5 * TABLE, ROWS, COLS, 3, VECTOR, PRECISION)
    s = strip(half, s, tables + 7 * TABLE, ROWS, COLS, 5, VECTOR, PRECISION)
    s = strip(half, s, tables + 9 * TABLE, ROWS, COLS, 10, VECTOR, PRECISION)
    tl.store(s_ptr + place, s.to(s_ptr.dtype.element_ty), mask=own)
