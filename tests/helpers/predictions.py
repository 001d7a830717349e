"""Runs of predict on a small series, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lsms_rt.cli.main import main
from lsms_rt.ct_slice import CtSlice
from lsms_rt.segmenter import Segmenter
from lsms_rt.writing.answer import Answer

TEXT = "the lesion in the liver"
SLICES = 5


def predict(*arguments: object) -> int:
    return main(["predict", "demo", *map(str, arguments)])


def pictures(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.suffix == ".png"}


def opened(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


class CountedSlices:
    """Counts the slices that an engine is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slices = 0
        plain = Segmenter.predict_series

        def counted(segmenter: Segmenter, images: Any, *args: Any, **more: Any) -> Any:
            self.slices += len(images)
            return plain(segmenter, images, *args, **more)

        monkeypatch.setattr(Segmenter, "predict_series", counted)


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    """Leave out when a run was, how long it took, and how much of it was done before."""
    results = [{k: v for k, v in r.items() if k != "timings_ms"} for r in document["results"]]
    run = {k: v for k, v in document["run"].items() if k not in ("started", "seconds", "resumed")}
    return document | {"results": results, "run": run}


def answer(area: float | None, position: float | None, number: int = 0, pixels: int = 3) -> Answer:
    mask = np.zeros((20, 31), bool)
    mask.flat[:pixels] = True
    ct = CtSlice(np.zeros((20, 31), np.float32), position_mm=position)
    record = {"area_mm2": area, "number": number, "score": 0.5, "pixels": pixels, "slice": f"image {number}"}
    return Answer(ct, mask, "", record)
