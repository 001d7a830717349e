"""Turn a CT slice into the square tensor of the image graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .ct_slice import HU_MIN, CtSlice
from .errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Placement:
    """Where a slice is in the square tensor.

    Attributes:
        image_size: S, the side of the tensor in pixels.
        top: first row of the slice.
        left: first column of the slice.
        rows: its number of rows.
        columns: its number of columns.
    """

    image_size: int
    top: int
    left: int
    rows: int
    columns: int


def resize(a: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Resize an image (H, W) to (rows, columns): bilinear, and a mean over the area where it shrinks (no aliasing)."""
    from PIL import Image

    if a.shape == (rows, columns):
        return a
    image = Image.fromarray(np.ascontiguousarray(a, dtype=np.float32))
    return np.array(image.resize((columns, rows), Image.Resampling.BILINEAR), dtype=np.float32)


def to_tensor(ct: CtSlice, image_size: int, window: tuple[float, float]) -> tuple[NDArray[np.float32], Placement]:
    """Place a slice in the center of a square of air, and scale HU to [-1, 1].

    The slice keeps its physical proportions, so anisotropic pixels become square for the model (if the spacing is
    known).

    Args:
        ct: the slice.
        image_size: S, the side of the square in pixels.
        window: (lower, upper) in HU, mapped to -1 and 1.

    Returns:
        float32 (1, 1, S, S), and where the slice is in it.

    Raises:
        InputError: the window is empty.
    """
    lower, upper = window
    if not lower < upper:
        raise InputError(f"HU window {window}: the lower bound must be below the upper; give e.g. (-160, 240)")
    dy, dx = ct.spacing_mm or (1.0, 1.0)
    height, width = ct.hu.shape[0] * dy, ct.hu.shape[1] * dx
    scale = image_size / max(height, width)
    rows, columns = (min(image_size, max(1, round(side * scale))) for side in (height, width))
    top, left = (image_size - rows) // 2, (image_size - columns) // 2
    square = np.full((image_size, image_size), HU_MIN, dtype=np.float32)
    square[top : top + rows, left : left + columns] = resize(ct.hu, rows, columns)
    tensor = (np.clip(square, lower, upper) - lower) * (2.0 / (upper - lower)) - 1.0
    placement = Placement(image_size=image_size, top=top, left=left, rows=rows, columns=columns)
    return tensor.astype(np.float32)[None, None], placement
