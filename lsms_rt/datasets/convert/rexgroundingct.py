"""ReXGroundingCT: findings of radiology reports with masks, over chest CT of CT-RATE.

SOURCE/dataset.json                  {"train": [{"name": "train_1_a_1.nii.gz", "findings": {"0": sentence}}], ...};
                                     where it is missing, MICCAI_challenge_dataset.json
SOURCE/segmentations/NAME            (findings, X, Y, Z), in the order of the numbers, on the CT's grid
SOURCE/**/NAME                       the CT from CT-RATE, in any other subfolder
"""

from __future__ import annotations

import importlib
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError

from .findings import read_json, sentences_by_number
from .license import citation_file, license_file
from .nifti import on_image_grid, read_image
from .options import ConvertOptions
from .source import Finding, Source, SourceCase, Volume, source_name

TABLES = ("dataset.json", "MICCAI_challenge_dataset.json")
SPLITS = ("train", "val", "test")
MASKS = "segmentations"
# mm: how far the affine of a mask may be from that of its CT
SAME_AFFINE = 0.01


def find_cases(folder: Path, options: ConvertOptions) -> Source:
    """List the scans whose CT and masks are in the folder; nothing but the table is read.

    Raises:
        InputError: another layout, or no scan with a CT and masks.
    """
    table = next((folder / name for name in TABLES if (folder / name).is_file()), None)
    if table is None or not (folder / MASKS).is_dir():
        raise InputError(
            f"{source_name(folder)}: no {' or '.join(TABLES)}, or no folder {MASKS}; give the folder of ReXGroundingCT"
        )
    facts = read_json(table, table.name)
    if not isinstance(facts, dict) or not any(isinstance(facts.get(split), list) for split in SPLITS):
        raise InputError(f"{table.name}: expected lists 'train', 'val', 'test'; get it again from the source")
    images = _images(folder)
    cases: list[SourceCase] = []
    problems: list[str] = []
    absent = {"CT": 0, "masks": 0}
    for split in SPLITS:
        for n, entry in enumerate(facts.get(split) or []):
            try:
                name, sentences = _entry(entry, f"{table.name}: {split}[{n}]")
            except InputError as error:
                problems.append(str(error))
                continue
            here = {"CT": name in images, "masks": (folder / MASKS / name).is_file()}
            for what in absent:
                absent[what] += not here[what]
            if all(here.values()):
                cases.append(_case(folder, name, images[name], sentences, split))
    if not cases:
        why = f"{absent['CT']} scans have no CT there, {absent['masks']} no masks, {len(problems)} entries are wrong"
        raise InputError(f"{source_name(folder)}: {why}; put CTs of CT-RATE below it, with their names")
    return Source(
        cases=sorted(cases, key=lambda case: case.case_id),
        license=license_file(folder),
        citation=citation_file(folder),
        notes=tuple(f"{count} scans have no {what} in the folder" for what, count in absent.items() if count),
        problems=tuple(problems),
    )


def _case(folder: Path, name: str, images: list[Path], sentences: dict[int, str], split: str) -> SourceCase:
    stem = name.removesuffix(".gz").removesuffix(".nii")
    # train_1741_b_2 is patient 1741, scan b, reconstruction 2.
    patient = re.match(r"[a-z]+_\d+", stem)
    return SourceCase(
        case_id=stem,
        patient=patient[0] if patient else stem,
        read=partial(_read, folder, name, images, sentences),
        split=split,
        sentences=tuple(sentences.values()),
    )


def _read(folder: Path, name: str, images: list[Path], sentences: dict[int, str]) -> Volume:
    if len(images) > 1:
        raise InputError(f"{name}: {len(images)} files of this name; keep the one that the masks were drawn on")
    slices = read_image(images[0], name)
    masks = _masks(folder / MASKS / name, f"{MASKS}/{name}", slices, sentences)
    return Volume(slices=slices, findings=[Finding(sentences[n], masks[n]) for n in sorted(sentences)])


def _masks(path: Path, name: str, slices: list[CtSlice], sentences: dict[int, str]) -> dict[int, np.ndarray]:
    """Read the masks of all findings, bool (N, H, W) in the model's frame."""
    nibabel: Any = importlib.import_module("nibabel")
    grid = slices[0].grid
    assert grid is not None
    try:
        file = nibabel.load(path)
        values = np.asarray(file.dataobj)
    except Exception as error:
        # nibabel raises ImageFileError, OSError, EOFError, ValueError, zlib.error ...
        raise InputError(f"{name}: not a readable NIfTI file ({type(error).__name__}); get it again") from error
    if values.ndim == 3 and len(sentences) == 1:
        values = values[None]
    expected = (len(sentences), *grid.shape)
    if values.shape != expected or set(sentences) != set(range(len(sentences))):
        raise InputError(
            f"{name}: shape {values.shape}; expected {expected}: findings numbered from 0, then the axes of the CT"
        )
    if not np.allclose(file.affine, grid.affine, atol=SAME_AFFINE):
        raise InputError(f"{name}: its affine is not the CT's; expected masks on the grid of the CT's own file")
    if not np.isin(np.unique(values), (0, 1)).all():
        raise InputError(f"{name}: has values other than 0 and 1; expected one mask per finding")
    return {n: on_image_grid(values[n] > 0, slices) for n in sentences}


def _entry(entry: Any, place: str) -> tuple[str, dict[int, str]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or "/" in entry["name"]:
        raise InputError(f"{place}: expected an entry with 'name', the name of a file, and 'findings'")
    return entry["name"], sentences_by_number(entry.get("findings"), f"{place}, findings")


def _images(folder: Path) -> dict[str, list[Path]]:
    """Find all NIfTI files outside of the masks' folder: name -> paths."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.nii.gz")):
        if path.relative_to(folder).parts[0] != MASKS:
            found.setdefault(path.name, []).append(path)
    return found
