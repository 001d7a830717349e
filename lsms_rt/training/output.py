"""The folder of a training run: which run it holds, and whether there is room for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lsms_rt.atomic import write_text
from lsms_rt.datasets.refhl import table_name
from lsms_rt.digest import sha256
from lsms_rt.errors import InputError

from .dataset import Rows
from .options import TrainOptions

RUN, SLICES = "run.json", "slices"
# Bytes per pixel of a training slice: HU, region and organ.
PIXEL = 4
# Copies of the weights: network, average and two moments of Adam in the state and in the new state beside it, two of
# the best weights, the checkpoint; and room for pictures.
COPIES, ROOM = 11, 20e6


def claim(options: TrainOptions, rows: Rows) -> dict[str, Any] | None:
    """Check that the output folder is free for this run, or holds it.

    Returns:
        What was recorded at the run's first start; None for a new run.

    Raises:
        InputError: the folder holds another run or other files, or there is none to resume.
    """
    folder = options.output
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder with -o")
    file = folder / RUN
    if not file.is_file():
        if options.resume:
            raise InputError(f"{folder} holds no run to resume; remove --resume, or correct -o")
        # A run that was stopped while it read the data set leaves nothing but slices.
        if folder.is_dir() and any(path.name != SLICES for path in folder.iterdir()):
            raise InputError(f"{folder} is not empty; choose a new folder with -o")
        return None
    if not options.resume:
        raise InputError(f"{folder} holds a run; continue it with --resume, or choose a new folder with -o")
    try:
        recorded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        fixed, digest = recorded["options"], recorded["annotations"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged; start anew in a new folder") from error
    for name, value in options.fixed().items():
        if fixed.get(name) != value:
            now, then = ("not given" if v is None else v for v in (value, fixed.get(name)))
            raise InputError(
                f"--{name.replace('_', '-')} is {now}, and at the first start of {folder} it was {then}; resume with "
                "the options of the first start, or choose a new folder with -o"
            )
    if digest != _digest(rows):
        raise InputError(
            f"{table_name(rows.folder)} has changed since {folder} was started; restore it, or choose a new folder"
        )
    return recorded


def record(options: TrainOptions, rows: Rows, config: dict[str, Any]) -> None:
    """Write down what a resumed run needs: options, network and the digest of the data set's table."""
    values = {"options": options.fixed(), "config": config, "annotations": _digest(rows)}
    write_text(options.output / RUN, json.dumps(values, indent=2) + "\n")


def check_space(folder: Path, slices: int, size: int, parameters: int) -> None:
    """Check that the disk has room for a run.

    Args:
        folder: of the run; it need not exist.
        slices: still to be written.
        size: side of a slice in pixels.
        parameters: of the network and the auxiliary heads.

    Raises:
        InputError: it has not.
    """
    needed = slices * size**2 * PIXEL + parameters * 4 * COPIES + ROOM
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"training needs about {needed / 1e9:.1f} GB on disk ({slices} slices, weights and states), "
            f"{free / 1e9:.1f} GB are free; free some, or choose another disk with -o"
        )


def _digest(rows: Rows) -> str:
    return sha256(rows.table.read_bytes())
