"""A small data set in the RefHL-Seg layout, which the project's phantom did not make."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from lsms_rt.datasets.refhl import ANNOTATIONS, FIELDS

SENTENCES = ("the dark lesion on the left", "the dark lesion on the right", "the bright lesion")


def write_dataset(folder: Path, splits: tuple[str, ...] = ("train", "train", "val"), slices: int = 2) -> Path:
    """One case per split: slices of 96x96 with a large and a small dark square, and three sentences each.

    The sentences mean the first square, the second one, and nothing.
    """
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    y, x = np.mgrid[:96, :96]
    for case, split in enumerate(splits):
        for number in range(slices):
            name = f"{case}_{number}"
            hu = np.where((y - 48) ** 2 + (x - 48) ** 2 < 38**2, 60, -1000) + rng.normal(0, 5, (96, 96))
            first, second = np.zeros((96, 96), bool), np.zeros((96, 96), bool)
            first[30:42, 30:42] = True
            second[50:58, 54:62] = True
            hu[first | second] -= 80
            np.save(folder / f"images/{name}.npy", hu.astype(np.float32))
            for sentence, mask in zip(SENTENCES, (first, second, np.zeros((96, 96), bool)), strict=True):
                file = f"masks/{name}_{SENTENCES.index(sentence)}.png"
                Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(folder / file)
                rows.append([f"case {case}", str(number), f"images/{name}.npy", file, sentence, "", split])
    write_table(folder, rows)
    return folder


def write_table(folder: Path, rows: list[list[str]]) -> None:
    """Write ``annotations.csv``."""
    with (folder / ANNOTATIONS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(FIELDS), *rows])


def read_table(folder: Path) -> list[list[str]]:
    """Read the rows of ``annotations.csv``, without its header."""
    with (folder / ANNOTATIONS).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]
