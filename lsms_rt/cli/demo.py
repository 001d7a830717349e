"""``lsms-rt demo``: the bundled engine on bundled slices, drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.data import DATA, demo_engine
from lsms_rt.postprocess import dice, verdict
from lsms_rt.segmenter import Segmentation, Segmenter

if TYPE_CHECKING:
    from PIL import Image

EXAMPLES = DATA / "examples"  # synthetic slices, their sentences and true masks; made by training/examples.py
COLUMNS, WIDTH, GAP = 3, 620, 6  # of the page with all answers, pixels
REAL_SENTENCE = "the low-density lesion in the right lobe of the liver"


@dataclass(frozen=True)
class Example:
    """A slice, a sentence, and the true mask where it is known (it is not in the real slice)."""

    image: Path
    text: str
    truth: Path | None

    @property
    def kind(self) -> str:
        return "a real slice without a liver" if self.truth is None else "synthetic"


def bundled_examples() -> list[Example]:
    """Synthetic slices with true, other and false sentences, and pydicom's own small real CT."""
    from pydicom.data import get_testdata_file

    rows = json.loads((EXAMPLES / "examples.json").read_text())
    examples = [Example(EXAMPLES / row["image"], row["text"], EXAMPLES / row["mask"]) for row in rows]
    real = get_testdata_file("CT_small.dcm", download=False)
    return examples + ([Example(Path(str(real)), REAL_SENTENCE, None)] if real else [])


def run_demo(folder: Path) -> list[dict[str, Any]]:
    """Answer every example, write a picture each, ``demo.png`` with all of them and ``demo.json`` into ``folder``."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rows, pictures = [], []
    with Segmenter(demo_engine()) as segmenter:
        for number, example in enumerate(bundled_examples()):
            result = segmenter.predict(example.image, example.text)
            picture = folder / f"{number:02d}.png"
            truth = None if example.truth is None else np.asarray(Image.open(example.truth)) > 127
            result.save_overlay(picture, truth, f"{example.image.name}, {example.kind}")
            pictures.append(picture)
            rows.append(_row(result, truth))
    _sheet(pictures).save(folder / "demo.png")
    (folder / "demo.json").write_text(json.dumps(rows, indent=2) + "\n")
    return rows


def _sheet(pictures: list[Path]) -> Image.Image:
    """All pictures on one page, ``COLUMNS`` to a row: the sentences of one slice stand beside each other."""
    from PIL import Image

    tiles = []
    for picture in pictures:
        with Image.open(picture) as tile:
            tiles.append(tile.convert("RGB").resize((WIDTH, round(tile.height * WIDTH / tile.width))))
    height = max(tile.height for tile in tiles)
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + GAP), -(-len(tiles) // COLUMNS) * (height + GAP)), (70, 70, 70))
    for number, small in enumerate(tiles):
        sheet.paste(small, (number % COLUMNS * (WIDTH + GAP), number // COLUMNS * (height + GAP)))
    return sheet


def _row(result: Segmentation, truth: np.ndarray | None) -> dict[str, Any]:
    return {
        "source": result.ct.source,
        "text": result.text,
        "found": result.found,
        "pixels": int(result.mask.sum()),
        "dice": None if truth is None else dice(result.mask, truth),
        "verdict": "no true mask is known" if truth is None else verdict(result.mask, truth),
        "milliseconds": round(result.timings["total"], 1),
    }
