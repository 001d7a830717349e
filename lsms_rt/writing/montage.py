"""One picture of a series: the slices where something was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .answer import Answer
from .overlay import marked_slice

MOST = 25  # tiles; of more slices, evenly spread ones
SIDE, GAP, LINE = 256, 6, 20  # pixels


def save_montage(path: Path, answers: Sequence[Answer], footer: str) -> None:
    """Write a PNG of up to ``MOST`` slices of ``answers``, feet to head, each with its number, place and area."""
    from PIL import Image, ImageDraw, ImageFont

    chosen = [
        answers[n] for n in np.unique(np.linspace(0, len(answers) - 1, min(MOST, len(answers))).round().astype(int))
    ]
    columns = math.ceil(math.sqrt(len(chosen)))
    rows = math.ceil(len(chosen) / columns)
    width, height = columns * (SIDE + GAP), rows * (SIDE + LINE + GAP) + LINE
    canvas = Image.new("RGB", (width, height), (18, 18, 18))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
    for number, answer in enumerate(chosen):
        left, top = number % columns * (SIDE + GAP), number // columns * (SIDE + LINE + GAP)
        ct = answer.slice
        tile = marked_slice(ct.hu, ct.to_model_frame(answer.mask, ct.flips, ct.transposed), ct.spacing_mm, SIDE)
        canvas.paste(Image.fromarray(tile), (left + (SIDE - tile.shape[1]) // 2, top + (SIDE - tile.shape[0]) // 2))
        draw.text((left + 4, top + SIDE // 2), "R", font=font, fill=(235, 235, 235))  # the patient's right
        draw.text((left + 4, top + SIDE + 2), _words(answer), font=font, fill=(235, 235, 235))
    draw.text((4, height - LINE), footer, font=font, fill=(150, 150, 150))
    canvas.save(path, format="PNG")


def _words(answer: Answer) -> str:
    record, place = answer.record, answer.slice.position_mm
    area = f"{record['area_mm2']:.0f} mm2" if record["area_mm2"] is not None else f"{record['pixels']} pixels"
    return f"slice {record['number']}" + ("" if place is None else f", {place:.1f} mm") + f", {area}"
