"""What a viewer should show, by the files of a run: masks and measures, read without the code that wrote them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread

IMAGING_MEASUREMENTS, MEASUREMENT_GROUP = "126010", "125007"
# Points are sampled where the viewer's interpolation and outlines, a few pixels wide, do not reach.
MARGIN, MAX_POINTS = 3, 60


@dataclass(frozen=True, kw_only=True)
class Region:
    """Pixels of a slice that are in the masks of the same sentences.

    Attributes:
        sentences: their numbers, from 1; none of them for pixels outside all masks.
        pixels: how many there are, without those at the border of the region.
        points: float (N, 3), some of their positions in the patient, in mm.
    """

    sentences: frozenset[int]
    pixels: int
    points: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SliceShown:
    """A slice and what is drawn on it; ``instance`` is its InstanceNumber."""

    instance: int
    regions: tuple[Region, ...]


def run_manifest(results: Path) -> dict[str, Any]:
    """Read results.json."""
    content: dict[str, Any] = json.loads((results / "results.json").read_text())
    return content


def found_sentences(manifest: dict[str, Any]) -> list[int]:
    """Return the numbers of the sentences for which something was found."""
    return sorted({row["sentence"] for row in manifest["results"] if row["found"]})


def busiest_slice(images: Path, results: Path, manifest: dict[str, Any]) -> SliceShown:
    """Return the slice with most regions, and of those the one whose smallest is largest; masks are the PNG files."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in manifest["results"]:
        rows.setdefault(row["source"], []).append(row)
    slices = [_slice(dcmread(images / source), results, given) for source, given in rows.items()]
    return max(slices, key=lambda one: (len(one.regions), min(region.pixels for region in one.regions)))


def _slice(image: Dataset, results: Path, rows: list[dict[str, Any]]) -> SliceShown:
    """Sample the regions of a slice."""
    code = np.zeros((image.Rows, image.Columns), np.int64)
    for row in rows:
        code |= np.where(np.asarray(Image.open(results / row["mask"])) > 0, 1 << row["sentence"], 0)
    inside = _all_equal_around(code)
    # Around the masks: tissue, not air, which is black with any opacity.
    inside &= (code > 0) | (image.pixel_array * image.RescaleSlope + image.RescaleIntercept > 0)
    regions = []
    for value in np.unique(code):
        points = np.argwhere(inside & (code == value))
        if len(points):
            chosen = np.random.default_rng(0).choice(points, min(len(points), MAX_POINTS), replace=False)
            sentences = frozenset(bit for bit in range(1, 63) if value >> bit & 1)
            regions.append(Region(sentences=sentences, pixels=len(points), points=_positions(image, chosen)))
    return SliceShown(instance=int(image.InstanceNumber), regions=tuple(regions))


def _all_equal_around(code: np.ndarray) -> np.ndarray:
    """Return where all pixels up to ``MARGIN`` away have the same value."""
    size = 2 * MARGIN + 1
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(code, MARGIN, mode="edge"), (size, size))
    equal: np.ndarray = (windows == code[:, :, None, None]).all((2, 3))
    return equal


def _positions(image: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Return where pixels (N, 2), row and column, are in the patient."""
    dy, dx = (float(value) for value in image.PixelSpacing)
    along = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
    corner = np.array(image.ImagePositionPatient, float)
    positions: np.ndarray = corner + pixels[:, 1:] * dx * along[0] + pixels[:, :1] * dy * along[1]
    return positions


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measurement group of a report.

    Attributes:
        values: by name, with two decimals.
        images: UIDs of the images that its coordinates are of.
    """

    values: dict[str, str]
    images: frozenset[str]


def measured(report: Path) -> list[Measured]:
    """Return the measurement groups of a report."""
    return [
        _measured(group)
        for container in dcmread(report).ContentSequence
        if _code(container) == IMAGING_MEASUREMENTS
        for group in container.ContentSequence
        if _code(group) == MEASUREMENT_GROUP
    ]


def _measured(group: Dataset) -> Measured:
    numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
    coordinates = [
        item for number in numbers for item in number.get("ContentSequence", ()) if item.ValueType == "SCOORD"
    ]
    return Measured(
        values={_name(item): f"{item.MeasuredValueSequence[0].NumericValue:.2f}" for item in numbers},
        images=frozenset(
            str(image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
            for item in coordinates
            for image in item.ContentSequence
        ),
    )


def _code(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue) if "ConceptNameCodeSequence" in item else ""


def _name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)
