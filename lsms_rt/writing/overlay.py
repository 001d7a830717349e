"""A picture of a result: the slice, and beside it the slice with the mask."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.atomic import unwritable
from lsms_rt.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RED, _TINT = np.array([255, 40, 40], np.float32), 0.35  # colour, opacity of the area
_GREEN = np.array([60, 230, 90], np.float32)
_EDGE = 2  # thickness of the outline, pixels
_FONT, _LINE, _MARGIN, _GAP = 18, 24, 10, 8  # pixels
_SIDE, _MOST = 512, 1024  # pixels along the longer side of a half: at least, at most


def save_overlay(
    path: str | os.PathLike[str],
    hu: NDArray[Any],
    mask: NDArray[np.bool_],
    *,
    truth: NDArray[np.bool_] | None = None,
    spacing_mm: tuple[float, float] | None = None,
    window: tuple[float, float] = (50.0, 400.0),
    caption: str | None = None,
    footer: str | None = None,
) -> None:
    """Write an RGB PNG: the slice left; right the same with a translucent red mask and its outline.

    truth, where given, is a true mask that is outlined in green.
    hu: (H, W) in HU in the usual axial view, the patient's right at the left; mask: bool (H, W) in the same grid.
    window: (level, width) in HU. Drawn in its physical proportions where spacing_mm (between rows, between columns)
    is known. caption and then footer (grey) stand below.
    InputError if the shapes differ or the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    if hu.ndim != 2 or hu.shape != mask.shape:
        raise InputError(f"overlay: image {hu.shape} and mask {mask.shape} differ; give both in one grid")
    left, right = _halves(hu, mask.astype(bool), truth, window, _size(hu.shape, spacing_mm))
    height, width = left.shape[:2]
    font = ImageFont.load_default(size=_FONT)
    total = 2 * width + _GAP
    columns = max(10, int((total - 2 * _MARGIN) / font.getlength("abcdefghij lmn op") * 17))
    below = [(line, (235, 235, 235)) for line in textwrap.wrap(caption or "", columns)]
    below += [(line, (150, 150, 150)) for line in textwrap.wrap(footer or "", columns)]
    bottom = len(below) * _LINE + 2 * _MARGIN if below else 0
    canvas = Image.new("RGB", (total, height + bottom), (18, 18, 18))
    canvas.paste(Image.fromarray(left), (0, 0))
    canvas.paste(Image.fromarray(right), (width + _GAP, 0))
    draw = ImageDraw.Draw(canvas)
    for start in (0, width + _GAP):
        for x, letter in ((_MARGIN, "R"), (width - 2 * _MARGIN, "L")):
            place = (start + x, height // 2)
            draw.text(place, letter, font=font, fill=(235, 235, 235), stroke_width=2, stroke_fill=(0, 0, 0))
    for n, (line, colour) in enumerate(below):
        draw.text((_MARGIN, height + _MARGIN + n * _LINE), line, font=font, fill=colour)
    try:
        canvas.save(Path(path), format="PNG")
    except OSError as error:
        raise unwritable(error) from error


def _size(shape: tuple[int, ...], spacing: tuple[float, float] | None) -> tuple[int, int]:
    """(rows, columns) of a half: square pixels, the longer side _SIDE pixels or, in a finer image, its own number."""
    return _proportions(shape, spacing, max(_SIDE, min(max(shape), _MOST)))


def _proportions(shape: tuple[int, ...], spacing: tuple[float, float] | None, side: int) -> tuple[int, int]:
    """(rows, columns) in square pixels, ``side`` of them along the longer side."""
    dy, dx = spacing or (1.0, 1.0)
    height, width = shape[0] * dy, shape[1] * dx
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def marked_slice(
    hu: NDArray[Any], mask: NDArray[np.bool_], spacing_mm: tuple[float, float] | None, side: int,
    window: tuple[float, float] = (50.0, 400.0),
) -> NDArray[np.uint8]:  # fmt: skip
    """The right half of the picture alone, uint8 (rows, columns, 3), ``side`` pixels along its longer side."""
    return _halves(hu, mask.astype(bool), None, window, _proportions(hu.shape, spacing_mm, side))[1]


def _halves(
    hu: NDArray[Any],
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None,
    window: tuple[float, float],
    size: tuple[int, int],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The plain and the marked slice, both uint8 (rows, columns, 3) of ``size``."""
    from PIL import Image

    level, width = window
    grey = np.clip((hu.astype(np.float32) - (level - width / 2)) * (255.0 / width), 0, 255).astype(np.uint8)
    shown = Image.fromarray(grey).resize(size[::-1], Image.Resampling.BILINEAR)
    plain = np.asarray(shown, np.float32)[..., None].repeat(3, axis=2)

    def enlarged(a: NDArray[np.bool_]) -> NDArray[np.bool_]:  # nearest: it shows which pixels are in a mask
        return np.asarray(Image.fromarray(a).resize(size[::-1], Image.Resampling.NEAREST))

    big = enlarged(mask)
    marked = np.where(big[..., None], plain * (1 - _TINT) + _RED * _TINT, plain)
    marked[big & ~_eroded(big, _EDGE)] = _RED  # drawn after enlarging, so that it stays thin
    if truth is not None:
        wanted = enlarged(truth.astype(bool))
        marked[wanted & ~_eroded(wanted, _EDGE)] = _GREEN
    return plain.astype(np.uint8), marked.astype(np.uint8)


def _eroded(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Remove the outermost `steps` pixels of a mask (4 neighbours); beyond the picture is outside."""
    for _ in range(steps):
        p = np.pad(mask, 1)
        mask = p[1:-1, 1:-1] & p[:-2, 1:-1] & p[2:, 1:-1] & p[1:-1, :-2] & p[1:-1, 2:]
    return mask
