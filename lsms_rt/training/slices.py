"""Training slices in memory-mapped arrays: what the training loop samples from.

A folder holds ``hu.npy`` int16, ``index.npy`` uint8 and, where organs are known, ``organs.npy`` uint8, all (N, S, S) on
the model's own grid, and ``slices.json``, one record per slice.  ``slices.json`` is written last: a folder without it
is incomplete and is made again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.atomic import write_text
from lsms_rt.datasets.phantom.lesion import NO_MASK, Lesion

RECORDS = "slices.json"
# A slice's regions are numbered from 1; a uint8 map holds no more.
MAX_REGIONS = 255


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A sentence of the data set about one slice.

    Attributes:
        text: what is said.
        regions: numbers of the regions that it means; empty where it is true of nothing.
        meaning: as the data set records it, see ``refhl.Annotation.query``; may be "".
    """

    text: str
    regions: tuple[int, ...]
    meaning: str = ""


@dataclass(frozen=True, kw_only=True)
class SliceRecord:
    """What is known of one slice besides its pixels.

    Attributes:
        case: the patient or case; splits and intervals go by it.
        name: how messages call the slice.
        asked: sentences that came with the data set.
        regions: how many regions the slice's map holds.
        lesions: the attributes of every region, in the order of their numbers; None where they are unknown.
        phase: the contrast phase, where ``lesions`` is known.
    """

    case: str
    name: str
    asked: tuple[Asked, ...] = ()
    regions: int = 0
    lesions: tuple[Lesion, ...] | None = None
    phase: str = ""


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices on the model's grid.

    Attributes:
        hu: int16 (N, S, S), Hounsfield units; air around a slice that is not square.
        index: uint8 (N, S, S), 0 or the number of the region.  Every sentence means whole regions.
        organs: uint8 (N, S, S), see ``datasets.phantom.organs.Organ``, or None where unknown.
        records: N records.
        complete: whether every lesion in the pictures is a region, so that everything else is known to be none.
    """

    hu: np.ndarray
    index: np.ndarray
    organs: np.ndarray | None
    records: tuple[SliceRecord, ...]
    complete: bool

    def __len__(self) -> int:
        return len(self.records)

    @property
    def size(self) -> int:
        """S, the side of a slice in pixels."""
        return int(self.hu.shape[1])


class Writer:
    """Fills a folder slice by slice; :meth:`close` completes it."""

    def __init__(self, folder: Path, count: int, size: int, organs: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.records = folder, list[dict[str, Any]]()
        names = {"hu": np.int16, "index": np.uint8} | ({"organs": np.uint8} if organs else {})
        self.arrays = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (count, size, size))
            for name, dtype in names.items()
        }

    def add(self, record: SliceRecord, **pixels: np.ndarray) -> None:
        """Write the next slice; ``pixels`` are ``hu``, ``index`` and, where the folder has them, ``organs``."""
        for name, array in self.arrays.items():
            array[len(self.records)] = pixels[name]
        self.records.append(_plain(record))

    def close(self, complete: bool) -> None:
        """Write the records; from here on the folder can be read."""
        for array in self.arrays.values():
            array.flush()
        write_text(self.folder / RECORDS, json.dumps({"complete": complete, "records": self.records}))


def read_slices(folder: Path) -> Slices:
    """The slices of one folder, memory-mapped."""
    found = json.loads((folder / RECORDS).read_text())
    hu, index = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("hu", "index"))
    organs = np.load(folder / "organs.npy", mmap_mode="r") if (folder / "organs.npy").exists() else None
    return Slices(hu, index, organs, tuple(map(_record, found["records"])), bool(found["complete"]))


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` was written to the end."""
    return (folder / RECORDS).is_file()


def _plain(record: SliceRecord) -> dict[str, Any]:
    values = asdict(record)
    for lesion in values["lesions"] or ():
        del lesion["mask"]
    return values


def _record(values: dict[str, Any]) -> SliceRecord:
    lesions = values["lesions"]
    return SliceRecord(
        case=values["case"],
        name=values["name"],
        asked=tuple(Asked(**(row | {"regions": tuple(row["regions"])})) for row in values["asked"]),
        regions=values["regions"],
        lesions=None if lesions is None else tuple(_lesion(row) for row in lesions),
        phase=values["phase"],
    )


def _lesion(row: dict[str, Any]) -> Lesion:
    return Lesion(mask=NO_MASK, **(row | {"centroid_mm": tuple(row["centroid_mm"])}))
