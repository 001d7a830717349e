"""What ``lsms-rt predict`` does: many inputs, one at a time, each result saved before the next is computed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .errors import InputError
from .image import load_slices
from .segmenter import Segmentation, Segmenter


def predict_inputs(
    segmenter: Segmenter, inputs: Sequence[Path], text: str, *, series: str | None, png_window: tuple[float, float]
) -> Iterator[Segmentation]:
    """Answers for every slice of every input: inputs in their order, the slices of each from feet to head."""
    for path in inputs:
        yield from segmenter.predict_series(load_slices(path, series=series, png_window=png_window), text)


def predict_to_folder(results: Iterator[Segmentation], folder: Path | None) -> Iterator[dict[str, Any]]:
    """The records of ``results``; with a ``folder``, ``NNN_overlay.png`` and ``NNN_mask.png`` of each are written
    there at once and ``results.json`` at the end.

    Files are numbered: neither a file's name nor a sentence, which may hold a patient's data, becomes a name.
    """
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; results are not overwritten, choose another -o")
    records: list[dict[str, Any]] = []
    try:
        for number, result in enumerate(results):
            record = result.to_dict()
            if folder is not None:
                _make(folder)
                names = {"overlay": f"{number:03d}_overlay.png", "mask": f"{number:03d}_mask.png"}
                result.save_overlay(folder / names["overlay"])
                result.save_mask(folder / names["mask"])
                record |= names
            records.append(record)
            yield record
    finally:  # also where a later input cannot be read: what was saved must be attributable
        if folder is not None and records:
            (folder / "results.json").write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: not a folder to write to ({error.strerror}); choose another -o") from error


def counted(records: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Pass ``records`` on, and count them on a terminal's last line; quiet in a pipe."""
    shown = sys.stderr.isatty()
    for number, record in enumerate(records, 1):
        if shown:
            print(f"\r{number} slices", end="", file=sys.stderr, flush=True)
        yield record
    if shown:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
