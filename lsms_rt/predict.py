"""What ``lsms-rt predict`` does with several inputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .errors import InputError
from .segmenter import Segmentation, Segmenter


def predict_inputs(
    segmenter: Segmenter, inputs: Sequence[Path], text: str, series: str | None = None
) -> list[Segmentation]:
    """Answers for every slice of every input: files in their order, the slices of a folder from feet to head."""
    results: list[Segmentation] = []
    for path in inputs:
        results += segmenter.predict_series(path, text, series=series)
    return results


def save_results(results: Sequence[Segmentation], folder: Path) -> None:
    """Write ``NNN_overlay.png``, ``NNN_mask.png`` and ``results.json`` into ``folder``.

    Files are numbered: neither a file's name nor a sentence, which may hold a patient's data, becomes a name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: not a folder to write to ({error.strerror}); choose another -o") from error
    records = []
    for number, result in enumerate(results):
        names = {"overlay": f"{number:03d}_overlay.png", "mask": f"{number:03d}_mask.png"}
        result.save_overlay(folder / names["overlay"])
        result.save_mask(folder / names["mask"])
        records.append(result.to_dict() | names)
    (folder / "results.json").write_text(json.dumps(records, indent=2, ensure_ascii=False) + "\n")
