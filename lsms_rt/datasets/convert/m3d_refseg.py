"""M3D-RefSeg: CT of TotalSegmentator with described regions, as its archive unpacks.

SOURCE/s0000/ct.nii.gz               or SOURCE/M3D_RefSeg/s0000/...
SOURCE/s0000/mask.nii.gz             numbers of regions
SOURCE/s0000/text.json               {"1": sentence}, by the number of the region
SOURCE/M3D_RefSeg_train.csv          column Image ("s0000/ct.nii.gz"): the official split; and M3D_RefSeg_test.csv
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np

from lsms_rt.errors import InputError

from .findings import read_json, sentences_by_number
from .license import citation_file, license_file
from .nifti import read_image, read_labels
from .options import ConvertOptions
from .source import Finding, Source, SourceCase, Volume, source_name

INNER = "M3D_RefSeg"
FILES = ("ct.nii.gz", "mask.nii.gz", "text.json")


def find_cases(folder: Path, options: ConvertOptions) -> Source:
    """List the scans of an unpacked archive; their texts are read.

    Raises:
        InputError: another layout.
    """
    root = folder / INNER if (folder / INNER).is_dir() else folder
    scans = sorted(path for path in root.iterdir() if (path / "ct.nii.gz").is_file())
    if not scans:
        npy = any(path.name == "ct.npy" for path in root.glob("*/ct.npy"))
        why = "it has been prepared as .npy, without HU and spacing" if npy else f"no folder has {', '.join(FILES)}"
        raise InputError(f"{source_name(folder)}: {why}; give the folder of the unpacked M3D_RefSeg.zip")
    splits, notes = _official_splits({folder, root})
    cases: list[SourceCase] = []
    problems: list[str] = []
    for scan in scans:
        name = scan.name
        if splits and name not in splits:
            # Scans without questions are in neither table.
            splits[name] = "train"
        try:
            sentences = sentences_by_number(read_json(scan / "text.json", f"{name}/text.json"), f"{name}/text.json")
        except InputError as error:
            problems.append(f"{name}: {error}")
            continue
        cases.append(
            SourceCase(
                case_id=name,
                patient=name,
                read=partial(_read, scan, sentences),
                split=splits.get(name, ""),
                sentences=tuple(sentences.values()),
            )
        )
    if not cases:
        raise InputError(f"{source_name(folder)}: none of {len(scans)} scans has a readable text.json ({problems[0]})")
    return Source(
        cases=cases,
        license=license_file(folder),
        citation=citation_file(folder),
        notes=notes,
        problems=tuple(problems),
    )


def _read(scan: Path, sentences: dict[int, str]) -> Volume:
    slices = read_image(scan / "ct.nii.gz", f"{scan.name}/ct.nii.gz")
    path, name = scan / "mask.nii.gz", f"{scan.name}/mask.nii.gz"
    if not path.is_file():
        raise InputError(f"{name}: no such file; unpack the archive again")
    regions = read_labels(path, name, slices)
    absent = sorted(set(sentences) - set(np.unique(regions).tolist()))
    if absent:
        listed = ", ".join(map(str, absent[:5]))
        raise InputError(f"{name}: no voxel of region {listed}, which text.json describes; remove its sentence there")
    return Volume(
        slices=slices,
        findings=[Finding(text, regions == number) for number, text in sentences.items()],
        exhaustive=True,
    )


def _official_splits(folders: set[Path]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read the official split by scan; empty where there is none, or where it puts one scan into both parts."""
    found: dict[str, set[str]] = {}
    for folder in sorted(folders):
        for split in ("train", "test"):
            path = folder / f"{INNER}_{split}.csv"
            if path.is_file():
                for name in _scans_of(path):
                    found.setdefault(name, set()).add(split)
    both = sum(len(splits) > 1 for splits in found.values())
    if both:
        return {}, (f"the official split has {both} scans in both parts, so scans are split anew, by patient",)
    return {name: splits.pop() for name, splits in found.items()}, ()


def _scans_of(path: Path) -> set[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path.name}: not a CSV file in UTF-8 ({error}); get it again from the source") from error
    if not rows or "Image" not in rows[0]:
        raise InputError(f"{path.name}: no column Image; get it again from the source")
    return {str(row["Image"]).replace("\\", "/").split("/")[-2] for row in rows if "/" in str(row["Image"])}
