"""A CT slice -> the image graph's square tensor, and where the slice lies in it."""

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
    """A slice's place in the square tensor: `rows` x `columns` of S x S pixels from (top, left)."""

    image_size: int  # S
    top: int
    left: int
    rows: int
    columns: int


def resize(a: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """(H, W) float32 -> (rows, columns): bilinear; where it shrinks, a mean over the area (no aliasing)."""
    from PIL import Image

    if a.shape == (rows, columns):
        return a
    picture = Image.fromarray(np.ascontiguousarray(a, dtype=np.float32))  # mode "F"
    return np.array(picture.resize((columns, rows), Image.Resampling.BILINEAR), dtype=np.float32)


def to_tensor(ct: CtSlice, image_size: int, window: tuple[float, float]) -> tuple[NDArray[np.float32], Placement]:
    """CtSlice -> float32 (1, 1, S, S) in [-1, 1], and where the slice lies in it.

    window: (lower, upper) in HU, mapped to -1 and 1. The slice is centred in a square of air and keeps its
    physical proportions, so pixels that are not square in the file are for the model (spacing known).
    """
    lower, upper = window
    if not lower < upper:
        raise InputError(f"HU window {window}: the lower end must be below the upper; give e.g. (-160, 240)")
    dy, dx = ct.spacing_mm or (1.0, 1.0)
    height, width = ct.hu.shape[0] * dy, ct.hu.shape[1] * dx
    scale = image_size / max(height, width)
    rows, columns = (min(image_size, max(1, round(side * scale))) for side in (height, width))
    place = Placement(image_size, (image_size - rows) // 2, (image_size - columns) // 2, rows, columns)
    square = np.full((image_size, image_size), HU_MIN, dtype=np.float32)
    square[place.top : place.top + rows, place.left : place.left + columns] = resize(ct.hu, rows, columns)
    tensor = (np.clip(square, lower, upper) - lower) * (2.0 / (upper - lower)) - 1.0
    return tensor.astype(np.float32)[None, None], place
