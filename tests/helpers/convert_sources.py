"""Small sources for the converters, made from the phantom in the layouts of public data sets."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from scipy import ndimage

from lsms_rt.datasets.phantom.case import Case, generate_case
from lsms_rt.datasets.phantom.dicom import write_slice
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


def write_series(folder: Path, seed: int, patient: str, *, flipped: bool = False) -> list[pydicom.Dataset]:
    """Write a CT series, from feet to head, and return its datasets; ``flipped``: rows run to the front."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for index in reversed(range(SLICES)):
        path = folder / f"{index}.dcm"
        write_slice(path, case(seed), index, patient)
        image = pydicom.dcmread(path)
        z = (SLICES - 1 - index) * STEP_MM
        image.ImagePositionPatient[2] = z
        if flipped:
            spacing = float(image.PixelSpacing[0])
            image.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
            image.ImagePositionPatient[1] += spacing * (MATRIX - 1)
            image.PixelData = np.ascontiguousarray(image.pixel_array[::-1]).tobytes()
        image.save_as(path)
        images.append(image)
    return images


def write_seg_of(path: Path, images: list[pydicom.Dataset], segments: dict[str, np.ndarray], **options: Any) -> None:
    """Write a DICOM Segmentation with highdicom; ``segments``: label -> bool (N, H, W) in the images' own grid."""
    import highdicom
    from pydicom.sr.codedict import codes

    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion if label == "Region 1" else codes.SCT.Organ,
            algorithm_type="MANUAL",
        )
        for number, label in enumerate(segments, 1)
    ]
    seg = highdicom.seg.Segmentation(
        images, np.stack(list(segments.values()), axis=-1), options.pop("kind", "BINARY"), descriptions,
        highdicom.UID(), 900, highdicom.UID(), 1, "a hospital", "by hand", "1", "0", **options,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)


def segments_of(seed: int, *, flipped: bool = False) -> dict[str, np.ndarray]:
    """The segments of Colorectal-Liver-Metastases, bool (N, H, W): one per tumor, and more than tumors."""
    labels = labels_of(seed)
    pieces = {"Liver": labels > 0, "Liver_Remnant": (labels > 0) & (np.arange(MATRIX) < 50), "Hepatic": labels == 9}
    in_slice = np.zeros((3, 3, 3))
    in_slice[1] = 1
    numbers, count = ndimage.label(labels == 2, in_slice)
    pieces |= {f"Tumor_{number}": numbers == number for number in range(1, count + 1)}
    return {label: mask[:, ::-1] if flipped else mask for label, mask in pieces.items()}


def findings_of(seed: int) -> dict[str, np.ndarray]:
    """Sentences and their masks, bool (N, H, W): one per lesion of the case."""
    # Words that the bundled engine knows.
    words = (
        "hypodense cyst", "bright nodule", "dark focus", "rim-enhancing abscess", "tiny calcification", "hemangioma",
        "metastasis", "large mass", "enhancing HCC", "calcified foci", "hyperattenuating abnormality", "small lesions",
    )  # fmt: skip
    masks: dict[int, np.ndarray] = {}
    for n, one in enumerate(case(seed).slices[::-1]):
        for lesion in one.lesions:
            masks.setdefault(lesion.id, np.zeros((SLICES, MATRIX, MATRIX), bool))[n] = lesion.mask
    assert len(masks) <= len(words)
    return {words[(seed + number) % len(words)]: mask for number, (_, mask) in enumerate(sorted(masks.items()))}


def write_rex(folder: Path, splits: dict[int, str], codes: str = "LPS") -> Path:
    """Write a folder of ReXGroundingCT; ``splits``: seed -> split."""
    facts: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
    for seed, split in splits.items():
        name, spacing = f"train_{seed}_a_1.nii.gz", case(seed).spacing_mm
        save_nifti(folder / "images" / f"train_{seed}" / name, hu_of(seed), spacing, codes)
        parts = []
        for mask in findings_of(seed).values():
            save_nifti(folder / "one.nii.gz", mask.astype(np.uint8), spacing, codes)
            part = nibabel.load(folder / "one.nii.gz")
            parts.append(np.asarray(part.dataobj))
            affine = part.affine
        (folder / "one.nii.gz").unlink()
        (folder / "segmentations").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.stack(parts), affine), folder / "segmentations" / name)
        texts = {str(number): text for number, text in enumerate(findings_of(seed))}
        facts[split].append({"name": name, "findings": texts})
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


def write_m3d(folder: Path, seeds: list[int], codes: str = "LPS") -> Path:
    """Write an unpacked M3D_RefSeg.zip."""
    for seed in seeds:
        scan, spacing = folder / "M3D_RefSeg" / f"s{seed:04d}", case(seed).spacing_mm
        save_nifti(scan / "ct.nii.gz", hu_of(seed), spacing, codes)
        regions, texts = np.zeros((SLICES, MATRIX, MATRIX), np.uint8), {}
        for number, (text, mask) in enumerate(findings_of(seed).items(), 1):
            regions[mask] = number
            texts[str(number)] = text
        save_nifti(scan / "mask.nii.gz", regions, spacing, codes)
        (scan / "text.json").write_text(json.dumps(texts))
    return folder
