"""Prepare the images that a DICOM Segmentation refers to, in highdicom's form, with one mask per frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.errors import InputError
from lsms_rt.reading.dicom.geometry import EXPORT_AGAIN

from .headers import check_header, check_one_series, is_enhanced, without_geometry
from .positions import FramePosition, check_one_stack, position_of, thickness_of

if TYPE_CHECKING:
    from pydicom import Dataset

    from .result import Result


@dataclass(frozen=True, eq=False)
class Sources:
    """Images and masks for highdicom.

    Attributes:
        images: one Dataset per slice, or one for a multi-frame file.
        masks: bool (N, H, W), one per frame of ``images``.
        position: that of the first result.
    """

    images: list[Dataset]
    masks: np.ndarray
    position: FramePosition


def sources_of(results: Sequence[Result]) -> Sources:
    """Check and prepare all results; InputError if a Segmentation cannot represent them.  Headers are not changed."""
    if not results:
        raise InputError("there are no results to write; give at least one")
    for result in results:
        check_header(result)
    check_one_series(results)
    return _of_enhanced(results) if is_enhanced(results[0].ct.header) else _of_single_frames(results)


def _of_single_frames(results: Sequence[Result]) -> Sources:
    slices = [result.ct for result in results]
    positions = [position_of(ct.header, ct.frame, ct.source) for ct in slices]
    check_one_stack(positions)
    if len({str(ct.header.SOPInstanceUID) for ct in slices}) < len(slices):
        raise InputError(f"{len(slices)} slices, some with the same SOPInstanceUID; {EXPORT_AGAIN}")
    images, thickness = [], thickness_of(positions)
    for ct, position in zip(slices, positions, strict=True):
        image = without_geometry(ct.header)
        image.ImagePositionPatient = position.origin.tolist()
        # highdicom requires it to be equal to the last digit
        image.ImageOrientationPatient = positions[0].cosines.tolist()
        image.PixelSpacing, image.SliceThickness = list(positions[0].spacing_mm), thickness
        images.append(image)
    return Sources(images, np.stack([result.mask for result in results]), positions[0])


def _of_enhanced(results: Sequence[Result]) -> Sources:
    """Prepare one image with all frames of the file, since frames are numbered; masks without a result are empty."""
    header, source = results[0].ct.header, results[0].ct.source
    frames, files = int(header.get("NumberOfFrames") or 1), {str(r.ct.header.SOPInstanceUID) for r in results}
    if len(files) > 1:
        raise InputError(f"results of {len(files)} multi-frame files; write one DICOM SEG per file")
    numbers = [result.ct.frame for result in results]
    if len(set(numbers)) < len(numbers) or not 0 <= min(numbers) <= max(numbers) < frames:
        what = f"{len(numbers)} results whose frames are not distinct frames of its {frames}"
        raise InputError(f"{source}: {what}; give one result per frame")
    positions = [position_of(header, n, source) for n in range(frames)]
    check_one_stack(positions)
    masks = np.zeros((frames, *results[0].mask.shape), bool)
    for result in results:
        masks[result.ct.frame] = result.mask
    return Sources([_multi_frame(header, positions)], masks, positions[numbers[0]])


def _multi_frame(header: Any, positions: Sequence[FramePosition]) -> Dataset:
    """Build an Enhanced CT without pixels, with orientation and spacing in the shared functional groups."""
    from pydicom import Dataset

    image, shared, orientation, measures = without_geometry(header), Dataset(), Dataset(), Dataset()
    image.NumberOfFrames = len(positions)
    measures.PixelSpacing = list(positions[0].spacing_mm)
    if (thickness := thickness_of(positions)) is not None:
        measures.SliceThickness = thickness
    orientation.ImageOrientationPatient = positions[0].cosines.tolist()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    image.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for position in positions:
        group, plane = Dataset(), Dataset()
        plane.ImagePositionPatient = position.origin.tolist()
        group.PlanePositionSequence = [plane]
        groups.append(group)
    image.PerFrameFunctionalGroupsSequence = groups
    return image
