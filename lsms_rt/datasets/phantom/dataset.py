"""RefHL-Phantom on disk: DICOM series, masks, sentences, in the RefHL-Seg layout.

DIR/annotations.csv                      one row a sentence (see ``calibration.refhl``)
DIR/lesions.csv                          the true attributes of every lesion of every slice
DIR/images/case_007/003.dcm              CT in HU, one series a case
DIR/masks/case_007/003_1-4.png           0/255; named by the lesions it holds, 003_none.png where none is meant
DIR/contact_sheet.png, DIR/README.md
"""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.atomic import move_folder, work_folder
from lsms_rt.datasets.refhl import ANNOTATIONS, FIELDS
from lsms_rt.errors import InputError

from .case import Case, PhantomSlice, generate_case
from .dicom import write_slice
from .sentences import Sentence, false_sentence, say, true_sentence

CASES, SLICES = 231, 2283  # the size of RefHL-Seg (abstract of arXiv 2408.17347)
SPLITS = (("train", 0.7), ("val", 0.1), ("test", 0.2))  # by case
MAX_SEED = 5000  # case seeds are seed * 1000 + number; those of the demo weights' training begin at 5000 * 1000
FALSE_CHANCE = 0.61  # of a false sentence in a slice with lesions; one sentence in six is then true of nothing
LESION_FIELDS = (
    "case_id", "slice_id", "lesion", "lesion_type", "phase", "lobe", "density", "enhancement", "margin",
    "diameter_mm", "left_mm", "posterior_mm", "area_mm2",
)  # fmt: skip


@dataclass(frozen=True)
class PhantomSpec:
    """What ``lsms-rt phantom`` makes."""

    cases: int = CASES
    seed: int = 0
    matrix: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.cases <= 1000:
            raise InputError(f"--cases {self.cases}; give 1 to 1000")
        if not 0 <= self.seed < MAX_SEED:
            raise InputError(f"--seed {self.seed}; give 0 to {MAX_SEED - 1}: higher ones trained the demo weights")
        if not 64 <= self.matrix <= 1024:
            raise InputError(f"--matrix {self.matrix}; give 64 to 1024 pixels")

    def slices_per_case(self) -> list[int]:
        """How many slices each case has: 6 to 14, on average 2283 / 231."""
        total, rng = round(self.cases * SLICES / CASES), np.random.default_rng([self.seed, 1])
        counts = rng.integers(6, 15, self.cases)
        while (difference := total - int(counts.sum())) != 0:
            index = int(rng.integers(self.cases))
            counts[index] = np.clip(counts[index] + np.sign(difference), 6, 14)
        return [int(count) for count in counts]

    def splits(self) -> list[str]:
        """The split of every case; a random but repeatable assignment."""
        order = np.random.default_rng([self.seed, 2]).permutation(self.cases)
        edges = np.cumsum([share for _, share in SPLITS]) * self.cases
        places = {int(case): place for place, case in enumerate(order)}
        return [SPLITS[int(np.searchsorted(edges, places[case] + 0.5))][0] for case in range(self.cases)]


def write_phantom(folder: Path, spec: PhantomSpec, workers: int | None = None) -> int:
    """Write the data set and return its number of slices.  ``folder`` must be new or empty.

    Raises :class:`InputError` where the folder holds something already: data sets are not mixed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not empty; give a new folder with -o")
    # A data set appears only when it is complete.
    with work_folder(folder) as place:
        part = place / "phantom"
        part.mkdir()
        count = _write(part, spec, workers or os.cpu_count() or 1)
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
    _write_csv(folder / "lesions.csv", LESION_FIELDS, lesions)
    write_contact_sheet(folder, folder / "contact_sheet.png")
    (folder / "README.md").write_text(_card(spec, sum(counts), annotations))
    return sum(counts)


def slice_sentences(item: PhantomSlice, phase: str, rng: np.random.Generator) -> list[Sentence]:
    """The sentences of a slice: up to three true ones with different meanings, a paraphrase of the first, and
    often one that is true of nothing."""
    sentences: list[Sentence] = []
    for _ in range(6):
        sentence = true_sentence(item.lesions, phase, rng)
        if sentence and sentence.query not in [other.query for other in sentences]:
            sentences.append(sentence)
        if len(sentences) == 3:
            break
    if sentences:
        first = sentences[0]
        for _ in range(10):
            text = say(first.query, len(first.targets), rng)
            if text.lower() != first.text.lower():
                sentences.insert(1, Sentence(text, first.query, first.targets))
                break
    if not sentences or rng.random() < FALSE_CHANCE:
        sentences.append(false_sentence(item.lesions, phase, rng))
    return sentences


def _run(jobs: list[tuple[Any, ...]], workers: int) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]], int]]:
    if workers == 1 or len(jobs) == 1:
        yield from (_write_case(job) for job in jobs)
        return
    # Small matrix products gain nothing from BLAS threads and the workers fill the cores already.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    workers = min(workers, len(jobs))
    # Ctrl-C is the parent's business; workers would each print a traceback.
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
        for sentence in slice_sentences(item, case.phase, rng):
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
        f"Seed {spec.seed}, {spec.cases} cases, {slices} slices of {spec.matrix}x{spec.matrix} pixels, "
        f"{len(rows)} sentences, of which {empty} are true of nothing in their slice.\n"
    )
