"""Prepare the images that a DICOM object refers to, in highdicom's form, with the masks of each of their frames."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lsms_rt.digest import sha256
from lsms_rt.errors import InputError
from lsms_rt.reading.dicom.geometry import EXPORT_AGAIN, SAME_POSITION_MM

from .by_sentence import SentenceResults, by_sentence, check_once
from .headers import TEXTS, check_header, check_one_series, is_enhanced, without_geometry
from .positions import FramePosition, check_one_stack, position_of, thickness_of
from .result import Result

if TYPE_CHECKING:
    from pydicom import Dataset

# Makes it slow to guess a sentence from a UID: about 0.1 s each.
ROUNDS = 200_000


@dataclass(frozen=True, eq=False)
class Sources:
    """Images and masks for highdicom.

    Attributes:
        images: one Dataset per slice, or one for a multi-frame file.
        masks: bool (N, H, W, sentences), one per frame of ``images``; empty where a sentence has no result.
        position: that of the first result.
        sentences: the sentences, in the order of the last axis of ``masks``.
        missing: number of images of the series without a result, for any of the sentences.
    """

    images: list[Dataset]
    masks: np.ndarray
    position: FramePosition
    sentences: list[SentenceResults[Result]]
    missing: int

    @property
    def uids(self) -> list[list[str]]:
        """Instance and series of each image."""
        return [[str(image.SOPInstanceUID), str(image.SeriesInstanceUID)] for image in self.images]

    @property
    def identity(self) -> list[object]:
        """What was asked of which images: with the masks, what makes one object differ from another."""
        return [self.uids, [self.asked(n) for n in range(len(self.sentences))]]

    def asked(self, n: int) -> str:
        """Return a digest of sentence ``n``, from 0, as the engine reads it."""
        # Not the sentence itself, whose unknown words may be a name.
        return _slow_digest(str(self.images[0].StudyInstanceUID), self.sentences[n].results[0].read_as)

    def digest(self, n: int) -> str:
        """Return a digest of the masks of sentence ``n``, from 0."""
        return sha256(np.packbits(self.masks[..., n]).tobytes())

    def is_ascii(self, *others: str) -> bool:
        """Return whether all text that is copied from the header, and ``others``, are ASCII."""
        return "".join((*(str(self.images[0].get(name, "")) for name in TEXTS), *others)).isascii()


@lru_cache(maxsize=256)
def _slow_digest(salt: str, text: str) -> str:
    """Return a digest that is the same for the same study and sentence, and slow to find a sentence by."""
    return hashlib.pbkdf2_hmac("sha256", text.encode(), salt.encode(), ROUNDS).hex()


def sources_of(results: Sequence[Result], not_read: int) -> Sources:
    """Check and prepare all results; headers are not changed.

    Args:
        results: of one series.
        not_read: number of images of the series that are in no result.

    Raises:
        InputError: a DICOM object cannot represent them.
    """
    sentences = by_sentence(results)
    for result in results:
        check_header(result)
    check_one_series(results)
    return (_of_enhanced if is_enhanced(results[0].ct.header) else _of_single_frames)(sentences, not_read)


def _of_single_frames(sentences: list[SentenceResults[Result]], not_read: int) -> Sources:
    first: dict[str, Result] = {}
    for sentence in sentences:
        uids = [str(result.ct.header.SOPInstanceUID) for result in sentence.results]
        for uid, result in zip(uids, sentence.results, strict=True):
            _check_same_place(first.setdefault(uid, result), result)
        check_once(uids)
    slices = [result.ct for result in first.values()]
    positions = [position_of(ct.header, ct.frame, ct.source) for ct in slices]
    check_one_stack(positions)
    images, thickness = [], thickness_of(positions)
    for ct, position in zip(slices, positions, strict=True):
        image = without_geometry(ct.header)
        image.ImagePositionPatient = position.origin.tolist()
        # highdicom requires it to be equal to the last digit
        image.ImageOrientationPatient = positions[0].cosines.tolist()
        image.PixelSpacing, image.SliceThickness = list(positions[0].spacing_mm), thickness
        images.append(image)
    place = {uid: n for n, uid in enumerate(first)}
    masks, answered = _masks(sentences, len(images), lambda result: place[str(result.ct.header.SOPInstanceUID)])
    missing = [not_read + int(own) for own in (~answered).sum(0)]
    sentences = [replace(sentence, missing=own) for sentence, own in zip(sentences, missing, strict=True)]
    return Sources(images, masks, positions[0], sentences, not_read + int((~answered.all(1)).sum()))


def _check_same_place(one: Result, other: Result) -> None:
    """Raise InputError if two results, which have the same SOPInstanceUID, are of different slices."""
    if one.ct is other.ct or one.ct.header is other.ct.header:
        return
    a, b = (position_of(result.ct.header, result.ct.frame, result.ct.source) for result in (one, other))
    if np.abs(a.origin - b.origin).max() > SAME_POSITION_MM:
        raise InputError(f"different slices with the same SOPInstanceUID; {EXPORT_AGAIN}")


def _of_enhanced(sentences: list[SentenceResults[Result]], not_read: int) -> Sources:
    """Prepare one image with all frames of the file, since frames are numbered; masks without a result are empty."""
    results = [result for sentence in sentences for result in sentence.results]
    header, source = results[0].ct.header, results[0].ct.source
    frames, files = int(header.get("NumberOfFrames") or 1), {str(r.ct.header.SOPInstanceUID) for r in results}
    if len(files) > 1:
        raise InputError(f"results of {len(files)} multi-frame files; write one DICOM object per file")
    for sentence in sentences:
        numbers = [result.ct.frame for result in sentence.results]
        check_once(numbers)
        if not 0 <= min(numbers) <= max(numbers) < frames:
            what = f"results of frames {min(numbers) + 1} to {max(numbers) + 1} of its {frames}"
            raise InputError(f"{source}: {what}; give the results of this file")
    positions = [position_of(header, n, source) for n in range(frames)]
    check_one_stack(positions)
    masks, answered = _masks(sentences, frames, lambda result: result.ct.frame)
    # The file tells how many frames it has, and those that were not read are among them.
    missing = [max(not_read, int(own)) for own in (~answered).sum(0)]
    sentences = [replace(sentence, missing=own) for sentence, own in zip(sentences, missing, strict=True)]
    total = max(not_read, int((~answered.all(1)).sum()))
    return Sources([_multi_frame(header, positions)], masks, positions[results[0].ct.frame], sentences, total)


def _masks(
    sentences: list[SentenceResults[Result]], frames: int, place_of: Callable[[Result], int]
) -> tuple[np.ndarray, np.ndarray]:
    """Put all masks into one array, and whether there are any: bool (N, sentences).

    Args:
        sentences: the sentences with their results.
        frames: N.
        place_of: returns the number of a result's frame.
    """
    # in memory sentence by sentence, which is several times faster to fill and to read
    masks = np.zeros((len(sentences), frames, *sentences[0].results[0].mask.shape), bool)
    answered = np.zeros((frames, len(sentences)), bool)
    for n, (own, sentence) in enumerate(zip(masks, sentences, strict=True)):
        for result in sentence.results:
            own[place_of(result)], answered[place_of(result), n] = result.mask, True
    return np.moveaxis(masks, 0, -1), answered


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
