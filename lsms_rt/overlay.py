"""A picture of a result: the slice, and beside it the slice with the mask."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEMO_FOOTER = "synthetic demo weights, not for diagnosis"
_RED, _TINT = np.array([255, 40, 40], np.float32), 0.35  # colour, opacity of the area
_EDGE = 2  # thickness of the outline, pixels
_FONT, _LINE, _MARGIN, _GAP, _MIN_HEIGHT = 18, 24, 10, 8, 512  # pixels


def save_overlay(
    path: str | os.PathLike[str],
    hu: NDArray[Any],
    mask: NDArray[np.bool_],
    *,
    window: tuple[float, float] = (50.0, 400.0),
    caption: str | None = None,
    titles: tuple[str, str] | None = None,
    footer: str | None = None,
) -> None:
    """Write an RGB PNG: the slice left; right the same with a translucent red mask and its outline.

    hu: (H, W) in HU; mask: bool (H, W) in the same grid. window: (level, width) in HU. Enlarged by a whole
    number to at least 512 pixels high. titles stand above the halves, caption and then footer (grey) below.
    InputError if the shapes differ or the file cannot be written.
    """
    from PIL import Image, ImageDraw, ImageFont

    if hu.ndim != 2 or hu.shape != mask.shape:
        raise InputError(f"overlay: image {hu.shape} and mask {mask.shape} differ; give both in one grid")
    left, right = _halves(hu, mask.astype(bool), window)
    height, width = left.shape[:2]
    font = ImageFont.load_default(size=_FONT)
    total = 2 * width + _GAP
    columns = max(10, int((total - 2 * _MARGIN) / font.getlength("abcdefghij lmn op") * 17))
    below = [(line, (235, 235, 235)) for line in textwrap.wrap(caption or "", columns)]
    below += [(line, (150, 150, 150)) for line in textwrap.wrap(footer or "", columns)]
    top = _LINE + _MARGIN if titles else 0
    bottom = len(below) * _LINE + 2 * _MARGIN if below else 0
    canvas = Image.new("RGB", (total, top + height + bottom), (18, 18, 18))
    canvas.paste(Image.fromarray(left), (0, top))
    canvas.paste(Image.fromarray(right), (width + _GAP, top))
    draw = ImageDraw.Draw(canvas)
    for n, title in enumerate(titles or ()):
        draw.text((n * (width + _GAP) + _MARGIN, _MARGIN // 2), title, font=font, fill=(235, 235, 235))
    for n, (line, colour) in enumerate(below):
        draw.text((_MARGIN, top + height + _MARGIN + n * _LINE), line, font=font, fill=colour)
    try:
        canvas.save(Path(path), format="PNG")
    except OSError as error:
        raise InputError(f"{path}: not written ({error.strerror}); choose another folder") from error


def _halves(
    hu: NDArray[Any], mask: NDArray[np.bool_], window: tuple[float, float]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The plain and the marked slice, both uint8 (kH, kW, 3)."""
    factor = max(1, -(-_MIN_HEIGHT // hu.shape[0]))
    level, width = window
    grey = np.clip((hu.astype(np.float32) - (level - width / 2)) * (255.0 / width), 0, 255)
    plain = np.repeat(np.repeat(grey, factor, axis=0), factor, axis=1)[..., None].repeat(3, axis=2)
    big = np.repeat(np.repeat(mask, factor, axis=0), factor, axis=1)
    marked = np.where(big[..., None], plain * (1 - _TINT) + _RED * _TINT, plain)
    marked[big & ~_eroded(big, _EDGE)] = _RED  # drawn after enlarging, so that it stays thin
    return plain.astype(np.uint8), marked.astype(np.uint8)


def _eroded(mask: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    """Remove the outermost `steps` pixels of a mask (4 neighbours); beyond the picture is outside."""
    for _ in range(steps):
        p = np.pad(mask, 1)
        mask = p[1:-1, 1:-1] & p[:-2, 1:-1] & p[2:, 1:-1] & p[1:-1, :-2] & p[1:-1, 2:]
    return mask
