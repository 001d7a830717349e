"""The frames of a DICOM Segmentation, laid over the slices of a CT series by their position in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lsms_rt.ct_slice import CtSlice
from lsms_rt.errors import InputError, LsmsError
from lsms_rt.reading.dicom.geometry import EXPORT_AGAIN, functional_group, numbers, to_axial
from lsms_rt.reading.quiet import quiet_pydicom

if TYPE_CHECKING:
    from pydicom import Dataset

# A frame lies over a slice if its first pixel is nearer than this share of a pixel.
SAME_PLACE = 0.25
SAME_SPACING = 1e-3


class Segment(NamedTuple):
    """A segment: its number, its label, and what the standard's code calls it."""

    number: int
    label: str
    meaning: str


class _Plane(NamedTuple):
    """A frame's first pixel in the model's frame, (3,) in mm, and how its pixels are turned into that frame."""

    corner: np.ndarray
    flips: tuple[bool, bool]
    transposed: bool
    spacing: tuple[float, float]


def segments_of(ds: Dataset, name: str) -> list[Segment]:
    """List the segments of a DICOM Segmentation; ``name`` is its name in messages."""
    segments = []
    for item in ds.get("SegmentSequence") or []:
        codes = item.get("SegmentedPropertyTypeCodeSequence") or [{}]
        number, label = item.get("SegmentNumber"), str(item.get("SegmentLabel") or "")
        if number is None:
            raise InputError(f"{name}: a segment without SegmentNumber; {EXPORT_AGAIN}")
        segments.append(Segment(int(number), label, str(codes[0].get("CodeMeaning") or "")))
    if not segments:
        raise InputError(f"{name}: a Segmentation without segments; {EXPORT_AGAIN}")
    return segments


def masks_of(ds: Dataset, wanted: set[int], slices: Sequence[CtSlice], name: str) -> dict[int, np.ndarray]:
    """Return the masks of some segments on the grid of ``slices``.

    Args:
        ds: the Segmentation, with pixels.
        wanted: numbers of segments.
        slices: DICOM slices of one series.
        name: its name in messages.

    Returns:
        number -> bool (N, H, W) in the model's frame.

    Raises:
        InputError: pixels that cannot be decoded, or a frame that lies over no slice.
    """
    with quiet_pydicom():
        try:
            return _masks(ds, wanted, slices, name)
        except (LsmsError, MemoryError):
            raise
        except Exception as error:
            # pydicom raises almost any class for malformed values; its texts may contain values
            kind = type(error).__name__
            raise InputError(f"{name}: malformed DICOM Segmentation ({kind}); {EXPORT_AGAIN}") from error


def _masks(ds: Dataset, wanted: set[int], slices: Sequence[CtSlice], name: str) -> dict[int, np.ndarray]:
    pixels = np.asarray(ds.pixel_array).reshape(-1, int(ds.Rows), int(ds.Columns))
    kind = str(ds.get("SegmentationType") or "BINARY")
    half = int(ds.get("MaximumFractionalValue") or 1) / 2
    planes = [_plane(ct.header, ct.frame, name) for ct in slices]
    corners = np.stack([plane.corner for plane in planes])
    masks = {number: np.zeros((len(slices), *slices[0].hu.shape), bool) for number in wanted}
    for n, values in enumerate(pixels):
        numbers_here = wanted if kind == "LABELMAP" else {_segment_of(ds, n)} & wanted
        if not numbers_here or not values.any():
            continue
        plane = _plane(ds, n, name)
        turned = CtSlice.to_model_frame(values, plane.flips, plane.transposed)
        index = _place(plane, turned.shape, planes, corners, slices, name)
        for number in numbers_here:
            masks[number][index] |= turned == number if kind == "LABELMAP" else turned >= half
    return masks


def _segment_of(ds: Dataset, n: int) -> int:
    group = functional_group(ds, n, "SegmentIdentificationSequence")
    return int(group.ReferencedSegmentNumber)


def _plane(ds: Any, n: int, name: str) -> _Plane:
    """Derive where frame ``n`` lies."""
    iop = numbers(functional_group(ds, n, "PlaneOrientationSequence"), "ImageOrientationPatient", 6, name)
    ipp = numbers(functional_group(ds, n, "PlanePositionSequence"), "ImagePositionPatient", 3, name)
    spacing = numbers(functional_group(ds, n, "PixelMeasuresSequence"), "PixelSpacing", 2, name)
    if iop is None or ipp is None or spacing is None:
        raise InputError(f"{name}: no position, orientation or spacing of frame {n + 1}; {EXPORT_AGAIN}")
    flips, transposed, _ = to_axial(iop, name)
    along_row, along_column = np.reshape(iop, (2, 3))
    # In the file's grid, after a transposition the model's rows are the file's columns.
    from_last = (flips[1], flips[0]) if transposed else flips
    corner = np.array(ipp, np.float64)
    corner += along_column * spacing[0] * (int(ds.Rows) - 1) * from_last[0]
    corner += along_row * spacing[1] * (int(ds.Columns) - 1) * from_last[1]
    return _Plane(corner, flips, transposed, (spacing[1], spacing[0]) if transposed else (spacing[0], spacing[1]))


def _place(
    plane: _Plane, shape: tuple[int, ...], planes: Sequence[_Plane], corners: np.ndarray,
    slices: Sequence[CtSlice], name: str,
) -> int:  # fmt: skip
    """Return the index of the slice that a frame lies over."""
    distances = np.linalg.norm(corners - plane.corner, axis=1)
    index = int(np.argmin(distances))
    if shape != slices[index].hu.shape:
        raise InputError(
            f"{name}: frames of {shape[0]}x{shape[1]} pixels over slices of {slices[index].hu.shape[0]}x"
            f"{slices[index].hu.shape[1]}; resample the Segmentation to the CT's grid"
        )
    scale = np.abs(np.subtract(plane.spacing, planes[index].spacing)).max() / min(plane.spacing)
    if scale > SAME_SPACING or distances[index] > SAME_PLACE * min(plane.spacing):
        raise InputError(
            f"{name}: a frame lies {distances[index]:.2f} mm beside the nearest slice, its pixels are "
            f"{100 * scale:.1f} % larger or smaller; resample the Segmentation to the CT's grid"
        )
    return index
