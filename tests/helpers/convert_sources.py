"""Small sources for the converters, made from the phantom in the layouts of public data sets."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from lsms_rt.datasets.phantom.case import Case, generate_case
from lsms_rt.datasets.phantom.organs import Organ

MATRIX, SLICES = 96, 4
# Millimeters between slices; far enough that an empty slice is clearly one.
STEP_MM = 12.0
LIVER = (Organ.LIVER_LEFT, Organ.LIVER_RIGHT)
LABELS = {"background": 0, "liver": 1, "tumor": 2}


@cache
def case(seed: int) -> Case:
    """A phantom case of four small slices."""
    return generate_case(seed, SLICES, MATRIX)


def hu_of(seed: int) -> np.ndarray:
    """HU int16 (N, H, W) in the usual axial view, from feet to head."""
    return np.stack([one.hu for one in case(seed).slices[::-1]])


def labels_of(seed: int, empty_slice: int | None = 0) -> np.ndarray:
    """Labels uint8 (N, H, W): 1 liver, 2 lesion; lesions are removed from ``empty_slice``."""
    planes = []
    for n, one in enumerate(case(seed).slices[::-1]):
        plane = np.isin(one.labels, LIVER).astype(np.uint8)
        for lesion in one.lesions if n != empty_slice else ():
            plane[lesion.mask] = 2
        planes.append(plane)
    return np.stack(planes)


def save_nifti(path: Path, volume: np.ndarray, spacing_mm: float, codes: str = "LPS", **header: Any) -> None:
    """Save (N, H, W) in the usual axial view, from feet to head, as a file whose axes run along ``codes``.

    In nibabel's words the usual view is (x to the patient's left, y to the back, z to the head): "LPS".
    """
    affine = np.diag([-spacing_mm, -spacing_mm, STEP_MM, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), affine)
    start = nibabel.orientations.io_orientation(affine)
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(codes))
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image.as_reoriented(turn), path)


def write_nnunet(
    folder: Path, seeds: list[int], *, decathlon: bool = False, codes: tuple[str, str] = ("LPS", "LPS")
) -> Path:
    """Write a task of the Decathlon, or a raw folder of nnU-Net; ``codes`` of images and of labels."""
    for seed in seeds:
        name, spacing = f"liver_{seed}", case(seed).spacing_mm
        image = name if decathlon else f"{name}_0000"
        save_nifti(folder / "imagesTr" / f"{image}.nii.gz", hu_of(seed), spacing, codes[0])
        save_nifti(folder / "labelsTr" / f"{name}.nii.gz", labels_of(seed), spacing, codes[1])
    facts: dict[str, Any] = {"labels": LABELS, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    if decathlon:
        facts = {
            "labels": {str(value): name for name, value in LABELS.items()}, "modality": {"0": "CT"},
            "licence": "CC-BY-SA 4.0", "reference": "a phantom",
        }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder
