"""Draw a contact sheet: slices with the masks of their sentences."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np

from lsms_rt.datasets.refhl import Annotation, read_annotations
from lsms_rt.reading.load import load_slice

# The HU shown: a liver window.
WINDOW = (-110.0, 190.0)
COLORS = ((255, 90, 90), (90, 200, 255), (255, 210, 70), (130, 255, 130), (255, 140, 255))
# In pixels.
TILE, LINE, FONT = 320, 16, 13


def write_contact_sheet(
    folder: Path, path: Path, columns: int = 5, rows: int = 4, window: tuple[float, float] = WINDOW
) -> None:
    """Draw up to ``columns`` x ``rows`` slices spread over the data set in ``folder``, and save a PNG.

    Every sentence has a color, in which its mask is outlined.  False sentences are gray.  ``window`` is the range of
    HU that is shown.
    """
    from PIL import Image

    by_slice: dict[Path, list[Annotation]] = {}
    for row in read_annotations(folder):
        by_slice.setdefault(row.image, []).append(row)
    images = list(by_slice)
    chosen = [images[int(i)] for i in np.linspace(0, len(images) - 1, min(columns * rows, len(images))).round()]
    height = TILE + 6 * LINE * 2
    sheet = Image.new("RGB", (columns * TILE, -(-len(chosen) // columns) * height), (16, 16, 16))
    for number, image in enumerate(chosen):
        sheet.paste(
            _tile(image, by_slice[image], height, window), (number % columns * TILE, number // columns * height)
        )
    sheet.save(path)


def _tile(image: Path, rows: list[Annotation], height: int, window: tuple[float, float]):  # type: ignore[no-untyped-def]
    from PIL import Image, ImageDraw, ImageFont

    hu = load_slice(image).hu
    low, high = window
    gray = np.clip((hu - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    picture = Image.fromarray(gray).resize((TILE, TILE), Image.Resampling.BICUBIC)
    pixels = np.stack([np.asarray(picture)] * 3, axis=2)
    lines: list[tuple[str, tuple[int, int, int]]] = []
    shown: dict[Path, tuple[int, int, int]] = {}
    for row in rows:
        mask = row.read_mask()
        color = shown.setdefault(row.mask, COLORS[len(shown) % len(COLORS)]) if mask.any() else (150, 150, 150)
        text = row.sentence if mask.any() else f"(nothing) {row.sentence}"
        lines += [(line, color) for line in textwrap.wrap(text, 46)]
        if mask.any():
            big = np.asarray(Image.fromarray(mask).resize((TILE, TILE), Image.Resampling.NEAREST))
            pixels[_outline(big)] = color
    tile = Image.new("RGB", (TILE, height), (16, 16, 16))
    tile.paste(Image.fromarray(pixels), (0, 0))
    draw = ImageDraw.Draw(tile)
    for number, (line, color) in enumerate(lines[: (height - TILE) // LINE]):
        draw.text((4, TILE + 2 + number * LINE), line, fill=color, font=ImageFont.load_default(size=FONT))
    return tile


def _outline(mask: np.ndarray) -> np.ndarray:
    """Return the pixels just outside a mask."""
    wide = np.pad(mask, 1)
    near: np.ndarray = (wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]) & ~mask
    return near
