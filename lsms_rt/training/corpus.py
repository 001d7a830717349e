"""Phantom slices in memory-mapped arrays: what the training loop samples from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.datasets.phantom.case import Lesion, generate_case

NO_MASK = np.zeros((0, 0), bool)


@dataclass(frozen=True)
class Corpus:
    """``hu`` int16, ``labels`` uint8 (organs) and ``index`` uint8 (0, or 1 + the lesion's place), all (N, S, S).

    ``lesions[i]`` are slice i's lesions (their masks left empty, ``index`` has them) and ``phases[i]`` its phase.
    """

    hu: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    lesions: list[tuple[Lesion, ...]]
    phases: list[str]

    def __len__(self) -> int:
        return len(self.phases)


def write_corpus(folder: Path, seeds: Iterable[int], slices: int, matrix: int, workers: int) -> None:
    """Generate one case a seed into ``folder``; a folder that is complete is left as it is."""
    from tqdm import tqdm

    seeds = list(seeds)
    shape = (len(seeds) * slices, matrix, matrix)
    if (folder / "slices.json").exists():
        found = read_corpus(folder).hu.shape
        if found != shape:
            raise ValueError(f"{folder} holds slices of shape {found}, not {shape}; remove it to generate them again")
        return
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
        for name, dtype in (("hu", np.int16), ("labels", np.uint8), ("index", np.uint8))
    }
    records: list[dict[str, Any]] = []
    # not fork: a child of a process with threads may wait for ever for a lock that one of them held
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = pool.map(_case_arrays, seeds, [slices] * len(seeds), [matrix] * len(seeds), chunksize=2)
        for number, (stacks, rows) in enumerate(tqdm(jobs, total=len(seeds), desc="phantom cases", disable=None)):
            for name, stack in stacks.items():
                arrays[name][number * slices : (number + 1) * slices] = stack
            records += rows
    for array in arrays.values():
        array.flush()
    (folder / "slices.json").write_text(json.dumps(records))


def read_corpus(folder: Path) -> Corpus:
    """The arrays of :func:`write_corpus`, memory-mapped."""
    records = json.loads((folder / "slices.json").read_text())
    hu, labels, index = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("hu", "labels", "index"))
    lesions = [
        tuple(Lesion(mask=NO_MASK, **(row | {"centroid_mm": tuple(row["centroid_mm"])})) for row in record["lesions"])
        for record in records
    ]
    return Corpus(hu, labels, index, lesions, [record["phase"] for record in records])


def _case_arrays(seed: int, slices: int, matrix: int) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    case = generate_case(seed, slices, matrix)
    index = np.zeros((slices, matrix, matrix), np.uint8)
    rows = []
    for number, item in enumerate(case.slices):
        for place, lesion in enumerate(item.lesions):
            index[number][lesion.mask] = place + 1
        named = [
            {f.name: getattr(lesion, f.name) for f in fields(lesion) if f.name != "mask"} for lesion in item.lesions
        ]
        rows.append({"phase": case.phase, "lesions": named})
    stacks = {
        "hu": np.stack([item.hu for item in case.slices]),
        "labels": np.stack([item.labels for item in case.slices]),
        "index": index,
    }
    return stacks, rows
