"""Turn a CT slice into the square tensor of the image graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .body import body_box
from .ct_slice import HU_MIN, CtSlice
from .errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Placement:
    """Where a slice, or the part of it that the network sees, is in the square tensor.

    Attributes:
        image_size: S, the side of the tensor in pixels.
        top: first row of the tensor that holds the slice.
        left: first column of the tensor that holds the slice.
        rows: number of these rows.
        columns: number of these columns.
        box: the part of the slice that they show: (top, left, bottom, right) in its own pixels, half open.
    """

    image_size: int
    top: int
    left: int
    rows: int
    columns: int
    box: tuple[int, int, int, int]


def resize(a: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Resize an image (H, W) to (rows, columns): bilinear, and a mean over the area where it shrinks (no aliasing)."""
    from PIL import Image

    if a.shape == (rows, columns):
        return a
    image = Image.fromarray(np.ascontiguousarray(a, dtype=np.float32))
    return np.array(image.resize((columns, rows), Image.Resampling.BILINEAR), dtype=np.float32)


def to_tensor(
    ct: CtSlice, image_size: int, window: tuple[float, float], crop: str = "none"
) -> tuple[NDArray[np.float32], Placement]:
    """Place a slice, or the square around the body in it, in the center of a square of air; scale HU to [-1, 1].

    The slice keeps its physical proportions, so anisotropic pixels become square for the model (if the spacing is
    known).

    Args:
        ct: the slice.
        image_size: S, the side of the square in pixels.
        window: (lower, upper) in HU, mapped to -1 and 1.
        crop: "none", the whole slice, or "body", the square around the body: the network sees it larger then.

    Returns:
        float32 (1, 1, S, S), and where the slice is in it.

    Raises:
        InputError: the window is empty.
    """
    lower, upper = window
    if not lower < upper:
        raise InputError(f"HU window {window}: the lower bound must be below the upper; give e.g. (-160, 240)")
    dy, dx = ct.spacing_mm or (1.0, 1.0)
    seen = body_box(ct.hu) if crop == "body" else (0, 0, *ct.hu.shape)
    edge = max((seen[2] - seen[0]) * dy, (seen[3] - seen[1]) * dx)
    scale = image_size / edge
    vertical = _axis(seen[0], seen[2], edge / dy, ct.hu.shape[0], scale * dy, image_size)
    horizontal = _axis(seen[1], seen[3], edge / dx, ct.hu.shape[1], scale * dx, image_size)
    (first, last, top, rows), (start, end, left, columns) = vertical, horizontal
    square = np.full((image_size, image_size), HU_MIN, dtype=np.float32)
    square[top : top + rows, left : left + columns] = resize(ct.hu[first:last, start:end], rows, columns)
    tensor = (np.clip(square, lower, upper) - lower) * (2.0 / (upper - lower)) - 1.0
    placement = Placement(
        image_size=image_size, top=top, left=left, rows=rows, columns=columns, box=(first, start, last, end)
    )
    return tensor.astype(np.float32)[None, None], placement


def _axis(low: int, high: int, edge: float, length: int, scale: float, image_size: int) -> tuple[int, int, int, int]:
    """One axis of the square: what of the slice it shows, and where.

    Args:
        low: first pixel of the part that must be shown.
        high: the pixel after its last one.
        edge: pixels of the slice that the square spans.
        length: pixels of the slice.
        scale: pixels of the tensor per pixel of the slice.
        image_size: pixels of the tensor.

    Returns:
        First and last (exclusive) pixel of the slice, first pixel of the tensor, number of its pixels.
    """
    # The square is centered on the part, and shows of the slice what lies inside of it.
    origin = (low + high - round(edge)) // 2
    first, last = max(0, origin), min(length, origin + round(edge))
    count = min(image_size, max(1, round((last - first) * scale)))
    beyond = max(0, origin + round(edge) - length)
    spare = image_size - count
    # Centered where the square reaches equally far beyond both ends.
    top = spare // 2 if beyond == first - origin else round((first - origin) * scale)
    return first, last, min(max(top, 0), spare), count
