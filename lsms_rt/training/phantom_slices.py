"""Slices of RefHL-Phantom for training, made without the detour over DICOM files."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from lsms_rt.datasets.phantom.case import generate_case
from lsms_rt.datasets.phantom.lesion import numbered

from .slices import SliceRecord, Writer, is_complete


def write_phantom_slices(folder: Path, seeds: Iterable[int], slices: int, size: int, workers: int) -> None:
    """Generate one case per seed into ``folder``; a folder that is complete is left as it is.

    Args:
        folder: where to write, see :mod:`.slices`.
        seeds: case seeds.
        slices: slices per case.
        size: matrix of a slice, pixels.
        workers: processes.
    """
    from tqdm import tqdm

    if is_complete(folder):
        return
    seeds = list(seeds)
    writer = Writer(folder, len(seeds) * slices, size, organs=True)
    # spawn: a forked child of a process with threads may wait forever for a lock that one of them held
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = pool.map(_case, seeds, [slices] * len(seeds), [size] * len(seeds), chunksize=2)
        for rows in tqdm(jobs, total=len(seeds), desc="phantom cases", unit="case", disable=None):
            for record, pixels in rows:
                writer.add(record, **pixels)
    writer.close(complete=True)


def _case(seed: int, slices: int, size: int) -> list[tuple[SliceRecord, dict[str, np.ndarray]]]:
    case = generate_case(seed, slices, size)
    rows = []
    for number, item in enumerate(case.slices):
        record = SliceRecord(
            case=f"seed {seed}",
            name=f"seed {seed}, slice {number}",
            regions=len(item.lesions),
            lesions=item.lesions,
            phase=case.phase,
        )
        index = numbered(item.lesions, item.hu.shape)
        rows.append((record, {"hu": item.hu, "index": index, "organs": item.labels}))
    return rows
