"""``lsms-rt demo``: run the bundled engine on bundled slices and draw the answers."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.data import DATA, demo_engine
from lsms_rt.postprocess import dice, verdict

from .arguments import add_json
from .parser import NOT_FOR_DIAGNOSIS, Command

if TYPE_CHECKING:
    from PIL import Image

    from lsms_rt.segmenter import Segmentation

# Synthetic slices, their sentences and true masks; made by training/examples.py.
EXAMPLES = DATA / "examples"
# Of the page with all answers; width and gap in pixels.
COLUMNS, WIDTH, GAP = 3, 620, 6
REAL_SENTENCE = "the low-density lesion in the right lobe of the liver"


@dataclass(frozen=True)
class Example:
    """A slice, a sentence, and the file of the true mask; None for the real slice, which has no liver."""

    image: Path
    text: str
    truth: Path | None

    @property
    def kind(self) -> str:
        return "a real slice without a liver" if self.truth is None else "synthetic"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("lsms-demo"), metavar="DIR", help="folder for the images"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> None:
    folder = arguments.output
    rows = run_demo(folder)
    if arguments.json:
        print(json.dumps(rows, indent=2, allow_nan=False))
        return
    print("Three synthetic slices and a real one; the weights were trained on synthetic CT:\n")
    for row in rows:
        answer = f"{row['pixels']} pixels" if row["found"] else "nothing found"
        print(f'{row["source"]:18} "{row["text"]}"\n{"":18}   {answer}; {row["verdict"]}; {row["milliseconds"]:.0f} ms')
    print(f"\nImages are in {folder}; for an overview see {folder / 'demo.png'}. {NOT_FOR_DIAGNOSIS}")


def bundled_examples() -> list[Example]:
    """Return synthetic slices with positive and negative sentences, and the small real CT slice that pydicom ships."""
    from pydicom.data import get_testdata_file

    rows = json.loads((EXAMPLES / "examples.json").read_text())
    examples = [Example(EXAMPLES / row["image"], row["text"], EXAMPLES / row["mask"]) for row in rows]
    real = get_testdata_file("CT_small.dcm", download=False)
    return examples + ([Example(Path(str(real)), REAL_SENTENCE, None)] if real else [])


def run_demo(folder: Path) -> list[dict[str, Any]]:
    """Segment every example; write one image each, ``demo.png`` with all of them, and ``demo.json``.

    Args:
        folder: where to write; created if it is missing.

    Returns:
        One row per example, as in ``demo.json``.
    """
    from PIL import Image

    from lsms_rt.segmenter import Segmenter

    folder.mkdir(parents=True, exist_ok=True)
    rows, images = [], []
    with Segmenter(demo_engine()) as segmenter:
        for number, example in enumerate(bundled_examples()):
            result = segmenter.predict(example.image, example.text)
            image = folder / f"{number:02d}.png"
            empty = np.zeros_like(result.mask)
            truth = empty if example.truth is None else np.asarray(Image.open(example.truth)) > 127
            result.save_overlay(image, truth, f"{example.image.name}, {example.kind}")
            images.append(image)
            rows.append(_row(result, truth, example))
    _sheet(images).save(folder / "demo.png")
    (folder / "demo.json").write_text(json.dumps(rows, indent=2, allow_nan=False) + "\n")
    return rows


def _sheet(images: list[Path]) -> Image.Image:
    """Draw all images on one page, ``COLUMNS`` to a row: the sentences of one slice are side by side."""
    from PIL import Image

    tiles = []
    for path in images:
        with Image.open(path) as tile:
            tiles.append(tile.convert("RGB").resize((WIDTH, round(tile.height * WIDTH / tile.width))))
    height = max(tile.height for tile in tiles)
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + GAP), -(-len(tiles) // COLUMNS) * (height + GAP)), (70, 70, 70))
    for number, small in enumerate(tiles):
        sheet.paste(small, (number % COLUMNS * (WIDTH + GAP), number // COLUMNS * (height + GAP)))
    return sheet


def _row(result: Segmentation, truth: np.ndarray, example: Example) -> dict[str, Any]:
    return {
        "source": result.ct.source,
        "text": result.text,
        "found": result.found,
        "pixels": int(result.mask.sum()),
        "dice": None if example.truth is None else dice(result.mask, truth),
        "verdict": verdict(result.mask, truth),
        "milliseconds": round(result.timings["total"], 1),
    }


COMMAND = Command(
    name="demo", help="run the bundled engine on bundled slices and draw the answers", add_arguments=add_arguments,
    run=run,
)  # fmt: skip
