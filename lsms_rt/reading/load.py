"""Load CT slices from files, datasets and arrays.

Only DICOM and NIfTI files state their orientation, and are turned into the model's frame; arrays, .npy files and images
must be in the usual axial view already.  Nothing shows whether they are: ``CtSlice.side_known`` is False, unless the
caller states ``orientation="axial"``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lsms_rt.ct_slice import CtSlice, log_notes, slice_from_array
from lsms_rt.errors import InputError, LsmsError, chain_cut, located
from lsms_rt.privacy import label, with_hint

from .dicom.parse import IsDicomdir
from .dicom.series import read_archive, read_dicomdir, read_file, read_series, slices_of_file
from .left_out import LeftOut
from .nifti import read_nifti
from .pictures import IMAGE_EXTENSIONS, read_image, read_npy
from .stated import NOTHING, Stated


@chain_cut
def load_slices(
    img: object,
    *,
    series: str | int | None = None,
    stated: Stated = NOTHING,
    left_out: LeftOut | None = None,
) -> list[CtSlice]:
    """Read one or more axial slices, in order from feet to head.  Notes about them are logged.

    Args:
        img: a DICOM file; a folder or .zip archive with a DICOM series, or a DICOMDIR; .npy (H, W) in HU; a gray image,
            16-bit for HU + 1024, 8-bit only with ``stated.window``; .nii or .nii.gz (needs nibabel); a pydicom Dataset;
            an array (H, W) in HU, in the usual axial view.
        series: which one of several series: a SeriesNumber, "3:2" for the second that is listed with number 3, or the
            end of a SeriesInstanceUID.
        stated: facts that the input does not hold.
        left_out: filled with what of a series is skipped, unreadable files among it; if None, a series with an
            unreadable file is rejected.

    Returns:
        The slices; their ``source`` contains no file name unless names are shown (see ``privacy``).

    Raises:
        InputError: the image cannot be used.
        MachineError: a library or decoder is missing.
    """
    if isinstance(img, CtSlice):
        return [_with_stated(img, stated)]
    if isinstance(img, (str, os.PathLike)):
        if not os.fspath(img):
            # As a path it would be the current folder.
            raise InputError("the path of the image is empty; give a file, a folder or an archive")
        slices = _load_path(Path(os.fsdecode(img)), series, stated, left_out)
    elif isinstance(img, np.ndarray):
        slices = [slice_from_array(img, spacing_mm=stated.spacing, side_known=stated.side_known)]
    elif _is_dataset(img):
        slices = slices_of_file(img, "Dataset", stated=stated)
    else:
        raise InputError(f"an image of type {type(img).__name__}; give a path, a Dataset or an array in HU")
    log_notes(slices)
    return slices


def _with_stated(ct: CtSlice, stated: Stated) -> CtSlice:
    """Return a slice with what is stated of it, as far as it does not hold it."""
    if ct.spacing_mm is None and stated.spacing is not None:
        height, width = stated.spacing
        ct = replace(ct, spacing_mm=(width, height) if ct.transposed else (height, width))
    return replace(ct, side_known=True) if stated.side_known else ct


@chain_cut
def load_slice(img: object, *, stated: Stated = NOTHING) -> CtSlice:
    """Read an input that contains exactly one slice; arguments and errors as for :func:`load_slices`."""
    slices = load_slices(img, stated=stated)
    if len(slices) != 1:
        name = label(img, "the input") if isinstance(img, (str, os.PathLike)) else slices[0].source
        raise InputError(f"{name}: contains {len(slices)} slices, one is needed; use predict_series")
    return slices[0]


def load_series(images: Any, *, series: str | int | None = None, stated: Stated = NOTHING) -> list[CtSlice]:
    """Read a series, or several single slices.

    Args:
        images: as for :func:`load_slices`, or an iterable of inputs with one slice each.
        series: as for :func:`load_slices`.
        stated: as for :func:`load_slices`.

    Returns:
        The slices of one input from feet to head; those of an iterable in its order, one for each of its inputs.

    Raises:
        InputError: an image cannot be used.
        MachineError: a library or decoder is missing.
            For an iterable the messages of both begin with the image's index, ``images[2]``.
    """
    single = isinstance(images, (str, bytes, os.PathLike, np.ndarray)) or _is_dataset(images)
    if not isinstance(images, Iterable) or single:
        return load_slices(images, series=series, stated=stated)
    if series is not None:
        raise InputError("series chooses one of an input's series, and a list has several inputs; leave it out")
    slices = []
    for index, image in enumerate(images):
        try:
            found = load_slices(image, stated=stated)
            if len(found) != 1:
                raise InputError(f"contains {len(found)} slices; a list has one slice each: pass a series by itself")
            slices += found
        except LsmsError as error:
            raise located(error, f"images[{index}]: ") from error
    return slices


def _is_dataset(img: Any) -> bool:
    # A Dataset can exist only where pydicom was imported.
    pydicom = sys.modules.get("pydicom")
    return pydicom is not None and isinstance(img, pydicom.Dataset)


def _load_path(path: Path, series: str | int | None, stated: Stated, left_out: LeftOut | None) -> list[CtSlice]:
    if path.is_dir():
        return read_series(path, series, stated=stated, left_out=left_out)
    if not path.is_file():
        raise InputError(with_hint(f"{label(path, 'the input')}: no such file; check the path"))
    lower, name = path.name.lower(), label(path, "the file")
    if lower.endswith(".zip"):
        return read_archive(path, series, stated=stated, left_out=left_out)
    if series is not None and lower.endswith((".npy", ".nii", ".nii.gz", *IMAGE_EXTENSIONS)):
        raise InputError(f"{name}: no DICOM file, so it has no series to choose; leave --series (series=) out")
    if lower.endswith(".npy"):
        return [read_npy(path, name, stated)]
    if lower.endswith(IMAGE_EXTENSIONS):
        return [read_image(path, name, stated)]
    if lower.endswith((".nii", ".nii.gz")):
        return read_nifti(path, name, stated)
    try:
        return read_file(path, series, stated)
    except IsDicomdir:
        return read_dicomdir(path, series, stated=stated, left_out=left_out)
