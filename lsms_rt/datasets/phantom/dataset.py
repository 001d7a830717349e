"""RefHL-Phantom on disk: DICOM series, masks, sentences, in the RefHL-Seg layout.

DIR/annotations.csv                      one row per sentence (see ``datasets.refhl``)
DIR/lesions.csv                          the true attributes of every lesion of every slice
DIR/lesions/case_007/003.png             where these lesions are, and (organs/) the organs: see ``datasets.knowledge``
DIR/images/case_007/003.dcm              CT in HU, one series per case
DIR/masks/case_007/003_1-4.png           0/255; named after the lesions in it; 003_none.png for a false sentence
DIR/dataset.json                         version, seed, cases, slices and matrix
DIR/contact_sheet.png, DIR/README.md
"""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.atomic import move_folder, work_folder
from lsms_rt.datasets.knowledge import ATTRIBUTES, LESIONS, ORGANS, picture_of
from lsms_rt.datasets.png import write_labels
from lsms_rt.datasets.refhl import ANNOTATIONS, FIELDS
from lsms_rt.errors import InputError
from lsms_rt.machine.cpu import cpu_count

from . import PHANTOM_VERSION
from .case import Case, PhantomSlice, generate_case
from .dicom import write_slice
from .lesion import numbered
from .sentences import Sentence, slice_sentences
from .spec import PhantomSpec

LESION_FIELDS = (
    "case_id", "slice_id", "lesion", "lesion_type", "phase", "lobe", "density", "enhancement", "margin",
    "diameter_mm", "left_mm", "posterior_mm", "area_mm2", "hu_difference",
)  # fmt: skip


def write_phantom(folder: Path, spec: PhantomSpec, workers: int | None = None) -> int:
    """Write the data set and return the number of its slices.  ``folder`` must be new or empty.

    Raises :class:`InputError` if the folder is not empty: data sets are not mixed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; give a new folder with -o")
    # A data set appears only when it is complete.
    with work_folder(folder) as place:
        part = place / "phantom"
        part.mkdir()
        count = _write(part, spec, workers or cpu_count())
        move_folder(part, folder)
    return count


def _write(folder: Path, spec: PhantomSpec, workers: int) -> int:
    from tqdm import tqdm

    from .sheet import write_contact_sheet

    counts, splits = spec.slices_per_case(), spec.splits()
    annotations: list[dict[str, Any]] = []
    lesions: list[dict[str, Any]] = []
    jobs = [(folder, spec, number, counts[number], splits[number]) for number in range(spec.cases)]
    with tqdm(total=sum(counts), desc="phantom slices", unit="slice", disable=None) as bar:
        for rows, lesion_rows, count in _run(jobs, workers):
            annotations += rows
            lesions += lesion_rows
            bar.update(count)
    _write_csv(folder / ANNOTATIONS, FIELDS + ("query",), annotations)
    _write_csv(folder / ATTRIBUTES, LESION_FIELDS, lesions)
    write_contact_sheet(folder, folder / "contact_sheet.png")
    facts = {"version": PHANTOM_VERSION, "seed": spec.seed, "cases": spec.cases, "slices": sum(counts)}
    (folder / "dataset.json").write_text(json.dumps(facts | {"matrix": spec.matrix}, indent=2) + "\n")
    (folder / "README.md").write_text(_card(spec, sum(counts), annotations))
    return sum(counts)


def _run(jobs: list[tuple[Any, ...]], workers: int) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]], int]]:
    if workers == 1 or len(jobs) == 1:
        yield from (_write_case(job) for job in jobs)
        return
    # Small matrix products gain nothing from BLAS threads, and the workers already fill the cores.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    workers = min(workers, len(jobs))
    # Let the parent handle Ctrl-C; workers would each print a traceback.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_ignore_interrupts) as pool:
        yield from pool.map(_write_case, jobs)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write_case(job: tuple[Any, ...]) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    folder, spec, number, count, split = job
    case = generate_case(spec.seed * 1000 + number, count, spec.matrix)
    case_id = f"case_{number:03d}"
    rng = np.random.default_rng([spec.seed, 3, number])
    (folder / "images" / case_id).mkdir(parents=True)
    (folder / "masks" / case_id).mkdir(parents=True)
    rows, lesion_rows = [], []
    for index, item in enumerate(case.slices):
        image = f"images/{case_id}/{index:03d}.dcm"
        write_slice(folder / image, case, index, case_id)
        lesion_rows += _lesion_rows(case, item, case_id, index)
        for part, labels in ((LESIONS, numbered(item.lesions, item.hu.shape)), (ORGANS, item.labels)):
            write_labels(picture_of(folder, part, case_id, f"{index:03d}"), labels)
        for sentence in slice_sentences(item.lesions, case.phase, rng):
            ids = [item.lesions.index(lesion) + 1 for lesion in sentence.targets]
            mask = f"masks/{case_id}/{index:03d}_{'-'.join(map(str, ids)) or 'none'}.png"
            _write_mask(folder / mask, sentence, item.hu.shape)
            types = sorted({lesion.type for lesion in sentence.targets})
            rows.append(
                dict(
                    zip(
                        FIELDS,
                        (case_id, f"{index:03d}", image, mask, sentence.text, "+".join(types), split),
                        strict=True,
                    )
                )
                | {"query": sentence.query.key()}
            )
    return rows, lesion_rows, count


def _lesion_rows(case: Case, item: PhantomSlice, case_id: str, index: int) -> list[dict[str, Any]]:
    return [
        dict(
            zip(
                LESION_FIELDS,
                (
                    case_id, f"{index:03d}", place, lesion.type, case.phase, lesion.lobe, lesion.density,
                    lesion.enhancement, lesion.margin, f"{lesion.diameter_mm:.1f}", f"{lesion.centroid_mm[0]:.1f}",
                    f"{lesion.centroid_mm[1]:.1f}", f"{lesion.mask.sum() * case.spacing_mm**2:.1f}",
                    f"{lesion.hu_difference:.1f}",
                ),
                strict=True,
            )
        )
        for place, lesion in enumerate(item.lesions, 1)
    ]  # fmt: skip


def _write_mask(path: Path, sentence: Sentence, shape: tuple[int, ...]) -> None:
    from PIL import Image

    if not path.exists():
        mask = np.zeros(shape, bool)
        for lesion in sentence.targets:
            mask |= lesion.mask
        Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(path)


def _write_csv(path: Path, names: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def _card(spec: PhantomSpec, slices: int, rows: list[dict[str, Any]]) -> str:
    empty = sum(row["lesion_type"] == "" for row in rows)
    return (
        "# RefHL-Phantom\n\nSynthetic referring CT of the liver, made by `lsms-rt phantom`: geometry and random\n"
        "numbers, no patient. Not RefHL-Seg, which was never released: only its size is imitated.\n\n"
        f"Version {PHANTOM_VERSION}, seed {spec.seed}, {spec.cases} cases, {slices} slices of "
        f"{spec.matrix}x{spec.matrix} pixels, {len(rows)} sentences, of which {empty} are true of nothing in their "
        "slice.\n"
        "Another version has other slices and other sentences: figures of two versions do not compare.\n"
    )
