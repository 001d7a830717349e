"""Write one image of a series: the slices in which something was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .answer import Answer
from .caption import SIDE_UNKNOWN, size_text, slice_name
from .overlay import marked_slice
from .wrap import wrapped

# of more slices, evenly spaced ones are shown
MAX_TILES = 25
# pixels
SIDE, GAP, LINE = 256, 6, 20


def save_montage(path: Path, answers: Sequence[Answer], footer: str, names: Mapping[str, str] | None = None) -> None:
    """Write a PNG of up to ``MAX_TILES`` slices, each with its name and area.

    Args:
        path: the file to write.
        answers: results of the slices to show, from feet to head.
        footer: drawn below the tiles.
        names: what to call the answers of each sentence, of several; None for one.
    """
    from PIL import Image, ImageDraw, ImageFont

    count = min(MAX_TILES, len(answers))
    chosen = [answers[n] for n in np.unique(np.linspace(0, len(answers) - 1, count).round().astype(int))]
    if not all(answer.ct.side_known for answer in chosen):
        footer += f"; {SIDE_UNKNOWN}"
    columns = math.ceil(math.sqrt(len(chosen)))
    rows = math.ceil(len(chosen) / columns)
    font = ImageFont.load_default(size=13)
    width, top_of_footer = columns * (SIDE + GAP), rows * (SIDE + LINE + GAP)
    footer_lines = wrapped(footer, font, width - 8)
    canvas = Image.new("RGB", (width, top_of_footer + len(footer_lines) * LINE), (18, 18, 18))
    draw = ImageDraw.Draw(canvas)
    for number, answer in enumerate(chosen):
        left, top = number % columns * (SIDE + GAP), number // columns * (SIDE + LINE + GAP)
        ct = answer.ct
        tile = marked_slice(ct.hu, ct.to_model_frame(answer.mask, ct.flips, ct.transposed), ct.spacing_mm, SIDE)
        canvas.paste(Image.fromarray(tile), (left + (SIDE - tile.shape[1]) // 2, top + (SIDE - tile.shape[0]) // 2))
        if ct.side_known:
            # the patient's right
            draw.text((left + 4, top + SIDE // 2), "R", font=font, fill=(235, 235, 235))
        draw.text((left + 4, top + SIDE + 2), _caption(answer, names), font=font, fill=(235, 235, 235))
    for number, line in enumerate(footer_lines):
        draw.text((4, top_of_footer + number * LINE), line, font=font, fill=(150, 150, 150))
    canvas.save(path, format="PNG")


def _caption(answer: Answer, names: Mapping[str, str] | None) -> str:
    record = answer.record
    parts = [slice_name(answer.ct) or answer.ct.source, size_text(record["pixels"], record["area_mm2"])]
    if names is not None:
        parts.insert(0, names[answer.text])
    return ", ".join(parts)
