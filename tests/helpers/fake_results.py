"""Answers with chosen masks, over CT headers that are complete: what writers of results are tested with."""

from __future__ import annotations

from typing import Any

import numpy as np
from fake_dicom import dataset
from pydicom.dataset import Dataset

from lsms_rt.ct_slice import CtSlice
from lsms_rt.reading.load import load_slice
from lsms_rt.segmentation import Segmentation

TEXT = "the low-density lesion of Mr Secret"
DIGEST = "sha256:" + "0123456789abcdef" * 4
ORIENTATIONS = [cosines for a in (1, -1) for b in (1, -1) for cosines in ([a, 0, 0, 0, b, 0], [0, a, 0, b, 0, 0])]
# A gantry's 22 degrees.
TILTED = [1, 0, 0, 0, 0.9272, -0.3746]
UIDS = {"StudyInstanceUID": "1.2.77.1", "FrameOfReferenceUID": "1.2.77.2", "SeriesInstanceUID": "1.2.77.3"}
EMPTY_ALLOWED = {
    "PatientName": "Secret^Name",
    "PatientID": "SecretID",
    "PatientBirthDate": "19700102",
    "PatientSex": "F",
    "StudyID": "SecretStudy",
    "StudyDate": "20200304",
    "StudyTime": "101112.5",
    "AccessionNumber": "SecretNumber",
    "ReferringPhysicianName": "Secret^Doctor",
}


def header(**tags: Any) -> Dataset:
    """A CT image that a SEG can refer to, but for what ``tags`` change."""
    return dataset(**{**UIDS, **EMPTY_ALLOWED, "SliceThickness": 2.5, **tags})


def answer(ct: CtSlice, seed: int = 0, *, found: bool = True, text: str = TEXT) -> Segmentation:
    """A mask of noise, that no flip or shift leaves as it is; few pixels outside of a part: each has an outline."""
    noise = np.random.default_rng(seed).random(ct.to_input_grid(ct.hu).shape)
    noise[2:18, 5:32] += 0.28
    return answer_with(ct, noise > (0.98 if found else 2), text)


def answer_with(ct: CtSlice, mask: np.ndarray, text: str = TEXT) -> Segmentation:
    """A result with this mask."""
    return Segmentation(
        mask=mask,
        probability=mask.astype(np.float32),
        text=text,
        score=0.9,
        ct=ct,
        weights_note="no weights",
        confidence=0.5,
    )


def answers(positions: Any, empty: Any = (), **tags: Any) -> list[Segmentation]:
    """Noise for a series with these ImagePositionPatient."""
    slices = [load_slice(header(ImagePositionPatient=list(place), **tags)) for place in positions]
    return [answer(ct, n, found=n not in empty) for n, ct in enumerate(slices)]


def along_z(*heights: float) -> list[tuple[float, float, float]]:
    return [(-12.5, 31.25, z) for z in heights]


def in_patient(ds: Dataset, row: int, column: int) -> np.ndarray:
    """(3,) mm, LPS: PS3.3 equation C.7.6.2.1-1."""
    first, second = np.reshape(ds.ImageOrientationPatient, (2, 3)).astype(float)
    between_rows, between_columns = (float(v) for v in ds.PixelSpacing)
    return np.array(ds.ImagePositionPatient, float) + first * between_columns * column + second * between_rows * row


# DICOM SEG
