"""Write an image of a result: the slice, and beside it the slice with the mask."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.atomic import atomic_file
from lsms_rt.errors import InputError
from lsms_rt.privacy import names_shown

from .caption import caption_of, footer_of
from .result import MeasuredResult
from .wrap import wrapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

# color of the predicted mask, and opacity of its area
_RED, _TINT = np.array([255, 40, 40], np.float32), 0.35
_GREEN = np.array([60, 230, 90], np.float32)
_WHITE, _GRAY, _BACKGROUND = (235, 235, 235), (150, 150, 150), (18, 18, 18)
# pixels
_EDGE = 2
_FONT, _LINE, _MARGIN, _GAP = 18, 24, 10, 8
# pixels along the longer side of a half
_MIN_SIDE, _MAX_SIDE = 512, 1024
# (level, width) in HU: soft tissue
WINDOW = (50.0, 400.0)


def save_overlay(
    path: str | os.PathLike[str], result: MeasuredResult, truth: NDArray[np.bool_] | None = None,
    note: str | None = None, *, include_text: bool | None = None,
) -> None:  # fmt: skip
    """Write a PNG of a result, in the usual axial view (the patient's right is left), with R and L if they are known.

    Args:
        path: the file to write.
        result: the result.
        truth: bool (H, W), a true mask in the input's grid; it is outlined in green.
        note: a description of the slice, for the footer.
        include_text: write the sentence into the caption; it may contain a patient's data.  None: if names are shown.

    Raises:
        InputError: the file cannot be written.
    """
    ct = result.ct
    draw_overlay(
        path,
        ct.hu,
        ct.to_model_frame(result.mask, ct.flips, ct.transposed),
        truth=None if truth is None else ct.to_model_frame(truth, ct.flips, ct.transposed),
        spacing_mm=ct.spacing_mm,
        side_known=ct.side_known,
        caption=caption_of(result, truth, names_shown() if include_text is None else include_text),
        footer=footer_of(result, truth, note),
    )


def draw_overlay(
    path: str | os.PathLike[str],
    hu: NDArray[Any],
    mask: NDArray[np.bool_],
    *,
    truth: NDArray[np.bool_] | None = None,
    spacing_mm: tuple[float, float] | None = None,
    window: tuple[float, float] = WINDOW,
    side_known: bool = False,
    caption: str | None = None,
    footer: str | None = None,
) -> None:
    """Write an RGB PNG: the slice on the left; on the right the same with a translucent red mask and its outline.

    Args:
        path: the file to write.
        hu: (H, W) in HU in the usual axial view, the patient's right at the left.
        mask: bool (H, W), in the same grid.
        truth: bool (H, W), a true mask, which is outlined in green.
        spacing_mm: (between rows, between columns); if known, the image has physical proportions.
        window: (level, width) in HU.
        side_known: draw R and L: it is known that the patient's right is at the left.
        caption: drawn below the image.
        footer: drawn in gray below the caption.

    Raises:
        InputError: the shapes differ, or the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    if hu.ndim != 2 or hu.shape != mask.shape:
        raise InputError(f"overlay: image {hu.shape} and mask {mask.shape} differ; give both in one grid")
    left, right = _halves(hu, mask.astype(bool), truth, window, _size(hu.shape, spacing_mm))
    height, width = left.shape[:2]
    font = ImageFont.load_default(size=_FONT)
    total = 2 * width + _GAP
    below = [(line, _WHITE) for line in wrapped(caption or "", font, total - 2 * _MARGIN)]
    below += [(line, _GRAY) for line in wrapped(footer or "", font, total - 2 * _MARGIN)]
    bottom = len(below) * _LINE + 2 * _MARGIN if below else 0
    canvas = Image.new("RGB", (total, height + bottom), _BACKGROUND)
    canvas.paste(Image.fromarray(left), (0, 0))
    canvas.paste(Image.fromarray(right), (width + _GAP, 0))
    draw = ImageDraw.Draw(canvas)
    for start in (0, width + _GAP):
        for x, letter in ((_MARGIN, "R"), (width - 2 * _MARGIN, "L")) if side_known else ():
            at = (start + x, height // 2)
            draw.text(at, letter, font=font, fill=_WHITE, stroke_width=2, stroke_fill=(0, 0, 0))
    for n, (line, color) in enumerate(below):
        draw.text((_MARGIN, height + _MARGIN + n * _LINE), line, font=font, fill=color)
    with atomic_file(path) as part:
        canvas.save(part, format="PNG")


def marked_slice(
    hu: NDArray[Any], mask: NDArray[np.bool_], spacing_mm: tuple[float, float] | None, side: int,
    window: tuple[float, float] = WINDOW, tint: float = _TINT,
) -> NDArray[np.uint8]:  # fmt: skip
    """Draw the slice with the mask alone, as for :func:`draw_overlay`; with a ``tint`` of 0, its outline only.

    Returns:
        uint8 (rows, columns, 3), ``side`` pixels along its longer side.
    """
    return _halves(hu, mask.astype(bool), None, window, _proportions(hu.shape, spacing_mm, side), tint)[1]


def _size(shape: tuple[int, ...], spacing: tuple[float, float] | None) -> tuple[int, int]:
    """Return (rows, columns) of a half; the longer side has as many pixels as the image's, within the limits."""
    return _proportions(shape, spacing, max(_MIN_SIDE, min(max(shape), _MAX_SIDE)))


def _proportions(shape: tuple[int, ...], spacing: tuple[float, float] | None, side: int) -> tuple[int, int]:
    """Return (rows, columns) in square pixels, ``side`` of them along the longer side."""
    dy, dx = spacing or (1.0, 1.0)
    height, width = shape[0] * dy, shape[1] * dx
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _halves(
    hu: NDArray[Any],
    mask: NDArray[np.bool_],
    truth: NDArray[np.bool_] | None,
    window: tuple[float, float],
    size: tuple[int, int],
    tint: float = _TINT,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw the plain and the marked slice, both uint8 (rows, columns, 3) of ``size``."""
    from PIL import Image

    level, width = window
    gray = np.clip((hu.astype(np.float32) - (level - width / 2)) * (255.0 / width), 0, 255).astype(np.uint8)
    resized = Image.fromarray(gray).resize(size[::-1], Image.Resampling.BILINEAR)
    plain = np.asarray(resized, np.float32)[..., None].repeat(3, axis=2)

    # Nearest neighbor shows which pixels are in a mask.
    def enlarged(a: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(Image.fromarray(a).resize(size[::-1], Image.Resampling.NEAREST))

    predicted = enlarged(mask)
    marked = np.where(predicted[..., None], plain * (1 - tint) + _RED * tint, plain)
    # The outline is drawn after enlarging, so that it stays thin.
    marked[predicted & ~_eroded(predicted, _EDGE)] = _RED
    if truth is not None:
        true = enlarged(truth.astype(bool))
        marked[true & ~_eroded(true, _EDGE)] = _GREEN
    return plain.astype(np.uint8), marked.astype(np.uint8)


def _eroded(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Remove the outermost ``steps`` pixels of a mask (4 neighbors); the border of the image counts as outside."""
    for _ in range(steps):
        p = np.pad(mask, 1)
        mask = p[1:-1, 1:-1] & p[:-2, 1:-1] & p[2:, 1:-1] & p[1:-1, :-2] & p[1:-1, 2:]
    return mask
