"""Run the demo engine on a real abdominal slice with a drawn lesion: ``python -m lsms_rt.bench.real_ct``.

It shows that real files work, not quality: the demo weights were trained on synthetic CT only.  The slice is
pydicom-data's ``explicit_VR-UN.dcm``, 512x512, whose rows run from back to front.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.data import demo_engine
from lsms_rt.postprocess import dice
from lsms_rt.reading.load import load_slice
from lsms_rt.segmenter import Segmenter

NAME = "explicit_VR-UN.dcm"
# The drawn lesion: (row, column) in the model's frame, inside the right lobe.
CENTER, RADIUS_MM, HU = (265, 165), 14.0, 10.0
SENTENCES = (
    ("as it is", "the low-density lesion in the right lobe of the liver"),
    ("with a lesion", "the low-density lesion in the right lobe of the liver"),
    ("with a lesion", "the high-density lesion in the left lobe of the liver"),
)

NOTES = {"as it is": "real slice, as it is", "with a lesion": "real slice; the dark disc in the liver is drawn"}


@dataclass(frozen=True)
class RealAnswer:
    """The result for one sentence; ``dice`` is None unless the drawn lesion was asked for."""

    image: str
    text: str
    found: bool
    area_mm2: float | None
    dice: float | None


def with_lesion(ct: CtSlice) -> tuple[CtSlice, np.ndarray]:
    """Return the slice with a cyst-like disc in the liver, and the mask of the disc; both in the model's frame."""
    assert ct.spacing_mm is not None
    rows, columns = np.ogrid[: ct.hu.shape[0], : ct.hu.shape[1]]
    distance = np.hypot((rows - CENTER[0]) * ct.spacing_mm[0], (columns - CENTER[1]) * ct.spacing_mm[1])
    # A soft edge of one millimeter, and part of the noise of the liver, as in a scanner's image.
    inside = np.clip(RADIUS_MM + 0.5 - distance, 0, 1)
    liver = float(np.median(ct.hu[distance < 2 * RADIUS_MM]))
    noise = ct.hu - liver
    hu = (1 - inside) * ct.hu + inside * (HU + noise * (np.abs(noise) < 60))
    return replace(ct, hu=hu.astype(np.float32)), distance < RADIUS_MM


def answer(engine: Path, picture: Path | None) -> list[RealAnswer]:
    """Predict the three sentences; draw the results one below the other into ``picture``."""
    from PIL import Image
    from pydicom.data import get_testdata_file

    path = get_testdata_file(NAME, download=False)
    if path is None:
        raise FileNotFoundError(f"{NAME} not found; pip install pydicom-data==1.0.0")
    plain = load_slice(str(path))
    changed, lesion = with_lesion(plain)
    answers, tiles = [], []
    with Segmenter(engine) as segmenter, tempfile.TemporaryDirectory() as folder:
        for number, (which, text) in enumerate(SENTENCES):
            result = segmenter.predict(plain if which == "as it is" else changed, text)
            truth = plain.to_input_grid(lesion) if which == "with a lesion" else None
            overlap = None
            if truth is not None and number == 1:
                overlap = dice(truth, result.mask)
            answers.append(RealAnswer(which, text, result.found, result.area_mm2, overlap))
            result.save_overlay(Path(folder) / f"{number}.png", note=NOTES[which])
            tiles.append(Image.open(Path(folder) / f"{number}.png").convert("RGB"))
    if picture is not None:
        width, height = max(t.width for t in tiles), sum(t.height for t in tiles)
        sheet, top = Image.new("RGB", (width, height)), 0
        for tile in tiles:
            sheet.paste(tile, (0, top))
            top += tile.height
        sheet.save(picture)
    return answers


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "engine", nargs="?", type=Path, default=demo_engine(), help="engine directory (default: %(default)s)"
    )
    parser.add_argument("--picture", type=Path, help="PNG to write (default: none)")
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = [vars(row) for row in answer(options.engine, options.picture)]
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
