"""The images that a Segmentation object refers to, in the form that highdicom takes, and a mask for each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.errors import InputError

from .headers import check_header, check_one_series, is_enhanced, without_geometry
from .positions import Place, check_one_stack, place_of, thickness_of

if TYPE_CHECKING:
    from pydicom import Dataset

    from .result import Result


@dataclass(frozen=True, eq=False)
class Sources:
    """``images``: a Dataset a slice, or one for a multi-frame file.  ``masks``: bool (N, H, W), one a frame of these.

    ``place`` is the first result's.
    """

    images: list[Dataset]
    masks: np.ndarray
    place: Place


def sources_of(results: Sequence[Result]) -> Sources:
    """Checks all results; InputError for what a Segmentation object cannot hold.  Headers stay as they are."""
    if not results:
        raise InputError("no results, there is nothing to write; give at least one")
    for result in results:
        check_header(result)
    check_one_series(results)
    return _of_enhanced(results) if is_enhanced(results[0].slice.header) else _of_single_frames(results)


def _of_single_frames(results: Sequence[Result]) -> Sources:
    slices = [result.slice for result in results]
    places = [place_of(ct.header, ct.frame, ct.source) for ct in slices]
    check_one_stack(places)
    if len({str(ct.header.SOPInstanceUID) for ct in slices}) < len(slices):
        raise InputError(f"{len(slices)} slices, some with the same SOPInstanceUID; export the series again")
    images, thickness = [], thickness_of(places)
    for ct, place in zip(slices, places, strict=True):
        image = without_geometry(ct.header)
        image.ImagePositionPatient = place.origin.tolist()
        image.ImageOrientationPatient = places[0].cosines.tolist()  # highdicom wants it equal to the last digit
        image.PixelSpacing, image.SliceThickness = list(places[0].spacing_mm), thickness
        images.append(image)
    return Sources(images, np.stack([result.mask for result in results]), places[0])


def _of_enhanced(results: Sequence[Result]) -> Sources:
    """One image with all frames of the file, since frames are counted; the masks of those not asked about are empty."""
    header, source = results[0].slice.header, results[0].slice.source
    frames, files = int(header.get("NumberOfFrames") or 1), {str(r.slice.header.SOPInstanceUID) for r in results}
    if len(files) > 1:
        raise InputError(f"results of {len(files)} multi-frame files; one DICOM SEG refers to one, write them apart")
    wanted = [result.slice.frame for result in results]
    if len(set(wanted)) < len(wanted) or not 0 <= min(wanted) <= max(wanted) < frames:
        raise InputError(f"{source}: {len(wanted)} results for frames that are not distinct ones of its {frames}")
    places = [place_of(header, n, source) for n in range(frames)]
    check_one_stack(places)
    masks = np.zeros((frames, *results[0].mask.shape), bool)
    for result in results:
        masks[result.slice.frame] = result.mask
    return Sources([_multi_frame(header, places)], masks, places[wanted[0]])


def _multi_frame(header: Any, places: Sequence[Place]) -> Dataset:
    """An Enhanced CT without pixels, its orientation and spacing in the shared functional groups."""
    from pydicom import Dataset

    image, shared, orientation, measures = without_geometry(header), Dataset(), Dataset(), Dataset()
    image.NumberOfFrames = len(places)
    measures.PixelSpacing = list(places[0].spacing_mm)
    if (thickness := thickness_of(places)) is not None:
        measures.SliceThickness = thickness
    orientation.ImageOrientationPatient = places[0].cosines.tolist()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    image.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for place in places:
        group, position = Dataset(), Dataset()
        position.ImagePositionPatient = place.origin.tolist()
        group.PlanePositionSequence = [position]
        groups.append(group)
    image.PerFrameFunctionalGroupsSequence = groups
    return image
